"""Ethernet II: the fourteen bytes in front of IPv4, ARP and IPv6, and how hardware addresses are written.

Leaves out: VLAN tags, which the kernel takes off before a program sees a frame, and IEEE 802.3 lengths.
Source: IEEE 802.3 clause 3.2; RFC 894 (the type field); RFC 2464 section 7 (IPv6 multicast).
"""

import struct
from ipaddress import IPv6Address

HEADER_BYTES = 14
BROADCAST = "ff:ff:ff:ff:ff:ff"
NO_MAC = "00:00:00:00:00:00"
TYPE_IPV4, TYPE_ARP, TYPE_IPV6 = 0x0800, 0x0806, 0x86DD
_HEADER = struct.Struct(">6s6sH")  # destination, source, type
_MAC_BYTES = 6


def mac_text(mac: bytes) -> str:
    """Return a hardware address in lower case with colons."""
    return mac.hex(":")


def mac_bytes(mac: str) -> bytes:
    """Return the six bytes of a hardware address.  Raises: ValueError, a bug: none comes from a person."""
    packed = bytes.fromhex(mac.replace(":", ""))
    if len(packed) != _MAC_BYTES:
        raise ValueError(f"{mac!r} is not a hardware address of 6 bytes")
    return packed


def multicast_mac(group: IPv6Address) -> str:
    """Return where frames for an IPv6 multicast group go."""
    return mac_text(b"\x33\x33" + group.packed[-4:])


def encode(destination: str, source: str, kind: int, payload: bytes) -> bytes:
    """Return a frame; what it lacks to the shortest length of 60 bytes the network card adds."""
    return _HEADER.pack(mac_bytes(destination), mac_bytes(source), kind) + payload


def payload_of(frame: bytes, kind: int) -> bytes | None:
    """Return what a frame of this type carries; None where it is too short or of another type."""
    if len(frame) < HEADER_BYTES or _HEADER.unpack_from(frame)[2] != kind:
        return None
    return frame[HEADER_BYTES:]
