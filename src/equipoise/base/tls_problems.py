"""Say what came of a TLS handshake: who the peer is, or what went wrong and what a PACS administrator can do.

Leaves out which peer it was: who tells the problem names it.  Under TLS 1.3 a peer refuses our certificate only after
our side of the handshake is through: its alert then ends a connection that stood, and is explained here as well.
Source: OpenSSL's reasons (sslerr.h) and verification codes (x509_vfy.h); alerts: RFC 8446 section 6.2.
"""

import re
import ssl
from collections.abc import Mapping

from equipoise.base.certificates import names_of

# By OpenSSL's code of the verification; {peer} is "the client" or "the node".
_EXPIRED = "the certificate of {peer} has expired; have it renewed there"
_UNKNOWN = "the certificate of {peer} is from an authority that is not in {ca}; add that authority's certificate"
_WEAK = "the certificate of {peer}, or one that signed it, is too weak (SHA-1, or a short key); have it issued again"
_UNVERIFIED = {
    2: _UNKNOWN,
    9: "the certificate of {peer} is not valid yet; compare the clocks of both machines",
    10: _EXPIRED,
    18: "{peer} shows a certificate that it signed itself; put that certificate into {ca}, or have one issued",
    19: _UNKNOWN,
    20: _UNKNOWN,
    21: _UNKNOWN + ", or let {peer} send the intermediate certificates too",
    24: "the certificate of {peer} is signed by a certificate that may not sign; have it issued by an authority",
    26: "the certificate of {peer} may not be used by a {role} (extended key usage); have it issued for {usage}",
    66: _WEAK,
    67: _WEAK,
    68: _WEAK,
    79: "the certificate of {peer} is signed by a certificate that may not sign; have it issued by an authority",
}
_WRONG_NAME = (62, 64)
_ASKED = re.compile(r"not valid for '(.{1,255})'")

_OTHER_PROTOCOL = (
    "{peer} does not speak TLS here, but something else, for example plain DICOM; turn TLS on at {peer}, or use {port}"
)
_TOO_OLD = (
    "{peer} offers no version of TLS that is allowed here: 1.0 and 1.1 are broken and never accepted, and min_version "
    "may leave out 1.2; update {peer}, or use {plain}"
)
_NO_CIPHER = (
    "no cipher in common: {peer} must offer ECDHE with AES-GCM or ChaCha20-Poly1305 (BCP 195), for the kind of key "
    "that the certificate has, RSA or ECDSA; allow them there"
)
_WEAK_KEY = "the key that {peer} uses is too short; it needs 2048 bits (RSA, DH) or 224 (elliptic curves) at least"
_CLOSED = (
    "{peer} closed the connection during the handshake: it may not speak TLS on that port, or refuse the certificate "
    "that it was shown; its log says which"
)
_REASONS = {
    **dict.fromkeys(
        ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST"), "{peer} sent a plain HTTP request to a port for TLS; use https"
    ),
    **dict.fromkeys(
        (
            "WRONG_VERSION_NUMBER",
            "UNKNOWN_PROTOCOL",
            "RECORD_LENGTH_MISMATCH",
            "LENGTH_MISMATCH",
            "PACKET_LENGTH_TOO_LONG",
            "BAD_RECORD_TYPE",
            "RECORD_LAYER_FAILURE",
        ),
        _OTHER_PROTOCOL,
    ),
    **dict.fromkeys(
        ("UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "WRONG_SSL_VERSION", "NO_PROTOCOLS_AVAILABLE", "PROTOCOL_VERSION"),
        _TOO_OLD,
    ),
    **dict.fromkeys(
        (
            "NO_SHARED_CIPHER",
            "NO_CIPHER_MATCH",
            "WRONG_CIPHER_RETURNED",
            "NO_SUITABLE_KEY_SHARE",
            "NO_SUITABLE_GROUPS",
            "NO_SHARED_GROUPS",
            "NO_SUITABLE_SIGNATURE_ALGORITHM",
            "NO_SHARED_SIGNATURE_ALGORITHMS",
            "WRONG_SIGNATURE_TYPE",
        ),
        _NO_CIPHER,
    ),
    **dict.fromkeys(("DH_KEY_TOO_SMALL", "EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"), _WEAK_KEY),
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        "{peer} showed no certificate, and {ca} asks for one; give {peer} a certificate from that authority"
    ),
    "UNSAFE_LEGACY_RENEGOTIATION_DISABLED": (
        "{peer} knows TLS only without secure renegotiation (RFC 5746), which is open to attacks; update it"
    ),
    "UNEXPECTED_EOF_WHILE_READING": _CLOSED,
}

