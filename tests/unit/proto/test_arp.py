"""Frames of `arping` (iputils) and of Linux 6.18, captured with tcpdump between two namespaces; its reading beside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.proto import arp
from equipoise.proto.arp import Arp

ONE, TWO = "02:00:00:00:00:01", "02:00:00:00:00:02"

# arping -D: Request who-has 192.0.2.2 (ff:ff:ff:ff:ff:ff) tell 0.0.0.0
PROBE = bytes.fromhex(
    "ffffffffffff 020000000001 0806"  # to all, from one, ARP
    "0001 0800 06 04 0001"  # Ethernet, IPv4, lengths of their addresses, a request
    "020000000001 00000000"  # from one, which has no address yet
    "ffffffffffff c0000202"  # for whoever has 192.0.2.2; its hardware address means nothing here
)
# Linux: Reply 192.0.2.2 is-at 02:00:00:00:00:02
REPLY = bytes.fromhex("020000000001 020000000002 0806 0001 0800 06 04 0002 020000000002 c0000202 020000000001 00000000")
# arping -U: Request who-has 192.0.2.1 (ff:ff:ff:ff:ff:ff) tell 192.0.2.1
ANNOUNCED = bytes.fromhex(
    "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 c0000201 ffffffffffff c0000201"
)
# arping -A: Reply 192.0.2.1 is-at 02:00:00:00:00:01
ANNOUNCED_BY_REPLY = bytes.fromhex(
    "ffffffffffff 020000000001 0806 0001 0800 06 04 0002 020000000001 c0000201 020000000001 c0000201"
)


def without_target(frame: bytes) -> bytes:
    """RFC 5227 has zeros there in a request, arping ones: whoever reads it ignores them."""
    return frame[:32] + bytes(6) + frame[38:]


def test_what_others_say_is_read() -> None:
    assert arp.parse(PROBE) == Arp(ONE, "0.0.0.0", "192.0.2.2", is_request=True)
    assert arp.parse(REPLY) == Arp(TWO, "192.0.2.2", "0.0.0.0", is_request=False)
    assert arp.parse(ANNOUNCED) == Arp(ONE, "192.0.2.1", "192.0.2.1", is_request=True)
    assert arp.parse(ANNOUNCED_BY_REPLY) == Arp(ONE, "192.0.2.1", "192.0.2.1", is_request=False)


def test_we_say_what_arping_says() -> None:
    assert arp.probe(ONE, "192.0.2.2") == without_target(PROBE)
    assert arp.announcements(ONE, "192.0.2.1") == (without_target(ANNOUNCED), ANNOUNCED_BY_REPLY)


def test_a_frame_may_be_padded() -> None:
    """Network cards make every frame 60 bytes long."""
    assert arp.parse(REPLY + bytes(18)) == arp.parse(REPLY)


@pytest.mark.parametrize(
    ("at", "value"),
    [(12, b"\x86\xdd"), (14, b"\0\6"), (16, b"\x86\xdd"), (18, b"\7"), (19, b"\x10"), (20, b"\0\3"), (20, b"\0\0")],
    ids=["of another type", "other hardware", "other protocol", "long mac", "long address", "rarp", "no operation"],
)
def test_what_is_not_arp_for_ipv4_is_passed_over(at: int, value: bytes) -> None:
    assert arp.parse(REPLY[:at] + value + REPLY[at + len(value) :]) is None


@given(st.binary(max_size=80) | st.integers(0, len(REPLY) - 1).map(lambda length: REPLY[:length]))
def test_nothing_that_comes_does_harm(frame: bytes) -> None:
    read = arp.parse(frame)
    assert read is None or len(frame) >= len(REPLY)


addresses = st.ip_addresses(v=4).map(str)
macs = st.binary(min_size=6, max_size=6).map(lambda packed: packed.hex(":"))


@given(macs, addresses, addresses)
def test_a_request_is_read_as_it_was_meant(mac: str, own: str, target: str) -> None:
    assert arp.parse(arp.request(mac, own, target)) == Arp(mac, own, target, is_request=True)
