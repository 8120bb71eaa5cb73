"""The PROXY protocol: a header in front of a connection's bytes that says who the client is.  Versions 1 and 2.

Leaves out: TLVs, which are skipped unread, also the checksum; and the addresses of Unix sockets and datagrams, which
count as unknown.  Never detects by itself whether a header comes: the configuration says so.
Source: "The PROXY protocol, versions 1 & 2" (HAProxy's doc/proxy-protocol.txt), sections 2.1 (text) and 2.2 (binary).
"""

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

from equipoise.base.errors import PeerError

Address: TypeAlias = tuple[str, int]

_MAX_LINE_BYTES = 107  # section 2.1: the longest line, "UNKNOWN" with two whole IPv6 addresses
_SHORTEST_BYTES = len(b"PROXY UNKNOWN\r\n")  # of all headers of both versions: so many may be read blindly
_MAX_ADDED_BYTES = 4096  # addresses need 216 at most; with names, certificates and padding HAProxy stays below 1000
_TEXT = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = struct.Struct(">12sBBH")  # signature; version and command; family and transport; length of what follows
_V2 = 0x20
_LOCAL, _PROXY = 0, 1
_UNSPEC, _INET, _INET6, _UNIX = range(4)
_STREAM, _DGRAM = 1, 2
_ADDRESSES = {_INET: struct.Struct(">4s4sHH"), _INET6: struct.Struct(">16s16sHH"), _UNIX: struct.Struct(">108s108s")}
_TCP_FIELDS = 6  # PROXY, family, two addresses, two ports
_LINE = re.compile(rb"PROXY (?:UNKNOWN(?: .*)?|(TCP[46]) ([^ ]+) ([^ ]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4}))", re.DOTALL)


class NoHeaderError(PeerError):
    """What came is not the beginning of a header, so the sender most likely knows of none."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a header said.

    Attributes:
        version: `v1` or `v2`.
        source: The client, as the sender of the header saw it; None where it opened the connection for itself (a
            health check) or does not know.  An IPv4 address written as IPv6 is given as IPv4.
        destination: The address that the client called, likewise.
    """

    version: str
    source: Address | None
    destination: Address | None


def encode(version: str, source: Address | None, destination: Address | None) -> bytes:
    """Return the header to send: `version` is `v1` or `v2`; without addresses, as for a health check, it says so."""
    if version not in ("v1", "v2"):
        raise ValueError(f"PROXY protocol {version!r}: it is v1 or v2")
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n" if version == "v1" else _FIXED.pack(_SIGNATURE, _V2 | _LOCAL, 0, 0)
    first, second = _same_family(_plain(source[0]), _plain(destination[0]))
    if version == "v1":
        return f"PROXY TCP{first.version} {first} {second} {source[1]} {destination[1]}\r\n".encode("ascii")
    family = _INET if first.version == 4 else _INET6
    block = _ADDRESSES[family].pack(first.packed, second.packed, source[1], destination[1])
    return _FIXED.pack(_SIGNATURE, _V2 | _PROXY, family << 4 | _STREAM, len(block)) + block