# What the peer's alert says, RFC 8446 section 6.2, behind ..._ALERT_ in OpenSSL's reason.
_REFUSED = "{peer} refuses {own}: "
_ALERTS = {
    "UNKNOWN_CA": _REFUSED + "it does not know its authority; add the authority's certificate at {peer}",
    "BAD_CERTIFICATE": _REFUSED + "it finds it wrong, often because of its name; look into the log of {peer}",
    "UNSUPPORTED_CERTIFICATE": _REFUSED + "it may not be used for this, or is of a kind that {peer} does not know",
    "CERTIFICATE_REVOKED": _REFUSED + "it has been revoked; have a new one issued",
    "CERTIFICATE_EXPIRED": _REFUSED + "it has expired, or the clock of {peer} is wrong; renew it",
    "CERTIFICATE_UNKNOWN": _REFUSED + "it does not say why; look into the log of {peer}",
    "ACCESS_DENIED": _REFUSED + "it is valid, but not let in; allow its name at {peer}",
    "CERTIFICATE_REQUIRED": "{peer} asks for a certificate and was shown none; {show}",
    "NO_CERTIFICATE": "{peer} asks for a certificate and was shown none; {show}",
    "HANDSHAKE_FAILURE": (
        "{peer} refuses the handshake: it has no cipher in common with BCP 195, or asks for a certificate and was "
        "shown none; look into its log"
    ),
    "INSUFFICIENT_SECURITY": "{peer} asks for stronger ciphers than those in common; look into its settings",
    "PROTOCOL_VERSION": _TOO_OLD,
    "UNRECOGNIZED_NAME": "{peer} does not know the name that it was called by; correct server_name or the address",
    "NO_APPLICATION_PROTOCOL": "{peer} expects another protocol inside TLS on that port",
    "DECRYPT_ERROR": "{peer} could not check a signature: key and certificate of one side do not belong together",
}
_ALERT = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?(\w+)")

# How the words above are completed, by who reads: we are the server, or we called a node.
_SERVER = {
    "peer": "the client",
    "role": "client",
    "usage": "client authentication",
    "ca": "tls.client_ca",
    "own": "the certificate of this balancer (tls.cert)",
    "port": "a port without TLS (tls.ports)",
    "plain": "a port without TLS (tls.ports)",
    "show": "a server has no more to show: look into its log",
}
_CLIENT = {
    "peer": "the node",
    "role": "server",
    "usage": "server authentication",
    "ca": "node_tls.ca (by default the system's list)",
    "own": "the certificate of this balancer (node_tls.cert)",
    "port": "the port where it does, in the node's address",
    "plain": "a service without node_tls for it",
    "show": "set node_tls.cert",
}


def handshake_problem(error: BaseException, *, server: bool) -> str:
    """Return what went wrong between us and a peer, and what to do, in one line.

    Args:
        error: What the handshake, or the connection right after it, ended with.
        server: Whether we were the server, so that the peer is a client; otherwise it is a node.
    """
    words = _SERVER if server else _CLIENT
    if isinstance(error, ssl.SSLCertVerificationError):
        return _unverified(error, words)
    if isinstance(error, ssl.SSLError) and error.reason:
        return _by_reason(error.reason, words)
    # ConnectionAbortedError: how asyncio and uvloop say that their own time limit of the handshake has passed
    if isinstance(error, TimeoutError | ConnectionAbortedError):
        return f"no whole handshake in time: {words['peer']} may not speak TLS on that port, or be very slow"
    if isinstance(error, OSError | EOFError):
        return _CLOSED.format_map(words)
    return f"the handshake failed: {error or type(error).__name__}"


def peer_names(ssl_object: ssl.SSLObject | ssl.SSLSocket) -> str | None:
    """Return the names of the certificate that the peer showed, in one bounded line; None where it showed none.

    It is not known to be true where nothing was verified.
    """
    try:
        der = ssl_object.getpeercert(binary_form=True)
    except ValueError:  # under TLS 1.3 it may be over as soon as it is agreed on
        return None
    return None if der is None else names_of(der)


def _unverified(error: ssl.SSLCertVerificationError, words: Mapping[str, str]) -> str:
    message = str(error.verify_message)
    if error.verify_code in _WRONG_NAME:
        asked = _ASKED.search(message)
        name = f" {asked[1]}" if asked else ", by which it was called"
        return (
            f"the certificate of {words['peer']} is not for the name or address{name}; write in `address` a name that "
            "is in the certificate, or give it as node_tls.server_name, or have a certificate issued for this one"
        )
    sentence = _UNVERIFIED.get(error.verify_code)
    if sentence is None:
        return f"the certificate of {words['peer']} is not accepted: {message}"
    return sentence.format_map(words)


def _by_reason(reason: str, words: Mapping[str, str]) -> str:
    if (sentence := _REASONS.get(reason)) is not None:
        return sentence.format_map(words)
    alert = _ALERT.fullmatch(reason)
    if alert is not None and (sentence := _ALERTS.get(alert[1])) is not None:
        return sentence.format_map(words)
    said = reason.lower().replace("_", " ")
    return f"the handshake with {words['peer']} failed: {said}; the log of {words['peer']} may say more"
