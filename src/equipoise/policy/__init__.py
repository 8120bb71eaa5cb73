"""Ways to pick a node, one file each, and persistence.  Pure and seeded."""
