"""The engine that puts the configuration's addresses on this machine, and what asks a segment who has an address."""
