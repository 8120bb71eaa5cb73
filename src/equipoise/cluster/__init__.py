"""The two machines of a pair: who they are to each other, what they say, and what both are to know."""
