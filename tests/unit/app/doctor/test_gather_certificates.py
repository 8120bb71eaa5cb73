"""Files as OpenSSL writes them: good, of somebody else, missing, about to expire."""

import subprocess
from pathlib import Path

import pytest

from equipoise.app.doctor.gather_certificates import gather_certificates
from equipoise.app.doctor.judge_certificates import judge_certificates
from equipoise.base.clock import SystemClock
from tests.unit.app.doctor.healthy import SITE, plan


def made(directory: Path, name: str, days: int = 90) -> tuple[Path, Path]:
    """Return a certificate and its key."""
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}.example", "-days", str(days)]
    subprocess.run([*command, "-out", cert, "-keyout", key], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return made(tmp_path, "pacs")


def said(tls: str) -> list[tuple[str, str, str]]:
    site = plan(SITE.replace("    source_address", f"    {tls}\n    source_address"))
    findings = judge_certificates(gather_certificates(site), SystemClock().wall())
    return [(each.item, each.level.value, each.seen) for each in findings]


def test_a_good_pair_and_its_authority(pair: tuple[Path, Path]) -> None:
    cert, key = pair
    found = said(f"tls: {{cert: {cert}, key: {key}, client_ca: {cert}}}")
    assert [each[:2] for each in found] == [("certificate", "ok"), ("key", "ok"), ("authorities", "ok")]
    assert "pacs.example, until 20" in found[0][2]


def test_a_key_that_everybody_may_read(pair: tuple[Path, Path]) -> None:
    cert, key = pair
    key.chmod(0o644)
    assert ("key", "problem") in [each[:2] for each in said(f"tls: {{cert: {cert}, key: {key}}}")]
    cert.write_text(key.read_text() + cert.read_text())
    cert.chmod(0o644)
    assert ("key", "problem") in [each[:2] for each in said(f"tls: {{cert: {cert}}}")]


def test_the_key_of_another_certificate(pair: tuple[Path, Path], tmp_path: Path) -> None:
    cert, _ = pair
    _, other = made(tmp_path, "other")
    found = said(f"tls: {{cert: {cert}, key: {other}}}")
    assert [each for each in found if each[1] == "problem"]
    assert "does not belong" in found[-1][2] + found[0][2]


def test_nodes_that_are_called_with_a_certificate_that_soon_ends(tmp_path: Path) -> None:
    cert, key = made(tmp_path, "soon", days=29)
    found = said(f"node_tls: {{cert: {cert}, key: {key}, ca: {tmp_path / 'none.pem'}}}")
    assert [each[:2] for each in found] == [("certificate", "warning"), ("key", "ok"), ("authorities", "problem")]
    assert "expires in 28 days" in found[0][2]


def test_a_file_that_two_services_name_is_said_once(pair: tuple[Path, Path]) -> None:
    cert, key = pair
    text = SITE.replace("    source_address", f"    tls: {{cert: {cert}, key: {key}}}\n    source_address")
    second = text.partition("services:\n")[2].replace("  ct:", "  mr:").replace("[104, 11112]", "[2762]")
    assert [file.path for file in gather_certificates(plan(text + second))] == [str(cert), str(key)]
