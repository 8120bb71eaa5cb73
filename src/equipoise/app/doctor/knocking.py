"""Find out whether a node takes packets for a virtual address: a TCP SYN for that address, sent to that very node.

An ordinary connection would not do: the address is on this machine too.  So the packet is made by hand, from an address
of this machine and to the node's hardware address, as direct routing would pass it on.  What begins is reset at once.
Leaves out which node has which hardware address (`gather_layer4.py`).

Source: RFC 9293 section 3.1 (TCP header), RFC 791 section 3.1, RFC 8200 sections 3 and 8.1, RFC 1071.
"""

import secrets
import socket
import struct
from dataclasses import dataclass, replace
from ipaddress import ip_address

from equipoise.app.doctor.facts_layer4 import Knock
from equipoise.base.clock import Clock
from equipoise.engines.packet_sockets import EQUAL, LOAD_WORD, MOST_FRAME_BYTES, RETURN, Line, packet_socket
from equipoise.plan.model import Endpoint
from equipoise.proto import ethernet

_TCP = 6
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_HEADER_BYTES = 20  # of TCP and of IPv4, without options
_IPV6_BYTES = 40
_AGAIN_S = 0.3  # one lost packet must not look like a node that is silent
_LOWEST_PORT, _PORTS = 49152, 16384  # RFC 6335 section 6: dynamic ports


@dataclass(frozen=True, slots=True)
class Door:
    """Where a node is found.

    Attributes:
        interface: Of this machine, on the node's segment.
        mac: The node's hardware address.
        own_address: An address of this machine, of the same family, for the node to answer to.
    """

    interface: str
    mac: str
    own_address: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment without data, with the addresses of its packet."""

    source: Endpoint
    target: Endpoint
    flags: int
    sequence: int = 0
    acknowledged: int = 0

    def packet(self) -> bytes:
        """Return the IP packet."""
        source, target = ip_address(self.source.host).packed, ip_address(self.target.host).packed
        tcp = self._tcp(0)
        pseudo = source + target + struct.pack(">II", len(tcp), _TCP)  # the sum is that of IPv4's shorter form
        tcp = self._tcp(_checksum(pseudo + tcp))
        if len(source) == 16:
            return struct.pack(">IHBB", 6 << 28, len(tcp), _TCP, 64) + source + target + tcp
        length = _HEADER_BYTES + len(tcp)
        header = struct.pack(">BBHHHBBH", 0x45, 0, length, 0, 0x4000, 64, _TCP, 0) + source + target
        return header[:10] + struct.pack(">H", _checksum(header)) + header[12:] + tcp

    def _tcp(self, checksum: int) -> bytes:
        return struct.pack(
            ">HHIIBBHHH",
            self.source.port,
            self.target.port,
            self.sequence,
            self.acknowledged,
            5 << 4,
            self.flags,
            0xFFFF,
            checksum,
            0,
        )

    @classmethod
    def read(cls, packet: bytes) -> "Segment | None":
        """Return what an IP packet says; None where it is no whole TCP segment, or has extension headers."""
        version = packet[0] >> 4 if packet else 0
        start = (packet[0] & 0x0F) * 4 if version == 4 else _IPV6_BYTES
        if version not in (4, 6) or len(packet) < start + _HEADER_BYTES or start < _HEADER_BYTES:
            return None
        if packet[9 if version == 4 else 6] != _TCP:
            return None
        source, target = (packet[12:16], packet[16:20]) if version == 4 else (packet[8:24], packet[24:40])
        from_port, to_port, sequence, acknowledged, _, flags = struct.unpack_from(">HHIIBB", packet, start)
        return cls(
            Endpoint(str(ip_address(source)), from_port),
            Endpoint(str(ip_address(target)), to_port),
            flags,
            sequence,
            acknowledged,
        )


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def knock(door: Door, target: Endpoint, timeout_s: float, clock: Clock) -> Knock:
    """Return what a node does with a connection to a virtual address.  Blocks.

    Args:
        door: The node.
        target: The virtual address and port; not the address that the packet is sent from.
        timeout_s: After that the node counts as silent.
        clock: Time.

    Raises: OSError where this machine cannot send such packets.
    """
    kind = ethernet.TYPE_IPV6 if ":" in target.host else ethernet.TYPE_IPV4
    source = Endpoint(door.own_address, _LOWEST_PORT + secrets.randbelow(_PORTS))
    syn = Segment(source, target, _SYN, sequence=secrets.randbits(32))
    with packet_socket(door.interface, kind, _only_from(target.host)) as line:
        hardware = ethernet.encode(door.mac, ethernet.mac_text(line.getsockname()[4]), kind, b"")
        answer = _answer(line, hardware, syn, timeout_s, clock)
        if answer is None:
            return "silent"
        if answer.flags & _RST:
            return "refuses"
        reset = replace(syn, flags=_RST, sequence=answer.acknowledged)
        line.send(hardware + reset.packet())
        return "listens"


def _only_from(host: str) -> tuple[Line, ...]:
    """Return the filter that leaves out what does not come from this address."""
    source = ip_address(host).packed
    at = ethernet.HEADER_BYTES + (12 if len(source) == 4 else 20)  # in IPv6 the last four bytes of sixteen, from 8 on
    number = int.from_bytes(source[-4:])
    return ((LOAD_WORD, 0, 0, at), (EQUAL, 0, 1, number), (RETURN, 0, 0, MOST_FRAME_BYTES), (RETURN, 0, 0, 0))


def _answer(line: socket.socket, hardware: bytes, syn: Segment, timeout_s: float, clock: Clock) -> Segment | None:
    """Return the node's SYN-ACK or RST; the question is asked again and again until the time is over."""
    ends_s = clock.monotonic() + timeout_s
    again_s = 0.0
    while (now_s := clock.monotonic()) < ends_s:
        if now_s >= again_s:
            line.send(hardware + syn.packet())
            again_s = now_s + _AGAIN_S
        line.settimeout(max(0.001, min(again_s, ends_s) - now_s))
        try:
            frame = line.recv(MOST_FRAME_BYTES)
        except TimeoutError:
            continue
        segment = Segment.read(frame[ethernet.HEADER_BYTES :])
        if segment is not None and _answers(segment, syn):
            return segment
    return None


def _answers(segment: Segment, syn: Segment) -> bool:
    ours = (segment.source, segment.target) == (syn.target, syn.source)
    return ours and bool(segment.flags & _ACK) and segment.acknowledged == (syn.sequence + 1) & 0xFFFFFFFF
