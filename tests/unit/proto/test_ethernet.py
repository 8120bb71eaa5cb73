from ipaddress import IPv6Address

import pytest

from equipoise.proto import ethernet

FRAME = bytes.fromhex("ffffffffffff 020000000001 0806") + b"what it carries"


def test_a_frame_goes_out_as_it_comes_in() -> None:
    assert ethernet.encode(ethernet.BROADCAST, "02:00:00:00:00:01", ethernet.TYPE_ARP, b"what it carries") == FRAME
    assert ethernet.payload_of(FRAME, ethernet.TYPE_ARP) == b"what it carries"


def test_other_types_and_short_frames_carry_nothing() -> None:
    assert ethernet.payload_of(FRAME, ethernet.TYPE_IPV6) is None
    assert [ethernet.payload_of(FRAME[:length], ethernet.TYPE_ARP) for length in range(14)] == [None] * 14


def test_a_multicast_group_has_its_hardware_address() -> None:
    assert ethernet.multicast_mac(IPv6Address("ff02::1:ff28:9c5a")) == "33:33:ff:28:9c:5a"  # RFC 2464 section 7


@pytest.mark.parametrize("text", ["", "02:00:00:00:00", "02:00:00:00:00:00:01", "not one"])
def test_what_is_no_hardware_address_is_a_bug(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        ethernet.mac_bytes(text)
