"""What every layer uses and what imports none of ours: errors, units, clock, tasks, processes, paths."""
