"""TLS of checks: contexts, built once for the same settings, and what a handshake came to.

Leaves out when TLS is spoken (`question.py`).
"""

import ssl
from dataclasses import replace
from functools import lru_cache
from typing import Any

from equipoise.base.certificates import ends_s, names_of
from equipoise.base.errors import PeerError
from equipoise.base.tls import client_context
from equipoise.health.base import TlsSession
from equipoise.plan.model import NodeTls

_MOST_CONTEXTS = 64  # a site has some services with settings of their own, and each renewal makes another one
# A node that does not answer our last word must not hold up the next check.
_SHUTDOWN_S = 0.5
_LATER_S = 1.0  # behind the check's own deadline, which says more


def security(tls: NodeTls | None, timeout_s: float) -> dict[str, Any]:
    """Return what asyncio is given for such a connection.  Raises: EquipoiseError where a file cannot be used."""
    if tls is None:
        return {}
    return {
        "ssl": _context(replace(tls, server_name=None)),
        "server_hostname": tls.server_name,
        "ssl_handshake_timeout": timeout_s + _LATER_S,
        "ssl_shutdown_timeout": _SHUTDOWN_S,
    }


def session(secured: ssl.SSLObject, wall_s: float) -> TlsSession:
    """Return what a handshake came to.  Raises: PeerError where the node's certificate cannot be read."""
    der = secured.getpeercert(binary_form=True) or b""
    try:
        left_s = ends_s(der) - wall_s
    except ValueError as error:
        raise PeerError(f"the node's certificate cannot be read: {error}") from None
    cipher = secured.cipher()
    return TlsSession(secured.version() or "TLS", cipher[0] if cipher else "none", names_of(der), left_s)


@lru_cache(maxsize=_MOST_CONTEXTS)
def _context(tls: NodeTls) -> ssl.SSLContext:
    """Return the context; a renewed file gives another `fingerprint`, and so another context."""
    return client_context(ca=tls.ca, verify=tls.verify, cert=tls.cert, key=tls.key, min_version=tls.min_version)
