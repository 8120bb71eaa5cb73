"""The gateway's listening sockets and socket options, as both the supervisor and the gateway need them.

Source: tcp(7), keepalive.  Accepted connections inherit the options of their listener.
"""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from equipoise.engines.sockets import bound
from equipoise.plan.model import Endpoint

BACKLOG = 1024  # callers wait here while a gateway is restarted; the kernel caps it at net.core.somaxconn
# A dead peer is noticed after 60 + 6 x 10 s, long before firewalls forget the flow (350 s at the shortest).
_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_PROBES = 60, 10, 6

_U64 = struct.Struct("=Q")
_TCP_INFO_BYTES, _ACKNOWLEDGED_AT, _BUSY_AT = 176, 120, 168  # linux/tcp.h: tcpi_bytes_acked, tcpi_busy_time


def open_listener(endpoint: Endpoint) -> socket.socket:
    """Return a listening socket; its address need not be on this machine yet.  Raises: EngineError."""
    sock = bound(endpoint)
    keep_alive(sock)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


@contextmanager
def borrowed(descriptor: int, host: str) -> Iterator[socket.socket]:
    """Lend a transport's descriptor as a socket: what uvloop lends costs a socket of its own for each option."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=descriptor)
    try:
        yield sock
    finally:
        sock.detach()


def keep_alive(sock: socket.socket) -> None:
    """Turn keepalive on."""
    set_option: Callable[[int, int, int], None] = sock.setsockopt
    set_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    set_option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
    set_option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
    set_option(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)


def taken(descriptor: int) -> tuple[int, float]:
    """Return the bytes that a TCP peer has acknowledged, and for how many seconds some were on their way to it."""
    with borrowed(descriptor, "") as sock:
        information = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    if len(information) < _TCP_INFO_BYTES:
        return 0, 0.0  # a kernel before 4.9 does not count it
    (acknowledged,), (busy_us,) = (_U64.unpack_from(information, at) for at in (_ACKNOWLEDGED_AT, _BUSY_AT))
    return acknowledged, busy_us / 1e6
