"""Peers of check `tcp`: whoever takes the connection is well, whatever he says."""

from collections.abc import Mapping

from tests.unit.health.fake_peer import Script, says_nothing

HEALTHY: Script = says_nothing
SICK: Mapping[str, Script] = {}
LISTENS = False
