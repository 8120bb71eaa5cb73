"""Check `script` asks no peer: what its programs do is in `test_script.py`."""

from collections.abc import Mapping

from tests.unit.health.fake_peer import Script, says_nothing

HEALTHY: Script = says_nothing
SICK: Mapping[str, Script] = {}
LISTENS = False
DIALS = False
