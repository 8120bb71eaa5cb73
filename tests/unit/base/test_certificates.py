import os
import ssl
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from equipoise.base.certificates import (
    CertificateFileError,
    ends_s,
    names_in,
    names_of,
    parse_certificates,
    read_certificates,
)
from tests.system.certificates import EDI_PARTY_NAME, Authority, Issued

DAY_S = 86400


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def der(issued: Issued) -> bytes:
    program = ["openssl", "x509", "-in", str(issued.cert), "-outform", "DER"]
    return subprocess.run(program, capture_output=True, check=True).stdout


def test_a_certificate_is_read(authority: Authority) -> None:
    issued = authority.issue("pacs", names=("pacs.example", "*.ct.example"), addresses=("192.0.2.1", "2001:db8::1"))
    (certificate,) = read_certificates(str(issued.both))
    assert certificate.subject == "CN=pacs"
    assert certificate.names == ("pacs.example", "*.ct.example", "192.0.2.1", "2001:db8::1")
    assert certificate.issuer == "CN=Test CA"
    assert not certificate.is_ca
    now = datetime.now(UTC).timestamp()
    assert certificate.not_before_s < now
    assert 29 * DAY_S < certificate.not_after_s - now < 31 * DAY_S
    (signer,) = read_certificates(str(authority.ca_file))
    assert (signer.subject, signer.names, signer.is_ca) == ("CN=Test CA", (), True)


def test_what_cryptography_has_own_exceptions_for_is_said_as_everything_else(authority: Authority) -> None:
    odd = authority.issue("odd", names=(), addresses=(), more=(EDI_PARTY_NAME,))
    with pytest.raises(CertificateFileError, match=r"holds a certificate that cannot be read: .*EDIPartyName"):
        read_certificates(str(odd.cert))
    assert names_of(der(odd)) == "a certificate that cannot be read"
    with pytest.raises(ValueError, match="EDIPartyName"):
        names_in(der(odd))


def test_a_certificate_of_a_version_that_there_is_not(authority: Authority, tmp_path: Path) -> None:
    odd = der(authority.issue("odd")).replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020105"))
    file = tmp_path / "odd.pem"
    file.write_text(ssl.DER_cert_to_PEM_cert(odd))
    with pytest.raises(CertificateFileError, match="damaged"):
        read_certificates(str(file))
    assert names_of(odd) == "a certificate that cannot be read"
    with pytest.raises(ValueError, match="5 is not a valid X509 version"):
        ends_s(odd)


def test_all_certificates_of_a_file_are_read_in_its_order(authority: Authority, tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_bytes(authority.issue("leaf").both.read_bytes() + b"# the authority\n" + authority.ca_file.read_bytes())
    assert [each.subject for each in read_certificates(str(chain))] == ["CN=leaf", "CN=Test CA"]


def test_names_are_one_line(authority: Authority) -> None:
    assert names_of(der(authority.issue("pacs", names=("pacs", "a.example")))) == "pacs, a.example, 127.0.0.1"
    assert names_of(der(authority.issue("Röntgen CT", names=(), addresses=()))) == "Röntgen CT"
    assert names_of(der(authority.issue("two\nlines\x1b[31m", names=(), addresses=()))) == "two?lines?[31m"
    many = names_of(der(authority.issue("many", names=tuple(f"host-{n}.example" for n in range(500)))))
    assert len(many) == 200
    assert many.endswith("…")
    assert names_of(b"\x30\x03nonsense") == "a certificate that cannot be read"


def problem(path: Path) -> str:
    with pytest.raises(CertificateFileError) as error:
        read_certificates(str(path))
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


def test_what_is_wrong_with_a_file_is_said(authority: Authority, tmp_path: Path) -> None:
    issued = authority.issue("wrong")
    file = tmp_path / "file.pem"
    assert "there is no such file" in problem(file)
    assert "is a directory" in problem(tmp_path)
    file.write_bytes(b"\n \n")
    assert "is empty" in problem(file)
    file.write_bytes(b"certificate: yes")
    assert "is not PEM" in problem(file)
    file.write_bytes(der(issued))
    assert "is DER, not PEM; convert it: openssl x509 -inform DER" in problem(file)
    assert "holds no certificate" in problem(issued.key)
    file.write_bytes(issued.cert.read_bytes().replace(b"MII", b"AII", 1))
    assert "is damaged" in problem(file)
    file.write_bytes(issued.cert.read_bytes()[:-40])
    assert "is damaged" in problem(file)
    file.write_bytes(issued.cert.read_bytes() * 3000)
    assert "more than 1 MiB" in problem(file)


def test_pkcs12_is_recognised(authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "pacs.p12"
    issued = authority.issue("pacs")
    program = ["openssl", "pkcs12", "-export", "-in", str(issued.both), "-out", str(file), "-passout", "pass:x"]
    subprocess.run(program, check=True, capture_output=True)
    assert "is PKCS#12, not PEM; convert it: openssl pkcs12" in problem(file)


@pytest.mark.timeout(10)
def test_a_pipe_or_a_device_is_no_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "not a file" in problem(pipe)
    assert "not a file" in problem(Path("/dev/zero"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user who may not read")
def test_a_file_of_another_user_names_ours() -> None:
    program = (
        "import os, sys; sys.path[:] = eval(sys.argv[2]); from equipoise.base import certificates\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: certificates.read_certificates(sys.argv[1])\n"
        "except certificates.CertificateFileError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to other users
        Path(directory).chmod(0o755)
        file = Path(directory) / "secret.pem"
        file.touch(mode=0o600)
        command = [sys.executable, "-c", program, str(file), repr(sys.path)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{file}: the user nobody may not read it" in said


def test_a_certificate_that_is_not_valid_yet(authority: Authority) -> None:
    later = datetime.now(UTC) + timedelta(days=5)
    (certificate,) = read_certificates(str(authority.issue("later", days=60, not_before=later).cert))
    assert abs(certificate.not_before_s - later.timestamp()) < 2


def test_the_setting_is_named() -> None:
    with pytest.raises(CertificateFileError) as error:
        parse_certificates(b"-----BEGIN RSA PRIVATE KEY-----", "ca.pem", "client_ca")
    assert error.value.setting == "client_ca"
