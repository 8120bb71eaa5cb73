"""An authority of our own: certificates that are good, expired, for another name, or nobody's, in no time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

_USAGES = {False: ExtendedKeyUsageOID.SERVER_AUTH, True: ExtendedKeyUsageOID.CLIENT_AUTH}
# A name of a kind that cryptography does not know: an ediPartyName (RFC 5280 section 4.2.1.6) whose party is "hi".
EDI_PARTY_NAME = x509.UnrecognizedExtension(
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes.fromhex("3008 a506 a104 0c02 6869")
)
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate in files: alone, its key alone, and both in one file."""

    cert: Path
    key: Path
    both: Path


class Authority:
    """A certification authority; everything that it makes lies in `directory`."""

    def __init__(self, directory: Path, name: str = "Test CA") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        now = datetime.now(UTC)
        builder = _builder(self._name, self._name, self._key, now - timedelta(days=100), now + timedelta(days=3650))
        self._certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = directory / f"{_file_name(name)}.pem"
        self.ca_file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        names: tuple[str, ...] = ("localhost",),
        addresses: tuple[str, ...] = ("127.0.0.1",),
        days: float = 30,
        not_before: datetime | None = None,
        client: bool = False,
        rsa_bits: int | None = None,
        more: tuple[x509.ExtensionType, ...] = (),
    ) -> Issued:
        """Return a certificate for the common name `name`; issuing the same name again replaces its files.

        Args:
            name: The common name, and what the files are called after.
            names: Host names (dNSName).
            addresses: Numeric addresses (iPAddress).
            days: How long it holds from now on; a negative number has expired.
            not_before: From when on it holds; by default since ten days before now or its end, whichever is first.
            client: For a client, not for a server.
            rsa_bits: An RSA key of so many bits; by default a P-256 key.
            more: Further extensions; with one of names, give neither `names` nor `addresses`.
        """
        now = datetime.now(UTC)
        until = now + timedelta(days=days)
        begin = not_before or min(now, until) - timedelta(days=10)
        key: PrivateKey = (
            ec.generate_private_key(ec.SECP256R1())
            if rsa_bits is None
            else rsa.generate_private_key(public_exponent=65537, key_size=rsa_bits)
        )
        builder = _builder(_name(name), self._name, key, begin, until)
        alternatives = [*map(x509.DNSName, names), *(x509.IPAddress(ip_address(each)) for each in addresses)]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([_USAGES[client]]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return self._written(_file_name(name), certificate, key)

    def _written(self, name: str, certificate: x509.Certificate, key: PrivateKey) -> Issued:
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        issued = Issued(*(self._directory / f"{name}.{ending}" for ending in ("crt", "key", "pem")))
        for path, content in ((issued.cert, pem), (issued.key, secret), (issued.both, secret + pem)):
            path.write_bytes(content)
        return issued


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "-" for c in name.lower())
