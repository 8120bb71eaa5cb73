"""Wherever the network cuts, the header is the same, and no byte of what follows is ever asked for."""

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from equipoise.base.errors import PeerError
from equipoise.proto.proxy_protocol import Address, Header, HeaderReader, encode

ports = st.integers(0, 0xFFFF)
versions = st.sampled_from(["v1", "v2"])


def is_plain(host: IPv6Address) -> bool:
    return host.ipv4_mapped is None  # those are read as IPv4


hosts = st.ip_addresses(v=4) | st.ip_addresses(v=6).filter(lambda host: isinstance(host, IPv4Address) or is_plain(host))
addresses = st.tuples(hosts.map(str), ports)


def read(stream: bytes, cuts: st.DataObject) -> tuple[Header, int]:
    """Return the header and how many bytes were taken: each read gives as much as the network happens to have."""
    reader, at = HeaderReader(), 0
    while True:
        wanted = reader.wanted()
        size = cuts.draw(st.integers(1, wanted))
        header = reader.feed(stream[at : at + size])
        at += size
        if header is not None:
            return header, at


@given(versions, addresses, addresses, st.binary(max_size=300), st.data())
def test_what_is_written_is_read_and_not_a_byte_more(
    version: str, source: Address, destination: Address, following: bytes, cuts: st.DataObject
) -> None:
    wire = encode(version, source, destination)
    assert read(wire + following, cuts) == (Header(version, source, destination), len(wire))


@given(versions, st.binary(max_size=300), st.data())
def test_a_check_is_nobody(version: str, following: bytes, cuts: st.DataObject) -> None:
    wire = encode(version, None, None)
    assert read(wire + following, cuts) == (Header(version, None, None), len(wire))


@given(versions, addresses, addresses, st.binary(max_size=600), st.data())
def test_what_is_added_to_a_binary_header_is_skipped(
    version: str, source: Address, destination: Address, added: bytes, cuts: st.DataObject
) -> None:
    wire = bytearray(encode("v2", source, destination))
    wire[14:16] = (len(wire) - 16 + len(added)).to_bytes(2)
    assert read(bytes(wire) + added + b"rest", cuts) == (Header("v2", source, destination), len(wire) + len(added))


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b"PROXY " + tail), st.data())
def test_anything_else_ends_in_a_complaint_or_waits_within_the_limits(stream: bytes, cuts: st.DataObject) -> None:
    reader, at = HeaderReader(), 0
    with suppress(PeerError):
        while at < len(stream) and (wanted := reader.wanted()):
            assert at + wanted <= 16 + 4096
            size = cuts.draw(st.integers(1, wanted))
            reader.feed(stream[at : at + size])
            at += size
