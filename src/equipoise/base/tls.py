"""TLS contexts by BCP 195: TLS 1.2 with forward secrecy and authenticated ciphers alone, and TLS 1.3.

The door to all of TLS: what goes wrong in a handshake is in `tls_problems`, what is in a file in `certificates`.
As a server only ECDHE is offered, since finite-field groups would have to be configured and RFC 9325 section 4.1
advises against them; as a client DHE too, for nodes that know nothing better.
Source: BCP 195, RFC 8996 and RFC 9325; DICOM PS3.15 annex B.12.
"""

import ssl
from pathlib import Path

from equipoise.base.certificates import (
    Certificate,
    CertificateFileError,
    parse_certificates,
    read_certificates,
    read_pem,
)
from equipoise.base.tls_problems import handshake_problem, peer_names
from equipoise.base.tls_start import AlertingContext, AlertingObject, start_tls

__all__ = [
    "Certificate",
    "CertificateFileError",
    "client_context",
    "handshake_problem",
    "peer_names",
    "read_certificates",
    "server_context",
    "start_tls",
]

# RFC 9325 section 4.2; security level 2 asks for keys of 2048 bits (RSA) or 224 (elliptic curves): section 4.5.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL:!PSK:@SECLEVEL=2"
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_ENCRYPTED = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")


def server_context(*, cert: str, key: str | None, client_ca: str | None, min_version: str) -> ssl.SSLContext:
    """Return a context for senders' connections; with `client_ca` they must show a certificate.

    Args:
        cert: PEM file: our certificate, then those that lead to its authority.
        key: PEM file of its private key; None where it stands in `cert`.
        client_ca: PEM file of the authorities of clients; None asks for no certificate.
        min_version: `1.2` or `1.3`.

    Raises: CertificateFileError with which file, what is wrong and the way out.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, min_version)
    _load_own(context, cert, key)
    if client_ca is not None:
        _load_authorities(context, client_ca, "client_ca")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    *, ca: str | None, verify: str, cert: str | None, key: str | None, min_version: str
) -> ssl.SSLContext:
    """Return a context for connections to nodes.

    With verify `name` give the node's name or numeric address as `server_hostname` when connecting: an address must
    stand among the certificate's addresses (iPAddress), a name among its host names, or be its common name if it has
    none.

    Args:
        ca: PEM file of the authorities of nodes; None means those that the system trusts.
        verify: `name`, `authority` (whatever its name) or `none` (any certificate).
        cert: PEM file of the certificate that nodes are shown when they ask; None shows none.
        key: PEM file of its private key; None where it stands in `cert`.
        min_version: `1.2` or `1.3`.

    Raises: CertificateFileError with which file, what is wrong and the way out.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, min_version)
    context.check_hostname = verify == "name"
    context.verify_mode = ssl.CERT_NONE if verify == "none" else ssl.CERT_REQUIRED
    if ca is not None:
        _load_authorities(context, ca, "ca")
    elif verify != "none":
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if cert is not None:
        _load_own(context, cert, key)
    return context


def _context(protocol: int, min_version: str) -> ssl.SSLContext:
    context = AlertingContext(protocol)
    context.sslobject_class = AlertingObject
    context.minimum_version = _VERSIONS[min_version]
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # What is named is trusted: an intermediate authority, or one node's own certificate, without the root above it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _load_authorities(context: ssl.SSLContext, path: str, setting: str) -> None:
    content = read_pem(path, setting)
    parse_certificates(content, path, setting)
    try:
        context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError) as error:
        raise CertificateFileError(setting, f"{path} cannot be used as a list of authorities: {error}") from None


def _load_own(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    content = read_pem(cert, "cert")
    parse_certificates(content, cert, "cert")
    holder, setting = (cert, "cert") if key is None else (key, "key")
    key_content = content if key is None else read_pem(key, "key")
    if any(mark in key_content for mark in _ENCRYPTED):
        raise _encrypted(setting, holder)
    if b"PRIVATE KEY-----" not in key_content:
        way_out = "name the file that holds it with `key`" if key is None else "name the file that holds it"
        raise CertificateFileError(setting, f"{holder} holds no private key; {way_out}")
    try:
        # Without a way to ask, OpenSSL would ask on the terminal.
        context.load_cert_chain(cert, key, password=lambda: b"")
    except ssl.SSLError as error:
        raise CertificateFileError(setting, _why_unusable(error, cert, holder)) from None
    except OSError as error:  # it was readable a moment ago
        raise CertificateFileError(setting, f"{holder}: {error.strerror}") from None


def _why_unusable(error: ssl.SSLError, cert: str, holder: str) -> str:
    match error.reason:
        case "KEY_VALUES_MISMATCH" | "KEY_TYPE_MISMATCH" | "NO_CERTIFICATE_ASSIGNED":
            where = f"the private key in {holder} does not belong to the certificate in {cert}"
            if Path(cert) == Path(holder):
                where = f"the private key in {cert} does not belong to the first certificate there"
            return f"{where}; name the two that were made together, our own certificate first in its file"
        case "EE_KEY_TOO_SMALL":
            return f"the key of the certificate in {cert} is too short (RSA needs 2048 bits); have a new one issued"
        case "CA_MD_TOO_WEAK" | "CA_KEY_TOO_SMALL":
            return f"a certificate in {cert} is signed too weakly (SHA-1, or a short key); have a new one issued"
    return f"the private key in {holder} cannot be read: {error.reason or 'damaged'}; copy it again"


def _encrypted(setting: str, path: str) -> CertificateFileError:
    return CertificateFileError(
        setting,
        f"the private key in {path} is encrypted with a passphrase, which nobody can type when a balancer starts; "
        f"write it without one (openssl pkey -in {path} -out FILE.pem) and let only the balancer's user read it",
    )
