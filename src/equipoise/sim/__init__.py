"""Simulated archives and modalities: the demo and the tests use them, the path of traffic never does."""
