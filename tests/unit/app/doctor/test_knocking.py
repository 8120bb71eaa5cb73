"""Packets made by hand, held against bytes of known good ones; that nodes answer them is in test_gather_layer4.py."""

from dataclasses import replace

import pytest

from equipoise.app.doctor.knocking import Segment
from equipoise.plan.model import Endpoint

SYN4 = Segment(Endpoint("10.0.0.1", 50000), Endpoint("10.0.0.100", 104), 0x02, sequence=0x01020304)
SYN6 = Segment(Endpoint("fd00::1", 50000), Endpoint("fd00::100", 104), 0x02, sequence=0x01020304)


def ones_sum(data: bytes) -> int:
    """Return the sum of RFC 1071, which is 0xFFFF over data with its checksum in it."""
    total = sum(int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return total


def test_ipv4_to_the_byte() -> None:
    packet = SYN4.packet()
    assert packet[:10] == bytes.fromhex("45 00 0028 0000 4000 40 06")  # 40 bytes, don't fragment, TTL 64, TCP
    assert packet[12:20] == bytes([10, 0, 0, 1, 10, 0, 0, 100])
    assert packet[20:34] == bytes.fromhex("c350 0068 01020304 00000000 50 02")  # ports, numbers, 20 bytes, SYN
    assert ones_sum(packet[:20]) == 0xFFFF
    assert ones_sum(packet[12:20] + bytes([0, 6, 0, 20]) + packet[20:]) == 0xFFFF


def test_ipv6_to_the_byte() -> None:
    packet = SYN6.packet()
    assert packet[:8] == bytes.fromhex("60000000 0014 06 40")  # 20 bytes of TCP, hop limit 64
    assert packet[40:54] == bytes.fromhex("c350 0068 01020304 00000000 50 02")
    assert ones_sum(packet[8:40] + bytes([0, 0, 0, 20, 0, 0, 0, 6]) + packet[40:]) == 0xFFFF


@pytest.mark.parametrize("segment", [SYN4, SYN6, replace(SYN4, flags=0x12, acknowledged=7)])
def test_what_is_written_is_read(segment: Segment) -> None:
    assert Segment.read(segment.packet() + b"\0\0\0\0\0\0") == segment  # Ethernet pads short frames


@pytest.mark.parametrize("packet", [SYN4.packet(), SYN6.packet()])
def test_what_is_cut_is_nothing(packet: bytes) -> None:
    assert [Segment.read(packet[:length]) for length in range(len(packet))] == [None] * len(packet)


def test_what_is_no_tcp_is_nothing() -> None:
    packet = bytearray(SYN4.packet())
    packet[9] = 17
    assert Segment.read(bytes(packet)) is None
    packet[0] = 0x41  # a header of 4 bytes
    assert Segment.read(bytes(packet)) is None
