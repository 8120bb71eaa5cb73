"""Who this machine is to its peer, and who its peer is: two files in the state directory, which joining makes.

`own.pem` has the certificate and then the key of this machine, `peer.crt` the certificate of the other.  The supervisor
and HAProxy read the same two.  Each certificate is signed by itself and trusted for being that very one, so its names
and dates say nothing: they are there for other programs, and wide enough for a clock that is wrong.
Leaves out contexts (`trust`) and how the two come to trust each other (`invitation`).
Source: RFC 5280 section 4.2.1; HAProxy configuration manual, `crt` and `ca-file`.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from equipoise.base.certificates import parse_certificates, read_pem
from equipoise.base.clock import Clock
from equipoise.base.errors import EquipoiseError
from equipoise.base.paths import replace_file
from equipoise.plan.model import Secured

MAX_CERTIFICATE_BYTES = 16 * 1024  # ours have 700
_NAME = "equipoise"
_CLOCK_MAY_BE_OFF = timedelta(days=7)
_VALID = timedelta(days=20 * 365)
_JOIN_AGAIN = "or move it away and join the two machines again (`equipoise cluster join`)"


@dataclass(frozen=True, slots=True)
class Identity:
    """This machine's certificate.

    Attributes:
        file: Where it stands, and its key.
        certificate: PEM, without the key.
        fingerprint: The SHA-256 of its DER form.
    """

    file: Path
    certificate: str
    fingerprint: bytes


def own_file(state: Path) -> Path:
    """Return where certificate and key of this machine are."""
    return state / "cluster" / "own.pem"


def peer_file(state: Path) -> Path:
    """Return where the certificate of the peer is."""
    return state / "cluster" / "peer.crt"


def own_identity(state: Path, address: str, clock: Clock) -> Identity:
    """Return who this machine is; the first time, make that up.  Raises: EquipoiseError.

    Args:
        state: The state directory.
        address: This machine's, which a new certificate names.
        clock: Says from when on a new one holds.
    """
    path = own_file(state)
    if not path.exists():
        make_directory(path.parent)
        written(path, _made(address, datetime.fromtimestamp(clock.wall(), UTC)), 0o600)
    return _read_own(path)


def store_peer(state: Path, certificate: str) -> None:
    """Trust the machine that has this certificate (PEM) from now on, and no other.  Raises: EquipoiseError."""
    try:
        parsed = _only_one(certificate.encode(), "what the peer sent")
    except UnicodeEncodeError:
        raise EquipoiseError("what the peer sent as its certificate is not PEM; join again") from None
    own = own_file(state)
    if own.exists() and _read_own(own).fingerprint == parsed.fingerprint(hashes.SHA256()):
        raise EquipoiseError("the peer showed this machine's own certificate: a machine cannot be its own peer")
    make_directory(peer_file(state).parent)
    written(peer_file(state), parsed.public_bytes(serialization.Encoding.PEM), 0o640)


def remove_peer(state: Path) -> None:
    """Trust no peer any more.  Raises: EquipoiseError."""
    removed(peer_file(state))


def secured(state: Path) -> Secured | None:
    """Return the files by which the two know each other; None until both are there.  Raises: EquipoiseError."""
    own, peer = own_file(state), peer_file(state)
    if not own.exists() or not peer.exists():
        return None
    _read_own(own)
    _only_one(_content(peer), str(peer))
    digests = [hashlib.sha256(_content(path)).digest() for path in (own, peer)]
    return Secured(str(own), str(peer), hashlib.sha256(b"".join(digests)).hexdigest())


def fingerprint_of(der: bytes) -> bytes:
    """Return what stands for a certificate."""
    return hashlib.sha256(der).digest()


def fingerprint_in(path: Path) -> bytes:
    """Return what stands for the one certificate in a file.  Raises: EquipoiseError."""
    return _only_one(_content(path), str(path)).fingerprint(hashes.SHA256())


def make_directory(path: Path) -> None:
    """Make a directory of the state, for owner and group alone.  Raises: EquipoiseError."""
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise EquipoiseError(f"cannot make the directory {path}: {error.strerror}; {_WRITABLE}") from None


def written(path: Path, content: bytes, mode: int) -> None:
    """Put a file into the state directory, whole or not at all.  Raises: EquipoiseError."""
    try:
        replace_file(path, content, mode)
    except OSError as error:
        raise EquipoiseError(f"cannot write {path}: {error.strerror}; {_WRITABLE}") from None


def removed(path: Path) -> None:
    """Remove a file of the state directory, if it is there.  Raises: EquipoiseError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise EquipoiseError(f"cannot remove {path}: {error.strerror}; {_WRITABLE}") from None


_WRITABLE = "see that the state directory may be written to and has room, or set EQUIPOISE_STATE_DIR to another one"


def _read_own(path: Path) -> Identity:
    content = _content(path)
    certificate = _only_one(content, str(path))
    try:
        key = serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError):  # TypeError: one with a passphrase
        raise EquipoiseError(f"{path} holds no private key that can be read; restore it, {_JOIN_AGAIN}") from None
    if key.public_key() != certificate.public_key():
        raise EquipoiseError(f"key and certificate in {path} do not belong together; restore it, {_JOIN_AGAIN}")
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return Identity(path, pem, certificate.fingerprint(hashes.SHA256()))


def _content(path: Path) -> bytes:
    try:
        return read_pem(str(path), "cert")
    except EquipoiseError as error:
        raise EquipoiseError(f"{error}; or join the two machines again (`equipoise cluster join`)") from None


def _only_one(content: bytes, where: str) -> x509.Certificate:
    """Return the one certificate there.  Raises: EquipoiseError."""
    if len(content) > MAX_CERTIFICATE_BYTES:
        raise EquipoiseError(f"{where} has {len(content)} bytes, a machine's certificate {MAX_CERTIFICATE_BYTES}")
    try:
        found = parse_certificates(content, where, "cert")
        found[0].public_key()
    except (EquipoiseError, ValueError) as error:
        raise EquipoiseError(f"{error}; restore it, {_JOIN_AGAIN}") from None
    if len(found) != 1:
        raise EquipoiseError(f"{where} holds {len(found)} certificates, a machine has one; restore it, {_JOIN_AGAIN}")
    return found[0]


def _made(address: str, now: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_MAY_BE_OFF)
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(subject_key, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + secret


def _key_usage() -> x509.KeyUsage:
    """Say what the key is for; programs that go strictly by RFC 5280 want a signer's mark on what is trusted."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
