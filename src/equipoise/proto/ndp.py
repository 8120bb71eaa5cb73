"""Neighbour discovery for IPv6 over Ethernet: ask who has an address, announce one's own, read what others say.

Leaves out: routers' messages, redirects, secured discovery (RFC 3971), and IPv6 extension headers, which none of these
messages may need.
Source: RFC 4861 sections 4.3, 4.4, 4.6.1, 7.1.2 and 7.2.6; RFC 4862 section 5.4.2; RFC 4443 section 2.3 (checksum).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address

from equipoise.proto import ethernet

UNSPECIFIED = "::"
ALL_NODES = IPv6Address("ff02::1")
ICMPV6, ADVERTISEMENT = 58, 136
_SOLICITATION = 135
_HOP_LIMIT = 255  # a router would have made it less: so the sender is on this segment
_IPV6 = struct.Struct(">IHBB16s16s")  # version and flow; length; next header; hop limit; source; destination
_PSEUDO_HEADER = struct.Struct(">16s16sI3xB")  # RFC 8200 section 8.1
_MESSAGE = struct.Struct(">BBHI16s")  # type, code, checksum; flags; target
_SOURCE_OPTION, _TARGET_OPTION = 1, 2
_SOLICITED, _OVERRIDE = 0x40000000, 0x20000000
_OPTION_UNIT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Advertisement:
    """A machine says that it has an address.

    Attributes:
        mac: From the option where there is one, else the frame's sender; in lower case with colons.
        source: The address that it said so from.
        target: The address that it has.
        is_solicited: Whether it answers a question of that machine that it went to.
        overrides: Whether others are to forget whom they thought to have the address.
    """

    mac: str
    source: str
    target: str
    is_solicited: bool
    overrides: bool


def solicited_node(target: str) -> IPv6Address:
    """Return the multicast group that whoever has `target` listens to (RFC 4291 section 2.7.1)."""
    return IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + IPv6Address(target).packed[13:])


def solicitation(mac: str, source: str, target: str) -> bytes:
    """Return the frame that asks who has `target`, from an address of ours or, as a probe, from `::`.

    A probe tells no hardware address (RFC 4861 section 4.3), and so teaches nobody anything.
    """
    option = b"" if source == UNSPECIFIED else _option(_SOURCE_OPTION, mac)
    message = _MESSAGE.pack(_SOLICITATION, 0, 0, 0, IPv6Address(target).packed) + option
    return _frame(mac, IPv6Address(source), solicited_node(target), message)


def advertisement(mac: str, address: str) -> bytes:
    """Return the frame that tells all machines of the segment, unasked, that `address` is here now."""
    message = _MESSAGE.pack(ADVERTISEMENT, 0, 0, _OVERRIDE, IPv6Address(address).packed)
    return _frame(mac, IPv6Address(address), ALL_NODES, message + _option(_TARGET_OPTION, mac))


def parse(frame: bytes) -> Advertisement | None:
    """Return what a frame says; None where it is no neighbour advertisement, or one that RFC 4861 has us ignore."""
    packet = ethernet.payload_of(frame, ethernet.TYPE_IPV6)
    if packet is None or len(packet) < _IPV6.size:
        return None
    _, length, following, hop_limit, source, destination = _IPV6.unpack_from(packet)
    message = packet[_IPV6.size : _IPV6.size + length]  # the frame may be longer: padded to 60 bytes
    if (following, hop_limit) != (ICMPV6, _HOP_LIMIT) or len(message) < max(length, _MESSAGE.size):
        return None
    kind, code, _, flags, target = _MESSAGE.unpack_from(message)
    if (kind, code) != (ADVERTISEMENT, 0) or IPv6Address(target).is_multicast:
        return None
    if checksum(IPv6Address(source), IPv6Address(destination), message) != 0:
        return None
    try:
        options = dict(_options(message[_MESSAGE.size :]))
    except ValueError:
        return None
    mac = options.get(_TARGET_OPTION, b"")[:6] or frame[6:12]
    texts = ethernet.mac_text(mac), str(IPv6Address(source)), str(IPv6Address(target))
    return Advertisement(*texts, bool(flags & _SOLICITED), bool(flags & _OVERRIDE))


def checksum(source: IPv6Address, destination: IPv6Address, message: bytes) -> int:
    """Return the ICMPv6 checksum: of a message with 0 in its place what belongs there, of a whole one 0."""
    data = _PSEUDO_HEADER.pack(source.packed, destination.packed, len(message), ICMPV6) + message
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content.  Raises: ValueError for one of length 0 or beyond the end (RFC 4861 section 4.6)."""
    while data:
        length = data[1] * _OPTION_UNIT_BYTES if len(data) > 1 else 0
        if not 0 < length <= len(data):
            raise ValueError(f"an option of {length} bytes where {len(data)} are left")
        yield data[0], data[2:length]
        data = data[length:]


def _option(kind: int, mac: str) -> bytes:
    return bytes([kind, 1]) + ethernet.mac_bytes(mac)


def _frame(mac: str, source: IPv6Address, group: IPv6Address, message: bytes) -> bytes:
    summed = message[:2] + checksum(source, group, message).to_bytes(2) + message[4:]
    header = _IPV6.pack(6 << 28, len(summed), ICMPV6, _HOP_LIMIT, source.packed, group.packed)
    return ethernet.encode(ethernet.multicast_mac(group), mac, ethernet.TYPE_IPV6, header + summed)
