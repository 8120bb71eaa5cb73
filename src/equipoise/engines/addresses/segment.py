"""Ask the machines of a segment who has an address, and tell them that it is here.  Every call blocks.

Needs CAP_NET_RAW.  Leaves out segments that are not Ethernet: nobody is asked or told there.

A question is put three times, in two ways by turns where this machine has an address to ask from.  From that address,
because switches that inspect ARP may drop what comes from 0.0.0.0 (Cisco: `ip arp inspection validate ip`, without
`allow zeros`); and from nobody (0.0.0.0 or ::), because a host that has no way back to us, or filters by it (Linux:
rp_filter), answers only that.  arp_ignore makes no difference: with 1 and 2 Linux answers both, tried on 6.18.
Source: RFC 5227 sections 2.1.1 (what counts as an answer) and 2.3; RFC 4862 section 5.4.
"""

import errno
import selectors
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address

from equipoise.base.clock import SystemClock
from equipoise.base.errors import EngineError
from equipoise.engines.addresses.interfaces import WAY_TO_RIGHTS, Link, Machine, look
from equipoise.engines.packet_sockets import EQUAL, LOAD_BYTE, MOST_FRAME_BYTES, RETURN, Line, packet_socket
from equipoise.proto import arp, ethernet, ndp

TIMEOUT_S = 1.5  # a machine on the same switch answers within 1 ms; one that sleeps, or is busy, in some hundred
_TRIES = 3


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How one IP version asks and answers.

    Attributes:
        ask: From a hardware address, an own address or None, for a target: a frame.
        answer: Reads a frame: the address and the hardware address of who has it.
    """

    protocol: int
    program: tuple[Line, ...]
    ask: Callable[[str, str | None, str], bytes]
    answer: Callable[[bytes], tuple[str, str] | None]
    announce: Callable[[str, str], tuple[bytes, ...]]


def who_has(interface: str, address: str, timeout_s: float = TIMEOUT_S) -> tuple[str, ...]:
    """Return the hardware addresses of other machines that have `address`, in lower case with colons.

    Takes all of `timeout_s` where nobody answers, a third of it where somebody does.  Raises: EngineError.
    """
    return ask(interface, (address,), timeout_s)[address]


def ask(interface: str, addresses: Collection[str], timeout_s: float = TIMEOUT_S) -> Mapping[str, tuple[str, ...]]:
    """Do what `who_has` does for several addresses in the time of one."""
    machine, now = look(), SystemClock().monotonic
    link, begin_s = machine.link(interface), now()
    ours = {each.mac for each in machine.links}  # any of them may be on that segment, and answer for the others
    found: dict[str, set[str]] = {address: set() for address in addresses}
    if not link.is_ethernet:
        return dict.fromkeys(addresses, ())
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for each in {_dialect(address) for address in addresses}:
            selector.register(stack.enter_context(_open(link, each)), selectors.EVENT_READ, each)
        for turn in range(_TRIES):
            _put(selector, machine, link, turn, [address for address, macs in found.items() if not macs])
            until_s = begin_s + timeout_s * (turn + 1) / _TRIES
            while (left_s := until_s - now()) > 0:
                for address, mac in _answers(selector, link, left_s):
                    if mac not in ours and address in found:
                        found[address].add(mac)
            if all(found.values()):
                break
    return {address: tuple(sorted(macs)) for address, macs in found.items()}


def announce(interface: str, addresses: Collection[str]) -> None:
    """Tell all machines of the segment that these addresses are here.  Raises: EngineError."""
    link = look().link(interface)
    if not link.is_ethernet:
        return
    for dialect in {_dialect(address) for address in addresses}:
        with _open(link, dialect) as sock:
            for address in (each for each in addresses if _dialect(each) is dialect):
                for frame in dialect.announce(link.mac, address):
                    _send(sock, link, frame)


def _dialect(address: str) -> _Dialect:
    return _NDP if ":" in address else _ARP


def _put(selector: selectors.BaseSelector, machine: Machine, link: Link, turn: int, addresses: Iterable[str]) -> None:
    """Put the question, by turns from an own address and from nobody."""
    for address in addresses:
        dialect = _dialect(address)
        source = _source(machine, link, address) if turn % 2 == 0 else None
        for key in selector.get_map().values():
            if key.data is dialect and isinstance(key.fileobj, socket.socket):
                _send(key.fileobj, link, dialect.ask(link.mac, source, address))


def _source(machine: Machine, link: Link, target: str) -> str | None:
    """Return an address of ours on that link to ask from: in IPv4 one of the target's network, in IPv6 any.

    Never the target itself: that would not be a question but an announcement.
    """
    here = [each for each in machine.held if each.interface == link.name and each.host != target]
    if ":" in target:
        usable = [each for each in here if each.network.version == 6 and not each.is_tentative]
        # Not from a virtual address, alone in its network: another machine may claim that one as well.
        return next((each.host for each in usable if each.network.network.prefixlen < 128), None)
    asked = ip_address(target)
    return next((each.host for each in here if asked in each.network.network), None)


def _answers(selector: selectors.BaseSelector, link: Link, wait_s: float) -> Iterator[tuple[str, str]]:
    """Yield who answers, within `wait_s` seconds, with the next frames.  Raises: EngineError."""
    for key, _ in selector.select(wait_s):
        if not isinstance(key.fileobj, socket.socket):
            continue
        try:
            frame = key.fileobj.recv(MOST_FRAME_BYTES)
        except BlockingIOError:
            continue
        except OSError as error:
            raise EngineError(_plainly(link, error)) from None
        if (answer := key.data.answer(frame)) is not None:
            yield answer


# Sockets


def _open(link: Link, dialect: _Dialect) -> socket.socket:
    """Return a socket that hears, on that link, what the filter lets through.  Raises: EngineError."""
    try:
        sock = packet_socket(link.name, dialect.protocol, dialect.program)
    except OSError as error:
        raise EngineError(_plainly(link, error)) from None
    sock.setblocking(False)
    return sock


def _send(sock: socket.socket, link: Link, frame: bytes) -> None:
    try:
        sock.send(frame)
    except OSError as error:
        raise EngineError(_plainly(link, error)) from None


def _plainly(link: Link, error: OSError) -> str:
    what = f"cannot speak to the machines on {link.name}"
    if error.errno == errno.EPERM:
        return f"{what}: that needs CAP_NET_RAW; {WAY_TO_RIGHTS}"
    if error.errno == errno.EAFNOSUPPORT:
        return f"{what}: packet sockets are closed to us; {WAY_TO_RIGHTS}, and AF_PACKET"
    if error.errno == errno.ENETDOWN:
        return f"{what}: the interface is down; `ip link set {link.name} up` puts it up"
    return f"{what}: {error.strerror}"


# The two versions


def _ask_arp(mac: str, source: str | None, target: str) -> bytes:
    return arp.probe(mac, target) if source is None else arp.request(mac, source, target)


def _ask_ndp(mac: str, source: str | None, target: str) -> bytes:
    return ndp.solicitation(mac, source or ndp.UNSPECIFIED, target)


def _answer_arp(frame: bytes) -> tuple[str, str] | None:
    """Take requests too: who asks from an address has it (RFC 5227 section 2.1.1)."""
    said = arp.parse(frame)
    return None if said is None else (said.sender_ip, said.sender_mac)


def _answer_ndp(frame: bytes) -> tuple[str, str] | None:
    said = ndp.parse(frame)
    return None if said is None else (said.target, said.mac)


def _announce_ndp(mac: str, address: str) -> tuple[bytes, ...]:
    return (ndp.advertisement(mac, address),)


_ARP = _Dialect(ethernet.TYPE_ARP, ((RETURN, 0, 0, MOST_FRAME_BYTES),), _ask_arp, _answer_arp, arp.announcements)
_NDP = _Dialect(
    ethernet.TYPE_IPV6,
    (
        (LOAD_BYTE, 0, 0, ethernet.HEADER_BYTES + 6),  # the next header
        (EQUAL, 0, 3, ndp.ICMPV6),
        (LOAD_BYTE, 0, 0, ethernet.HEADER_BYTES + 40),  # the type of message
        (EQUAL, 0, 1, ndp.ADVERTISEMENT),
        (RETURN, 0, 0, MOST_FRAME_BYTES),
        (RETURN, 0, 0, 0),
    ),
    _ask_ndp,
    _answer_ndp,
    _announce_ndp,
)
