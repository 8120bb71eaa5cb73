"""This machine's network interfaces and their addresses: read, add, take away.  Every call blocks for some ms.

Each call opens a netlink socket of its own: half a millisecond where asking one that was kept costs a quarter, and none
has to be shared between threads, or mended when it breaks.
Source: rtnetlink(7); linux/if_addr.h (flags); linux/capability.h (rights).
"""

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Any, TypeAlias

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from equipoise.base.errors import EngineError
from equipoise.plan.model import ManagedAddress

Address: TypeAlias = IPv4Interface | IPv6Interface

_ARPHRD_ETHER = 1
_NO_DETECTION, _TENTATIVE = 0x02, 0x40  # IFA_F_NODAD, IFA_F_TENTATIVE
_FOREVER = 0xFFFFFFFF
WAY_TO_RIGHTS = "start as root, or add packaging/equipoise.service.d/layer4.conf to the systemd unit, which grants both"


@dataclass(frozen=True, slots=True)
class Link:
    """An interface.  `mac` is empty where it has none; without Ethernet nobody else can have an address there."""

    name: str
    index: int
    mac: str
    is_ethernet: bool


@dataclass(frozen=True, slots=True)
class Held:
    """An address of this machine, with the network that it is in.

    Attributes:
        is_tentative: Whether it may not be spoken from yet, because it is still asked whether somebody has it.
    """

    interface: str
    host: str
    network: Address
    is_tentative: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is now."""

    links: tuple[Link, ...]
    held: tuple[Held, ...]

    def link(self, name: str) -> Link:
        """Return an interface.  Raises: EngineError where there is none of that name."""
        found = next((each for each in self.links if each.name == name), None)
        if found is None:
            names = ", ".join(each.name for each in self.links)
            raise EngineError(f"there is no interface {name!r} on this machine; it has {names}: name one of them")
        return found

    @property
    def addresses(self) -> frozenset[ManagedAddress]:
        """All its addresses, whoever put them there."""
        return frozenset(ManagedAddress(each.host, each.interface) for each in self.held)


def look() -> Machine:
    """Return what there is now.  Raises: EngineError."""
    try:
        with IPRoute() as route:
            links = tuple(_link(message) for message in route.get_links())
            names = {each.index: each.name for each in links}
            # One that came in between has no name here yet, and is seen at the next look.
            held = [
                _held(message, names[message["index"]]) for message in route.get_addr() if message["index"] in names
            ]
    except (NetlinkError, OSError) as error:
        raise EngineError(f"cannot read this machine's interfaces: {error}") from None
    return Machine(links, tuple(held))


def add(address: ManagedAddress) -> bool:
    """Put an address on its interface, alone in its network; False where it is there.  Raises: EngineError.

    An IPv6 address is `nodad`, since who has it was asked before, and deprecated, so that this machine does not call
    others from it by itself: in mode `l4_dr` the nodes have it too, and would answer themselves.
    """
    options: dict[str, Any] = {"prefixlen": 32}
    if ":" in address.host:
        options = {"prefixlen": 128, "flags": _NO_DETECTION, "preferred_lft": 0, "valid_lft": _FOREVER}
    return _change("add", address, options, {errno.EEXIST})


def remove(address: ManagedAddress) -> bool:
    """Take an address away; False where it, or its interface, is gone already.  Raises: EngineError."""
    options = {"prefixlen": 128 if ":" in address.host else 32}
    return _change("del", address, options, {errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO})


def _change(command: str, address: ManagedAddress, options: dict[str, Any], done: set[int]) -> bool:
    try:
        index = _index(address.interface)
        with IPRoute() as route:
            call: Callable[..., object] = route.addr
            call(command, index=index, address=address.host, **options)
    except (NetlinkError, OSError) as error:
        code = error.code if isinstance(error, NetlinkError) else error.errno
        if code in done:
            return False
        raise EngineError(_plainly(command, address, code, error)) from None
    return True


def _index(interface: str) -> int:
    """Return an interface's number.  Raises: OSError with ENODEV, where Python 3.11 alone would give no errno."""
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise OSError(errno.ENODEV, str(error)) from None


def _plainly(command: str, address: ManagedAddress, code: int | None, error: Exception) -> str:
    what = f"cannot {'add' if command == 'add' else 'remove'} {address.host} on {address.interface}"
    if code == errno.EPERM:
        return f"{what}: that needs CAP_NET_ADMIN; {WAY_TO_RIGHTS}"
    if code in (errno.ENODEV, errno.ENXIO):
        return f"{what}: there is no such interface now; bring it back, or name another as network.interface"
    if code == errno.EACCES and ":" in address.host:
        return f"{what}: IPv6 is off there; `sysctl net.ipv6.conf.{address.interface}.disable_ipv6=0` puts it on"
    return f"{what}: {error}"


def _link(message: Any) -> Link:
    return Link(
        message.get("ifname"), message["index"], message.get("address") or "", message["ifi_type"] == _ARPHRD_ETHER
    )


def _held(message: Any, interface: str) -> Held:
    peer, local = message.get("address"), message.get("local")  # both the same, but on a point-to-point link
    network = ip_interface(f"{peer or local}/{message['prefixlen']}")
    flags = message.get("flags") or 0
    return Held(interface, str(ip_address(local or peer)), network, bool(flags & _TENTATIVE))
