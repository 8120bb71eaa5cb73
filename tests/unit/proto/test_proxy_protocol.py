import pytest

from equipoise.base.errors import PeerError
from equipoise.proto.proxy_protocol import Header, HeaderReader, encode

SOURCE, DESTINATION = ("192.168.0.1", 56324), ("192.168.0.11", 443)
SOURCE6, DESTINATION6 = ("2001:db8::1", 56324), ("2001:db8::2", 104)
V2 = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"  # section 2.2: the signature, QUIT between line ends

# Section 2.1, the example line.
LINE = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
BINARY = b"".join(
    [
        V2,
        b"\x21",  # version 2, command PROXY
        b"\x11",  # AF_INET, STREAM
        b"\x00\x0c",  # 12 bytes follow
        b"\xc0\xa8\x00\x01",  # source 192.168.0.1
        b"\xc0\xa8\x00\x0b",  # destination 192.168.0.11
        b"\xdc\x04",  # source port 56324
        b"\x01\xbb",  # destination port 443
    ]
)
BINARY6 = b"".join(
    [
        V2,
        b"\x21\x21\x00\x24",  # version 2, PROXY; AF_INET6, STREAM; 36 bytes
        bytes.fromhex("20010db8000000000000000000000001"),
        bytes.fromhex("20010db8000000000000000000000002"),
        b"\xdc\x04\x00\x68",
    ]
)
A_NOOP = b"\x04\x00\x05xxxxx"  # section 2.2.4: a TLV that pads


def read(stream: bytes) -> tuple[Header | None, bytes]:
    """Return the header and what was left unread, reading as a driver does."""
    reader, at = HeaderReader(), 0
    while at < len(stream):
        wanted = reader.wanted()
        assert wanted > 0
        header = reader.feed(stream[at : at + wanted])
        at += wanted
        if header is not None:
            assert reader.wanted() == 0
            return header, stream[at:]
    return None, b""


def complaint(stream: bytes) -> str:
    with pytest.raises(PeerError) as error:
        read(stream)
    return str(error.value)


def test_the_headers_of_the_specification_are_written() -> None:
    assert encode("v1", SOURCE, DESTINATION) == LINE
    assert encode("v2", SOURCE, DESTINATION) == BINARY
    assert encode("v2", SOURCE6, DESTINATION6) == BINARY6
    assert encode("v1", SOURCE6, DESTINATION6) == b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 104\r\n"


def test_who_calls_for_himself_says_so() -> None:
    assert encode("v1", None, None) == b"PROXY UNKNOWN\r\n"
    assert encode("v2", None, None) == V2 + b"\x20\x00\x00\x00"  # LOCAL, and no address
    with pytest.raises(ValueError, match="it is v1 or v2"):
        encode("none", SOURCE, DESTINATION)


def test_a_pair_of_two_families_is_written_as_ipv6() -> None:
    mixed = encode("v2", SOURCE, DESTINATION6)
    assert mixed[13] == 0x21
    assert mixed[16:32] == bytes.fromhex("00000000000000000000ffffc0a80001")
    assert read(mixed)[0] == Header("v2", SOURCE, DESTINATION6)
    assert read(encode("v1", SOURCE, DESTINATION6))[0] == Header("v1", SOURCE, DESTINATION6)


