"""Which machines are known to have an address of ours as well, so that each is spoken of once until it is gone."""

from collections.abc import Mapping

from equipoise.plan.model import ManagedAddress
from equipoise.state.network_events import AddressConflict


class KnownConflicts:
    """What the last look found."""

    def __init__(self) -> None:
        self._known: frozenset[tuple[ManagedAddress, str]] = frozenset()

    def news(self, found: Mapping[ManagedAddress, tuple[str, ...]]) -> list[AddressConflict]:
        """Take what a look found; return what was not known."""
        now = frozenset((address, mac) for address, macs in found.items() for mac in macs)
        new, self._known = now - self._known, now
        return [AddressConflict(address=each.host, interface=each.interface, mac=mac) for each, mac in sorted(new)]
