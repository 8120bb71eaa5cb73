"""Listening sockets and socket options, as both the supervisor and the gateway need them.

Source: ip(7), IP_FREEBIND; tcp(7), keepalive.  Accepted connections inherit the options of their listener.
"""

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from equipoise.base.errors import EngineError
from equipoise.plan.model import Endpoint

BACKLOG = 1024  # callers wait here while a gateway is restarted; the kernel caps it at net.core.somaxconn
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78  # linux/in.h, linux/in6.h: not in Python's socket module
# A dead peer is noticed after 60 + 6 x 10 s, long before firewalls forget the flow (350 s at the shortest).
_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_PROBES = 60, 10, 6

_U64 = struct.Struct("=Q")
_TCP_INFO_BYTES, _ACKNOWLEDGED_AT, _BUSY_AT = 176, 120, 168  # linux/tcp.h: tcpi_bytes_acked, tcpi_busy_time


def open_listener(endpoint: Endpoint) -> socket.socket:
    """Return a listening socket; its address need not be on this machine yet.  Raises: EngineError."""
    sock = _bound(endpoint)
    keep_alive(sock)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def check_listener(endpoint: Endpoint) -> None:
    """Find out whether `open_listener` would work, and leave nothing behind.  Raises: EngineError."""
    _bound(endpoint).close()


def is_local(host: str) -> bool:
    """Say whether an address is on this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.bind((host, 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL  # anything else says nothing of the address
    return True


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


def _bound(endpoint: Endpoint) -> socket.socket:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise EngineError(f"cannot open a socket for {endpoint}: {error.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sock.bind((endpoint.host, endpoint.port))
    except OSError as error:
        sock.close()
        raise EngineError(_plainly(endpoint, error)) from None
    return sock


def _plainly(endpoint: Endpoint, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"cannot listen on {endpoint}: another program has the port; "
            f"find it with `ss -ltnp 'sport = :{endpoint.port}'` and stop it, or choose another port"
        )
    if error.errno == errno.EACCES:
        return (
            f"cannot listen on {endpoint}: ports below 1024 need a right that this user lacks; start as root, use the "
            "systemd unit in packaging/ (it grants CAP_NET_BIND_SERVICE), or choose a port from 1024 on"
        )
    return f"cannot listen on {endpoint}: {error.strerror}"
