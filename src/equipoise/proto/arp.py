"""ARP for IPv4 over Ethernet: ask who has an address, announce one's own, read what others say.

Leaves out: other hardware and other protocols, and RARP.
Source: RFC 826, "Packet format"; RFC 5227 sections 1.1 (probe), 2.3 and 3 (announcement); RFC 5944 section 4.6.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from equipoise.proto import ethernet

UNSPECIFIED = "0.0.0.0"
_PACKET = struct.Struct(">HHBBH6s4s6s4s")  # hardware, protocol, their lengths, operation; sender's two, target's two
_ETHERNET, _IPV4 = 1, ethernet.TYPE_IPV4
_REQUEST, _REPLY = 1, 2


@dataclass(frozen=True, slots=True)
class Arp:
    """What a machine said of itself, and whom it asked for or told.

    Attributes:
        sender_mac: In lower case with colons.
        sender_ip: 0.0.0.0 where it only probes, and holds no address yet.
        is_request: Else it is a reply.
    """

    sender_mac: str
    sender_ip: str
    target_ip: str
    is_request: bool


def request(mac: str, address: str, target: str) -> bytes:
    """Return the frame in which a machine that has `address` asks everybody who has `target`."""
    return _frame(_REQUEST, mac, address, ethernet.NO_MAC, target)


def probe(mac: str, target: str) -> bytes:
    """Return a request from nobody (RFC 5227 section 1.1): no cache learns anything of it."""
    return request(mac, UNSPECIFIED, target)


def announcements(mac: str, address: str) -> tuple[bytes, bytes]:
    """Return the two forms in which `address` is said to be here: a request for itself, and a reply to all.

    RFC 5227 section 3 wants the request; some routers and firewalls learn from the reply alone, so both are sent.  In
    the reply the target's hardware address is the one to learn (RFC 5944 section 4.6).
    """
    return request(mac, address, address), _frame(_REPLY, mac, address, mac, address)


def parse(frame: bytes) -> Arp | None:
    """Return what a frame says; None where it is not ARP for IPv4 over Ethernet, which a segment may carry as well."""
    payload = ethernet.payload_of(frame, ethernet.TYPE_ARP)
    if payload is None or len(payload) < _PACKET.size:
        return None
    hardware, protocol, mac_length, ip_length, operation, mac, sender, _, target = _PACKET.unpack_from(payload)
    if (hardware, protocol, mac_length, ip_length) != (_ETHERNET, _IPV4, 6, 4) or operation not in (_REQUEST, _REPLY):
        return None
    return Arp(ethernet.mac_text(mac), str(IPv4Address(sender)), str(IPv4Address(target)), operation == _REQUEST)


def _frame(operation: int, mac: str, address: str, target_mac: str, target: str) -> bytes:
    sender = (ethernet.mac_bytes(mac), IPv4Address(address).packed)
    asked = (ethernet.mac_bytes(target_mac), IPv4Address(target).packed)
    packet = _PACKET.pack(_ETHERNET, _IPV4, 6, 4, operation, *sender, *asked)
    return ethernet.encode(ethernet.BROADCAST, mac, ethernet.TYPE_ARP, packet)