def test_mapped_addresses_are_ipv4_and_zones_are_left_out() -> None:
    assert encode("v1", ("::ffff:192.168.0.1", 56324), ("::ffff:192.168.0.11", 443)) == LINE
    assert encode("v1", ("fe80::1%eth0", 1), ("fe80::2%eth0", 2)) == b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n"
    assert read(b"PROXY TCP6 ::ffff:192.168.0.1 ::ffff:c0a8:b 56324 443\r\n")[0] == Header("v1", SOURCE, DESTINATION)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (LINE, Header("v1", SOURCE, DESTINATION)),
        (BINARY, Header("v2", SOURCE, DESTINATION)),
        (BINARY6, Header("v2", SOURCE6, DESTINATION6)),
        (b"PROXY UNKNOWN\r\n", Header("v1", None, None)),
        (b"PROXY UNKNOWN ffff::1 whatever \r stands here\r\n", Header("v1", None, None)),
        (V2 + b"\x20\x00\x00\x00", Header("v2", None, None)),
        (V2 + b"\x20\x11\x00\x0c" + BINARY[16:], Header("v2", None, None)),  # LOCAL: addresses are ignored
        (V2 + b"\x20\xff\x00\x00", Header("v2", None, None)),  # and so is the family
        (V2 + b"\x21\x00\x00\x00", Header("v2", None, None)),  # UNSPEC
        (V2 + b"\x21\x00\x00\x08" + A_NOOP, Header("v2", None, None)),
        (V2 + b"\x21\x11\x00\x14" + BINARY[16:] + A_NOOP, Header("v2", SOURCE, DESTINATION)),  # TLVs are skipped
        (V2 + b"\x21\x12\x00\x0c" + BINARY[16:], Header("v2", None, None)),  # UDP: not this connection
        (V2 + b"\x21\x31\x00\xd8" + bytes(216), Header("v2", None, None)),  # Unix sockets
        (V2 + b"\x20\x00\x10\x00" + bytes(4096), Header("v2", None, None)),  # the longest
    ],
)
def test_headers_are_read_and_nothing_behind_them(header: bytes, expected: Header) -> None:
    for following in (b"", b"\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"\r\n" * 200):
        assert read(header + following) == (expected, following)


def test_the_shortest_and_the_longest_line() -> None:
    longest = b"PROXY UNKNOWN" + b" ffff:f:ffff" * 7 + b"\r\n"
    longest = longest[:13] + b"x" * (107 - len(longest)) + longest[13:]
    assert len(longest) == 107
    assert "form" in complaint(longest)  # UNKNOWNx
    longest = longest.replace(b"x", b" ")
    assert read(longest + b"rest") == (Header("v1", None, None), b"rest")
    assert "without an end within 107 bytes" in complaint(longest[:-2] + b"f\r\n")
    assert read(b"PROXY TCP6 :: :: 0 0\r\nx") == (Header("v1", ("::", 0), ("::", 0)), b"x")


@pytest.mark.parametrize(
    ("stream", "what"),
    [
        (b"\x01\x00\x00\x00\x00\xd0\x00\x01" + bytes(200), "but a DICOM A-ASSOCIATE-RQ"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "but a TLS ClientHello"),
        (b"\x0bMSH|^~\\&|CT|\r", "but an HL7 message"),
        (b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", "but an HTTP request"),
        (b"POST / HTTP/1.1\r\n\r\n", "but an HTTP request"),
        (b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e", "but bytes 00 01 02 03 04 05 06 07"),
        (V2[:11] + b"\x0b" + bytes(8), "but bytes 0d 0a 0d 0a"),
        (b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "but bytes"),
    ],
)
def test_what_came_in_place_of_a_header_is_said(stream: bytes, what: str) -> None:
    assert what in complaint(stream)


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 65536\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 056324 443\r\n",
        b"PROXY TCP4 192.168.00.1 192.168.0.11 56324 443\r\n",
        b"PROXY TCP4 192.168.0.1  192.168.0.11 56324 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 \r\n",
        b"PROXY TCP4 192.168.0.256 192.168.0.11 56324 443\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n",
        b"PROXY TCP6 192.168.0.1 192.168.0.11 56324 443\r\n",
        b"PROXY TCP6 fe80::1%1 fe80::2 56324 443\r\n",
        b"PROXY TCP6 2001:db8::1::2 fe80::2 56324 443\r\n",
        b"PROXY TCP5 192.168.0.1 192.168.0.11 56324 443\r\n",
        b"PROXY UDP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 -1 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 \xb2 443\r\n",
        b"PROXY  UNKNOWN\r\n",
        b"PROXY \r\n",
    ],
)
def test_a_line_that_is_not_exactly_right_is_refused_and_shown(line: bytes) -> None:
    said = complaint(line)
    assert f"is not of the form 'PROXY {'TCP6' if b'TCP6' in line else 'TCP4'} SOURCE" in said
    assert said.isascii()


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (V2 + b"\x11\x11\x00\x0c" + BINARY[16:], "version and command 0x11"),  # version 1
        (V2 + b"\x31\x11\x00\x0c" + BINARY[16:], "version and command 0x31"),  # version 3
        (V2 + b"\x22\x11\x00\x0c" + BINARY[16:], "version and command 0x22"),  # a command that is not assigned
        (V2 + b"\x21\x41\x00\x0c" + BINARY[16:], "family and transport 0x41"),
        (V2 + b"\x21\x13\x00\x0c" + BINARY[16:], "family and transport 0x13"),
        (V2 + b"\x21\x11\x00\x0b" + BINARY[16:], "11 bytes of addresses, this family has 12"),
        (V2 + b"\x21\x21\x00\x0c" + BINARY[16:], "12 bytes of addresses, this family has 36"),
        (V2 + b"\x21\x31\x00\x00", "0 bytes of addresses, this family has 216"),
        (V2 + b"\x21\x11\x10\x01", "header of 4097 bytes, at most 4096 accepted"),  # before they have come
        (V2 + b"\x20\x00\xff\xff", "header of 65535 bytes"),
    ],
)
def test_a_binary_header_that_is_wrong_is_refused(header: bytes, what: str) -> None:
    assert what in complaint(header)


def test_one_byte_is_enough_to_see_that_it_is_no_header() -> None:
    assert "but a TLS ClientHello" in complaint(b"\x16")
    assert "but a DICOM A-ASSOCIATE-RQ" in complaint(b"\x01")


def test_more_than_was_wanted_is_the_drivers_bug() -> None:
    reader = HeaderReader()
    with pytest.raises(ValueError, match="15 were wanted"):
        reader.feed(LINE)
