"""Hypothesis settings for `make fuzz`: many examples a test, no deadline.  Loaded with `pytest -p tools.fuzz`."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "fuzz", max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("fuzz")
