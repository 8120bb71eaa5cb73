"""Connect to a node for a check, and say in plain words what went wrong.  Leaves out deadlines: the runner sets them.

That this machine has run out of descriptors or memory says nothing about a node: an EquipoiseError, and no result.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from ipaddress import ip_address

from equipoise.base.clock import Clock
from equipoise.base.errors import EquipoiseError, PeerError
from equipoise.base.tls_problems import handshake_problem
from equipoise.config.fields import numeric
from equipoise.health.base import TlsSession
from equipoise.health.securing import security, session
from equipoise.plan.model import Endpoint, NodeTls
from equipoise.proto import proxy_protocol

_CHUNK_BYTES = 64 * 1024
_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_WORDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset by the node",
    errno.EPIPE: "connection closed by the node",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "no route to the node's network",
    errno.ETIMEDOUT: "no answer before the system gave up",
    errno.EADDRNOTAVAIL: "this machine has no free port, or no address, to call it from",
    errno.EACCES: "not allowed to connect: a firewall rule of this machine",
    errno.EPERM: "not allowed to connect: a firewall rule of this machine",
}
# Nobody answered at the node's address: what an EADDRNOTAVAIL or EACCES says is about this machine, not about the node.
_NOBODY = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT})


class UnreachableError(PeerError):
    """No TCP connection came about, and not for anything that this machine lacks."""


class StreamLink:
    """A connection to a node, as checks see it (`equipoise.health.base.Link`).

    Attributes:
        received_bytes: What has come from the node so far.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, clock: Clock) -> None:
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._buffer = bytearray()
        self.received_bytes = 0

    @property
    def peer(self) -> str:
        """Whom it leads to, as ADDRESS:PORT."""
        host, port = self._writer.get_extra_info("peername")[:2]
        return str(Endpoint(host, port))

    @property
    def tls(self) -> TlsSession | None:
        """What TLS came to; None on a plain connection."""
        secured: ssl.SSLObject | None = self._writer.get_extra_info("ssl_object")
        return None if secured is None else session(secured, self._clock.wall())

    async def send(self, data: bytes) -> None:
        """Send `data`, without a wait: a last word must go out behind the deadline too.

        What a check sends is bounded by its settings, and a node that does not read it does not answer it either.
        """
        self._writer.write(data)

    async def receive(self) -> bytes:
        """Return what has come, as soon as there is something; empty once the peer has closed."""
        if self._buffer:
            return self._take(len(self._buffer))
        data = await self._reader.read(_CHUNK_BYTES)
        self.received_bytes += len(data)
        return data

    async def receive_exactly(self, size_bytes: int) -> bytes:
        """Return exactly so many bytes.  Raises: PeerError when the peer closes before."""
        while len(self._buffer) < size_bytes:
            await self._receive_more()
        return self._take(size_bytes)

    async def receive_until(self, end: bytes, max_bytes: int) -> bytes:
        """Return what comes up to and with `end`.  Raises: PeerError when it is longer or the peer closes before."""
        while (at := self._buffer.find(end, 0, max_bytes)) < 0:
            if len(self._buffer) >= max_bytes:
                raise PeerError(f"an answer of more than {max_bytes} bytes")
            await self._receive_more()
        return self._take(at + len(end))

    async def close(self) -> None:
        """Close in order; at once where the node does not take what was sent.

        With TLS the last word, or even the end of the handshake, may be on its way: there asyncio's own limit holds.
        """
        transport = self._writer.transport
        if transport.get_write_buffer_size() and transport.get_extra_info("ssl_object") is None:
            transport.abort()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _receive_more(self) -> None:
        data = await self._reader.read(_CHUNK_BYTES)
        if not data:
            raise PeerError(f"the node closed the connection after {self.received_bytes} bytes")
        self.received_bytes += len(data)
        self._buffer += data

    def _take(self, size_bytes: int) -> bytes:
        taken = bytes(self._buffer[:size_bytes])
        del self._buffer[:size_bytes]
        return taken


async def connect(host: str, port: int, source_address: str | None) -> socket.socket:
    """Return a connection to a numeric address.

    Raises: UnreachableError where nobody took it, PeerError for what else went wrong, in plain words; EquipoiseError
    where this machine cannot even try.
    """
    try:
        return await _connected(host, port, source_address)
    except OSError as error:
        if error.errno in _OUR_OWN:
            raise EquipoiseError(
                f"cannot check {host} port {port}: {os.strerror(error.errno)} on this machine, "
                "so nothing is known of the node"
            ) from None
        if source_address is not None and error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL):
            raise PeerError(
                f"cannot call {host} from {source_address}: {_same_family(host, source_address)}; "
                "set health.source_address to an address of this machine that reaches the node"
            ) from None
        raise (UnreachableError if error.errno in _NOBODY else PeerError)(plain(error)) from None


async def open_link(
    connection: socket.socket, tls: NodeTls | None, proxy: str, timeout_s: float, clock: Clock
) -> StreamLink:
    """Return a link over a connection, which it owns from now on: the PROXY header first, then TLS.

    Raises: PeerError with what went wrong; EquipoiseError where our own files for TLS cannot be used.
    """
    try:
        secured = security(tls, timeout_s)
        if proxy != "none":
            # As for a health check: nobody's connection is passed on.
            await asyncio.get_running_loop().sock_sendall(connection, proxy_protocol.encode(proxy, None, None))
    except BaseException:
        connection.close()
        raise
    try:
        reader, writer = await asyncio.open_connection(sock=connection, **secured)
    except OSError as error:
        raise PeerError(
            f"no TLS with the node: {handshake_problem(error, server=False)}" if tls else plain(error)
        ) from None
    return StreamLink(reader, writer, clock)


async def addresses(host: str, port: int) -> list[str]:
    """Return the numeric addresses of a host, in the system's order.  Raises: UnreachableError where it has none."""
    if numeric(host) is not None:  # without the thread that a name takes
        return [host]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        raise UnreachableError(unresolved(host)) from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def unresolved(name: str) -> str:
    """Return the reason of a node whose name has no address."""
    return f"the name {name} does not resolve"


def plain(error: OSError) -> str:
    """Return what went wrong on a connection, in words."""
    if isinstance(error, ssl.SSLError):  # by TLS 1.3 a node may refuse our certificate after the handshake
        return handshake_problem(error, server=False)
    words = _WORDS.get(error.errno or 0)
    return words or (os.strerror(error.errno) if error.errno else str(error) or type(error).__name__)


async def _connected(host: str, port: int, source_address: str | None) -> socket.socket:
    family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if source_address is not None:
            if ip_address(source_address).version != ip_address(host).version:
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
            connection.bind((source_address, 0))
        await asyncio.get_running_loop().sock_connect(connection, (host, port))
        if connection.getsockname() == connection.getpeername():
            # Linux connects a socket to itself when the port it draws is the one it calls, and nobody listens there.
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    except BaseException:
        connection.close()
        raise
    return connection


def _same_family(host: str, source_address: str) -> str:
    if ip_address(host).version != ip_address(source_address).version:
        return "one is IPv4, the other IPv6"
    return "it is not an address of this machine"
