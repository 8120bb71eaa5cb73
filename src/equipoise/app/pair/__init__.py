"""This machine's half of a pair: what it tells its peer, what it hears, and what follows from it."""
