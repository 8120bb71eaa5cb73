"""TLS between the two machines of a pair: each trusts exactly the certificate of the other, whatever it says.

Leaves out the files (`identity`) and everything that is said through it.
Source: X509_VERIFY_PARAM_set_flags(3); the rest as in `base.tls`.
"""

import ssl
from pathlib import Path

from equipoise.base.certificates import CertificateFileError
from equipoise.base.errors import EquipoiseError
from equipoise.base.tls import client_context, server_context
from equipoise.plan.model import Secured

# The certificate is known as it is, so its dates add nothing; a machine whose clock starts in 1970 must find its peer.
_NO_CHECK_TIME = 0x200000
_MIN_VERSION = "1.2"
_WAY_OUT = "join the two machines again (`equipoise cluster join`)"


def pair_server(secured: Secured) -> ssl.SSLContext:
    """Return a context for connections from the peer, who must show its certificate.  Raises: EquipoiseError."""
    try:
        context = server_context(cert=secured.own, key=None, client_ca=secured.peer, min_version=_MIN_VERSION)
    except CertificateFileError as error:
        raise EquipoiseError(f"{error}; or {_WAY_OUT}") from None
    return _timeless(context)


def pair_client(secured: Secured) -> ssl.SSLContext:
    """Return a context for connections to the peer.  Raises: EquipoiseError."""
    try:
        context = client_context(
            ca=secured.peer, verify="authority", cert=secured.own, key=None, min_version=_MIN_VERSION
        )
    except CertificateFileError as error:
        raise EquipoiseError(f"{error}; or {_WAY_OUT}") from None
    return _timeless(context)


def invitation_server(own: Path) -> ssl.SSLContext:
    """Return a context for a machine that wants to join, whose certificate nobody knows.  Raises: EquipoiseError."""
    return server_context(cert=str(own), key=None, client_ca=None, min_version=_MIN_VERSION)


def looking_client() -> ssl.SSLContext:
    """Return a context to find out which certificate a server shows.  Nothing may be said through it."""
    return client_context(ca=None, verify="none", cert=None, key=None, min_version=_MIN_VERSION)


def joining_client(certificate: str) -> ssl.SSLContext:
    """Return a context for connections to the server with this certificate, PEM, alone."""
    context = client_context(ca=None, verify="none", cert=None, key=None, min_version=_MIN_VERSION)
    context.load_verify_locations(cadata=certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    return _timeless(context)


def _timeless(context: ssl.SSLContext) -> ssl.SSLContext:
    context.verify_flags = ssl.VerifyFlags(context.verify_flags | _NO_CHECK_TIME)
    return context
