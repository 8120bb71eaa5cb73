"""Frames of Linux 6.18, captured with tcpdump between two namespaces ("icmp6 sum ok"); tcpdump's reading beside."""

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.proto import ndp
from equipoise.proto.ndp import Advertisement

ONE, TWO = "02:00:00:00:00:01", "02:00:00:00:00:02"

# 2001:db8::1 > ff02::1:ff00:2: neighbor solicitation, who has 2001:db8::2
SOLICITATION = bytes.fromhex(
    "3333ff000002 020000000001 86dd"  # to the group's hardware address, from one, IPv6
    "60000000 0020 3a ff"  # version 6; 32 bytes of ICMPv6; hop limit 255
    "20010db8000000000000000000000001 ff0200000000000000000001ff000002"  # source, destination
    "87 00 1c27 00000000"  # solicitation, code 0, checksum, reserved
    "20010db8000000000000000000000002"  # target
    "01 01 020000000001"  # source link-address option
)
# 2001:db8::2 > 2001:db8::1: neighbor advertisement, tgt is 2001:db8::2, Flags [solicited, override]
ANSWER = bytes.fromhex(
    "020000000001 020000000002 86dd 60000000 0020 3a ff"
    "20010db8000000000000000000000002 20010db8000000000000000000000001"
    "88 00 8a71 60000000"  # advertisement; solicited and override
    "20010db8000000000000000000000002 02 01 020000000002"  # target, and its hardware address
)
# 2001:db8::1 > ff02::1: neighbor advertisement, tgt is 2001:db8::1, Flags [override]
UNASKED = bytes.fromhex(
    "333300000001 020000000001 86dd 60000000 0020 3a ff"
    "20010db8000000000000000000000001 ff020000000000000000000000000001"
    "88 00 f92a 20000000 20010db8000000000000000000000001 02 01 020000000001"
)
# :: > ff02::1:ff00:1: neighbor solicitation, who has 2001:db8::1; Linux adds a nonce (option 14, RFC 7527), we do not
PROBE = bytes.fromhex(
    "3333ff000001 020000000002 86dd 60000000 0020 3a ff"
    "00000000000000000000000000000000 ff0200000000000000000001ff000001"
    "87 00 a0e4 00000000 20010db8000000000000000000000001 0e 01 808f8b8591ea"
)


def with_sum(frame: bytes) -> bytes:
    """Return the frame with the checksum that it ought to have."""
    source, destination = IPv6Address(frame[22:38]), IPv6Address(frame[38:54])
    blank = frame[54:56] + bytes(2) + frame[58:]
    return frame[:56] + ndp.checksum(source, destination, blank).to_bytes(2) + frame[58:]


def test_we_say_what_linux_says() -> None:
    assert ndp.solicitation(ONE, "2001:db8::1", "2001:db8::2") == SOLICITATION
    assert ndp.advertisement(ONE, "2001:db8::1") == UNASKED


def test_a_probe_is_that_of_linux_without_its_option() -> None:
    shorter = PROBE[:18] + (24).to_bytes(2) + PROBE[20:78]
    assert ndp.solicitation(TWO, "::", "2001:db8::1") == with_sum(shorter)


def test_what_others_say_is_read() -> None:
    assert ndp.parse(ANSWER) == Advertisement(TWO, "2001:db8::2", "2001:db8::2", is_solicited=True, overrides=True)
    assert ndp.parse(UNASKED) == Advertisement(ONE, "2001:db8::1", "2001:db8::1", is_solicited=False, overrides=True)


def test_questions_are_no_answers() -> None:
    assert (ndp.parse(SOLICITATION), ndp.parse(PROBE)) == (None, None)


@pytest.mark.parametrize("frame", [SOLICITATION, ANSWER, UNASKED, PROBE], ids=["asked", "answer", "unasked", "probe"])
def test_the_checksum_is_that_of_linux(frame: bytes) -> None:
    assert ndp.checksum(IPv6Address(frame[22:38]), IPv6Address(frame[38:54]), frame[54:]) == 0
    assert with_sum(frame) == frame


def test_a_message_of_odd_length_has_a_checksum() -> None:
    one, two = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
    assert ndp.checksum(one, two, b"\x80\0\0\0\0") != ndp.checksum(one, two, b"\x80\0\0\0\1")


def test_without_an_option_the_frame_says_who_it_is() -> None:
    bare = with_sum(ANSWER[:18] + (24).to_bytes(2) + ANSWER[20:78])
    assert ndp.parse(bare) == ndp.parse(ANSWER)


def test_padding_is_no_part_of_the_message() -> None:
    assert ndp.parse(ANSWER + bytes(7)) == ndp.parse(ANSWER)


@pytest.mark.parametrize(
    ("at", "value"),
    [(12, b"\x08\0"), (18, b"\0\x21"), (20, b"\6"), (21, b"\xfe"), (54, b"\x81"), (55, b"\1"), (62, b"\xff")],
    ids=["not IPv6", "longer than it is", "tcp", "from beyond a router", "echo reply", "code 1", "multicast target"],
)
def test_what_must_be_ignored_is_ignored(at: int, value: bytes) -> None:
    """RFC 4861 section 7.1.2, with a checksum that is right."""
    assert ndp.parse(with_sum(ANSWER[:at] + value + ANSWER[at + len(value) :])) is None


def test_a_wrong_checksum_is_ignored() -> None:
    assert ndp.parse(ANSWER[:56] + b"\0\0" + ANSWER[58:]) is None


@pytest.mark.parametrize("length", [0, 2, 255])
def test_options_that_do_not_fit_are_ignored(length: int) -> None:
    assert ndp.parse(with_sum(ANSWER[:79] + bytes([length]) + ANSWER[80:])) is None


@given(st.binary(max_size=120) | st.integers(0, len(ANSWER) - 1).map(lambda length: ANSWER[:length]))
def test_nothing_that_comes_does_harm(frame: bytes) -> None:
    assert ndp.parse(frame) is None


addresses = st.ip_addresses(v=6).map(str)


@given(st.binary(min_size=6, max_size=6).map(lambda packed: packed.hex(":")), addresses)
def test_an_advertisement_is_read_as_it_was_meant(mac: str, address: str) -> None:
    read = ndp.parse(ndp.advertisement(mac, address))
    if IPv6Address(address).is_multicast:
        assert read is None
    else:
        assert read == Advertisement(mac, address, address, is_solicited=False, overrides=True)
