"""How this machine reaches addresses: facts of its routing that a plan with layer 4 needs.

The kernel is asked by rtnetlink, as `ip route get` does, and nothing is changed.  The calls block, for well under a
millisecond each; an event loop makes them in a thread.  Leaves out MAC addresses, which the kernel's neighbour table
resolves packet by packet.

Source: rtnetlink(7), RTM_GETROUTE and RTM_GETADDR; RFC 4291 for the addresses.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from equipoise.config.fields import numeric
from equipoise.plan.inputs import Way

_UNICAST, _LOCAL = 1, 2  # RTN_UNICAST, RTN_LOCAL: what a route leads to
_LOOPBACK = 8  # IFF_LOOPBACK
# What pyroute2 raises where netlink is missing, forbidden or refuses, and where an answer is not what it knows.
_NO_ANSWER = (NetlinkError, OSError, ValueError, LookupError, TypeError, struct.error)


def find_ways(addresses: Iterable[str]) -> Mapping[str, Way | None]:
    """Return the way to each numeric address; None where there is none, or where the kernel does not say."""
    wanted = sorted(set(addresses))
    nothing: dict[str, Way | None] = dict.fromkeys(wanted)
    if not wanted:
        return nothing
    try:
        with IPRoute() as netlink:
            machine = _Machine(netlink)
            return {address: _answered(machine, address) for address in wanted}
    except _NO_ANSWER:
        return nothing


class _Machine:
    """The interfaces of this machine and the addresses that they hold, as they are now."""

    def __init__(self, netlink: Any) -> None:
        self._netlink = netlink
        links = list(netlink.get_links())
        self._names: dict[int, str] = {link["index"]: link.get("IFLA_IFNAME") for link in links}
        self._loopbacks = {link["index"] for link in links if link["flags"] & _LOOPBACK}
        self._holders: dict[str, int] = {}
        for held in netlink.get_addr():
            address = held.get("IFA_LOCAL") or held.get("IFA_ADDRESS")  # of IPv6, and of a tunnel, they differ
            if address is not None and (address not in self._holders or self._holders[address] in self._loopbacks):
                self._holders[address] = held["index"]

    def way(self, address: str) -> Way | None:
        """Return the way there.  Raises: one of `_NO_ANSWER` where there is none."""
        route = self._netlink.route("get", dst=address)[0]
        if route["type"] == _LOCAL:
            return self._own(address)
        if route["type"] != _UNICAST:
            return None
        return Way(self._names[route.get("RTA_OIF")], _router(route), route.get("RTA_PREFSRC"))

    def _own(self, address: str) -> Way | None:
        """Return the interface that holds an address of this machine; its route names the loopback interface."""
        holder, plain = self._holders.get(address), numeric(address)
        if holder is None and plain is not None and plain.is_loopback:  # 127.0.0.2, of which 127.0.0.1/8 takes care
            holder = self._holders.get("127.0.0.1")
        if holder is None:
            return None
        if holder in self._loopbacks and plain is not None and not plain.is_loopback:
            return None  # it is kept there so that clients may come by any interface: which one, is not known
        return Way(self._names[holder])


def _answered(machine: _Machine, address: str) -> Way | None:
    try:
        return machine.way(address)
    except _NO_ANSWER:  # no route, or one that says unreachable
        return None


def _router(route: Any) -> str | None:
    """Return the router of a route, of either family: an IPv4 network may be behind an IPv6 one (RFC 5549)."""
    via = route.get("RTA_VIA")
    gateway = route.get("RTA_GATEWAY") or (via["addr"] if via else None)
    return str(gateway) if gateway is not None else None
