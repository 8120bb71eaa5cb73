"""Read certificates: whose they are, who signed them, how long they hold.  Leaves out keys, and whom to trust.

Source: RFC 5280; names as RFC 4514 writes them.
"""

import errno
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtensionOID, NameOID

from equipoise.base.errors import EquipoiseError

MAX_FILE_BYTES = 1 << 20  # a system's whole list of authorities has 220 kB
_MAX_NAMES_CHARACTERS = 200  # in one line of an event
_BEGIN = b"-----BEGIN CERTIFICATE-----"


class CertificateFileError(EquipoiseError):
    """A file cannot be used; `setting` says which: cert, key, client_ca or ca."""

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(message)
        self.setting = setting


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is of interest in one certificate.

    Attributes:
        names: Its subject alternative names (host names and addresses), in the order of the certificate.
        not_before_s: Seconds since 1970, as `not_after_s`.
        is_ca: Whether it may sign others.
    """

    subject: str
    names: tuple[str, ...]
    issuer: str
    not_before_s: float
    not_after_s: float
    is_ca: bool


def read_file(path: str) -> bytes:
    """Return what a file holds, at most one byte beyond `MAX_FILE_BYTES`.  Raises: OSError, also for a device."""
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, not a file")
        return file.read(MAX_FILE_BYTES + 1)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # as opening a pipe would, until somebody writes


def read_pem(path: str, setting: str) -> bytes:
    """Return what a file for the setting `setting` holds.  Raises: CertificateFileError unless it looks like PEM."""
    try:
        content = read_file(path)
    except OSError as error:
        raise CertificateFileError(setting, f"{path}: {_why_unreadable(error)}") from None
    if len(content) > MAX_FILE_BYTES:
        raise CertificateFileError(setting, f"{path} has more than 1 MiB; name a PEM file with certificates")
    if b"-----BEGIN " not in content:
        raise CertificateFileError(setting, f"{path} {_what_instead(content, path)}")
    return content


def parse_certificates(content: bytes, path: str, setting: str) -> tuple[x509.Certificate, ...]:
    """Return all certificates of a PEM file, at least one.  Raises: CertificateFileError."""
    if _BEGIN not in content:
        raise CertificateFileError(setting, f"{path} holds no certificate (no line {_BEGIN.decode()}); add it")
    try:
        with _what_others_wrote():
            return tuple(x509.load_pem_x509_certificates(content))
    except ValueError:
        raise CertificateFileError(
            setting, f"{path} holds a certificate that is damaged; copy it again from where it was issued"
        ) from None


def read_certificates(path: str) -> tuple[Certificate, ...]:
    """Return all certificates of a PEM file, the file's own order.  Raises: EquipoiseError."""
    found = parse_certificates(read_pem(path, "cert"), path, "cert")
    try:
        return tuple(describe(each) for each in found)
    except ValueError as error:
        raise CertificateFileError("cert", f"{path} holds a certificate that cannot be read: {error}") from None


def describe(certificate: x509.Certificate) -> Certificate:
    """Return what is of interest in a certificate.  Raises: ValueError where something in it cannot be read."""
    with _what_others_wrote():
        return Certificate(
            subject=certificate.subject.rfc4514_string(),
            names=tuple(map(_printable, _alternative_names(certificate))),
            issuer=certificate.issuer.rfc4514_string(),
            not_before_s=certificate.not_valid_before_utc.timestamp(),
            not_after_s=certificate.not_valid_after_utc.timestamp(),
            is_ca=_may_sign(certificate),
        )


def ends_s(der: bytes) -> float:
    """Return when a certificate ends, in seconds since 1970.  Raises: ValueError where that cannot be read."""
    with _what_others_wrote():
        return x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp()


def names_in(der: bytes) -> tuple[str, ...]:
    """Return the names of a certificate as they stand there: common name, then host names and addresses.

    Raises: ValueError where something in it cannot be read.
    """
    with _what_others_wrote():
        certificate = x509.load_der_x509_certificate(der)
        common = [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        return tuple(dict.fromkeys([*common, *_alternative_names(certificate)]))


def names_of(der: bytes) -> str:
    """Return the names of a certificate in one line: those of `names_in`; bounded, printable."""
    try:
        line = _printable(", ".join(names_in(der))) or "a certificate without names"
    except ValueError:
        return "a certificate that cannot be read"
    return line if len(line) <= _MAX_NAMES_CHARACTERS else f"{line[: _MAX_NAMES_CHARACTERS - 1]}…"


@contextmanager
def _what_others_wrote() -> Iterator[None]:
    """Have one exception for all that can be wrong in a certificate; each is only read when it is asked for.

    cryptography has plain exceptions of its own, and lets through those of its parts: a common name that is a bit
    string is a TypeError.
    """
    try:
        yield
    except (
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
        UnsupportedAlgorithm,
        TypeError,
        LookupError,
    ) as error:
        raise ValueError(str(error)) from error


def _alternative_names(certificate: x509.Certificate) -> Iterator[str]:
    try:
        value = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound:
        return
    if isinstance(value, x509.SubjectAlternativeName):
        for name in value:
            if isinstance(name, x509.DNSName | x509.IPAddress):
                yield str(name.value)


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _why_unreadable(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file; put it there, or correct the path"
    if isinstance(error, PermissionError):
        user = _user()
        return f"the user {user} may not read it; give it to that user, or to a group of that user with mode 640"
    if isinstance(error, IsADirectoryError):
        return "is a directory; name the PEM file in it"
    return f"cannot be read: {error.strerror}"


def _user() -> str:
    number = os.geteuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _what_instead(content: bytes, path: str) -> str:
    if not content.strip():
        return "is empty; put the PEM text into it"
    if content[:1] != b"\x30":  # the first byte of every DER file: a sequence
        return "is not PEM: it has no line that starts with -----BEGIN"
    if content[4:7] == b"\x02\x01\x03":  # RFC 7292: the version, 3, comes first
        return f"is PKCS#12, not PEM; convert it: openssl pkcs12 -in {path} -nodes -out FILE.pem"
    return f"is DER, not PEM; convert it: openssl x509 -inform DER -in {path} -out FILE.pem (pkey for a key)"
