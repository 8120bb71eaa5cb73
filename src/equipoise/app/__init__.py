"""The supervisor: turns events into inputs, and inputs into what engines do."""
