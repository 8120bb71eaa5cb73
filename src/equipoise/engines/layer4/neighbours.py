"""The kernel's neighbour table: which MAC address a node has, and asking again.

Direct routing sends a node's packets to what stands here.  Leaves out who is a neighbour and when to ask.

Tried on Linux 6.18: NUD_PROBE asks the known MAC, three times, once a second, and packets go on; a node whose MAC has
changed does not hear it, the entry is FAILED after 3.1 s and the next packet to it asks everybody.  NTF_USE alone does
nothing on an entry that is REACHABLE.

Source: rtnetlink(7), RTM_NEWNEIGH; linux/neighbour.h, NUD_* and NTF_USE.
"""

import errno
import ipaddress
import socket
from collections.abc import Collection, Mapping

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from equipoise.base.errors import EngineError
from equipoise.engines.layer4.netlink import refusal
from equipoise.plan.model import ManagedAddress

_NONE, _PROBE = 0x00, 0x10  # NUD_*
_KNOWN = 0x02 | 0x04 | 0x08 | 0x10 | 0x80  # REACHABLE, STALE, DELAY, PROBE, PERMANENT: packets go to that MAC
_USE = 0x01  # NTF_USE


def neighbour_macs(places: Collection[ManagedAddress]) -> Mapping[ManagedAddress, str | None]:
    """Return the MAC address that packets to each of these go to, None where there is none (yet).

    Raises: EngineError.
    """
    numbers = {name: number for number, name in socket.if_nameindex()}
    wanted = {(ipaddress.ip_address(place.host), numbers.get(place.interface)): place for place in places}
    macs: dict[ManagedAddress, str | None] = dict.fromkeys(places)
    try:
        with IPRoute() as kernel:
            for family in {_family(place.host) for place in places}:
                for entry in kernel.get_neighbours(family=family):
                    place = wanted.get((ipaddress.ip_address(entry.get_attr("NDA_DST")), entry["ifindex"]))
                    if place is not None and entry["state"] & _KNOWN:
                        macs[place] = entry.get_attr("NDA_LLADDR")
    except (OSError, NetlinkError) as error:
        raise _refusal(error, "read the neighbour table") from None
    return macs


def probe(address: str, interface: str) -> None:
    """Make the kernel ask who has an address, now; the entry follows a changed MAC within about 4 s, under traffic.

    Raises: EngineError.
    """
    doing = f"ask who has {address} on {interface}"
    try:
        index = socket.if_nametoindex(interface)
    except OSError:
        raise EngineError(f"cannot {doing}: this machine has no interface {interface!r}; see `ip link`") from None
    neighbour = {"dst": address, "ifindex": index, "family": _family(address)}
    try:
        with IPRoute() as kernel:
            if any(entry["state"] & _KNOWN for entry in kernel.get_neighbours(**neighbour)):
                kernel.neigh("change", state=_PROBE, **neighbour)
            else:
                kernel.neigh("replace", state=_NONE, flags=_USE, **neighbour)
    except (OSError, NetlinkError) as error:
        raise _refusal(error, doing) from None


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _refusal(error: Exception, doing: str) -> EngineError:
    code = error.code if isinstance(error, NetlinkError) else getattr(error, "errno", None)
    return refusal(OSError(code or errno.EIO, str(error)), doing)