class HeaderReader:
    """Take bytes with `feed`, never more than `wanted`; what follows the header then stays unread in the socket."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._header: Header | None = None

    def wanted(self) -> int:
        """Return how many bytes may be read next without reading past the header; 0 once it is whole."""
        if self._header is not None:
            return 0
        have = len(self._buffer)
        if have < _SHORTEST_BYTES:
            return _SHORTEST_BYTES - have
        if self._buffer.startswith(_TEXT):
            return min(_least_missing(self._buffer), _MAX_LINE_BYTES - have)
        if have < _FIXED.size:
            return _FIXED.size - have
        return _FIXED.size + self._added_bytes() - have

    def feed(self, data: bytes) -> Header | None:
        """Return the header, or None until it is whole.  Raises: PeerError; NoHeaderError where none came."""
        if len(data) > self.wanted():
            raise ValueError(f"{len(data)} bytes, {self.wanted()} were wanted: the rest belongs to what follows")
        self._buffer += data
        self._check_start()
        if self._buffer.startswith(_TEXT):
            self._header = self._read_line()
        elif len(self._buffer) >= _FIXED.size:
            self._header = self._read_binary()
        return self._header

    def _check_start(self) -> None:
        start = bytes(self._buffer)
        if not any(each.startswith(start[: len(each)]) for each in (_TEXT, _SIGNATURE)):
            raise NoHeaderError(f"no PROXY protocol header, but {_what_came(start)}")

    def _read_line(self) -> Header | None:
        if self._buffer.endswith(b"\r\n"):
            return _parse_line(bytes(self._buffer[:-2]))
        if len(self._buffer) >= _MAX_LINE_BYTES:
            raise PeerError(f"PROXY protocol v1 line without an end within {_MAX_LINE_BYTES} bytes")
        if b"\n" in self._buffer:
            raise _bad_line(bytes(self._buffer))
        return None

    def _read_binary(self) -> Header | None:
        _, command, kind, added = _FIXED.unpack_from(self._buffer)
        if command not in (_V2 | _LOCAL, _V2 | _PROXY):
            raise PeerError(f"PROXY protocol v2: version and command 0x{command:02X}, they are 0x20 or 0x21")
        if added > _MAX_ADDED_BYTES:  # before it is waited for
            raise PeerError(f"PROXY protocol v2 header of {added} bytes, at most {_MAX_ADDED_BYTES} accepted")
        family, transport = kind >> 4, kind & 0x0F
        if command == _V2 | _PROXY and (family > _UNIX or transport > _DGRAM):
            raise PeerError(f"PROXY protocol v2: family and transport 0x{kind:02X} are not in the specification")
        if len(self._buffer) < _FIXED.size + added:
            return None
        if command == _V2 | _LOCAL or _UNSPEC in (family, transport):
            return Header("v2", None, None)
        return _parse_block(family, transport, bytes(self._buffer[_FIXED.size :]))

    def _added_bytes(self) -> int:
        return int(_FIXED.unpack_from(self._buffer)[3])


def _least_missing(line: bytearray) -> int:
    """Return how many bytes at least are still missing of a line of version 1: each field has one, and a space."""
    if line.endswith(b"\r"):
        return 1
    if line.startswith(b"PROXY UNKNOWN"):
        return 2  # whatever stands there is skipped up to CR LF
    spaces = min(line.count(b" "), _TCP_FIELDS - 1)
    return line.endswith(b" ") + 2 * (_TCP_FIELDS - 1 - spaces) + 2


def _parse_line(line: bytes) -> Header:
    match = _LINE.fullmatch(line)
    if match is None:
        raise _bad_line(line)
    if match[1] is None:
        return Header("v1", None, None)
    family = IPv4Address if match[1] == b"TCP4" else IPv6Address
    try:
        hosts = [family(match[place].decode("ascii")) for place in (2, 3)]
    except ValueError:
        raise _bad_line(line) from None
    ports = int(match[4]), int(match[5])
    if max(ports) > 0xFFFF or b"%" in line:
        raise _bad_line(line)
    return Header("v1", (_shown(hosts[0]), ports[0]), (_shown(hosts[1]), ports[1]))


def _bad_line(line: bytes) -> PeerError:
    family = "TCP6" if line.startswith(b"PROXY TCP6") else "TCP4"
    return PeerError(
        f"PROXY protocol v1 line {line.decode('latin-1')!a} is not of the form "
        f"'PROXY {family} SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT', with CR and LF at its end"
    )


def _parse_block(family: int, transport: int, block: bytes) -> Header:
    layout = _ADDRESSES[family]
    if len(block) < layout.size:
        raise PeerError(f"PROXY protocol v2: {len(block)} bytes of addresses, this family has {layout.size}")
    if family == _UNIX or transport != _STREAM:
        return Header("v2", None, None)
    source, destination, source_port, destination_port = layout.unpack_from(block)
    return Header("v2", (_shown(ip_address(source)), source_port), (_shown(ip_address(destination)), destination_port))


def _shown(host: IPv4Address | IPv6Address) -> str:
    mapped = host.ipv4_mapped if isinstance(host, IPv6Address) else None
    return str(mapped or host)  # one client is one address, whichever listener it came to


def _plain(host: str) -> IPv4Address | IPv6Address:
    return ip_address(_shown(ip_address(host.partition("%")[0])))  # the interface means nothing to another machine


def _same_family(
    first: IPv4Address | IPv6Address, second: IPv4Address | IPv6Address
) -> tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address]:
    if first.version == second.version:
        return first, second
    return _as_ipv6(first), _as_ipv6(second)


def _as_ipv6(host: IPv4Address | IPv6Address) -> IPv6Address:
    return host if isinstance(host, IPv6Address) else IPv6Address(bytes(10) + b"\xff\xff" + host.packed)


def _what_came(start: bytes) -> str:
    if start[0] == 0x16:
        return "a TLS ClientHello"
    if start[0] == 0x01:
        return "a DICOM A-ASSOCIATE-RQ"
    if start[0] == 0x0B:
        return "an HL7 message"
    if re.match(rb"[A-Z]{3,} ", start):
        return "an HTTP request"
    return f"bytes {start[:8].hex(' ')}"
