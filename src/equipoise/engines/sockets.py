"""Whether an address is here and a port is free: what every engine must know that listens.

Source: ip(7), IP_FREEBIND.  Leaves out what an engine does with its sockets.
"""

import errno
import socket

from equipoise.base.errors import EngineError
from equipoise.plan.model import Endpoint

_IP_FREEBIND, _IPV6_FREEBIND = 15, 78  # linux/in.h, linux/in6.h: not in Python's socket module


def check_listener(endpoint: Endpoint) -> None:
    """Find out whether a port can be listened on, and leave nothing behind.  Raises: EngineError."""
    bound(endpoint).close()


def is_local(host: str) -> bool:
    """Say whether an address is on this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.bind((host, 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL  # anything else says nothing of the address
    return True


def bound(endpoint: Endpoint) -> socket.socket:
    """Return a socket bound to an address that need not be on this machine yet.  Raises: EngineError."""
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
            f"find it with `ss -ltnp 'sport = :{endpoint.port}'` and stop it, or choose another port; "
            "where it is this balancer, a service changed between dicom and another protocol: apply once without it"
        )
    if error.errno == errno.EACCES:
        return (
            f"cannot listen on {endpoint}: ports below 1024 need a right that this user lacks; start as root, use the "
            "systemd unit in packaging/ (it grants CAP_NET_BIND_SERVICE), or choose a port from 1024 on"
        )
    return f"cannot listen on {endpoint}: {error.strerror}"
