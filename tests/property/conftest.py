"""How long properties are looked for: a little in `make check`, without end with HYPOTHESIS_PROFILE=fuzz."""

import os

from hypothesis import settings

# No deadlines: a busy machine is no bug of ours.
settings.register_profile("check", max_examples=150, deadline=None)
settings.register_profile("thorough", max_examples=1500, deadline=None)
settings.register_profile("fuzz", max_examples=1_000_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "check"))
