import os
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from equipoise.base.errors import EquipoiseError
from equipoise.cluster.identity import (
    fingerprint_in,
    own_file,
    own_identity,
    peer_file,
    remove_peer,
    secured,
    store_peer,
)
from equipoise.engines.haproxy.program import find_program
from tests.unit.cluster.two_machines import SetClock, machine, pair

PEERS = """
global
  log stdout format raw local0
peers pair
  bind 127.0.0.1:{port} ssl crt {own} ca-file {peer} verify required
  default-server ssl crt {own} ca-file {peer} verify required
  server here
  server there 127.0.0.1:{other}
backend table
  stick-table type ip size 1k peers pair
"""


def test_a_machine_makes_up_who_it_is_once(tmp_path: Path) -> None:
    clock = SetClock()
    first = own_identity(tmp_path, "10.0.0.2", clock)
    assert first.file == tmp_path / "cluster" / "own.pem"
    assert stat.S_IMODE(first.file.stat().st_mode) == 0o600
    assert own_identity(tmp_path, "10.0.0.3", clock) == first
    assert b"PRIVATE" in first.file.read_bytes()
    assert "PRIVATE" not in first.certificate


def test_what_stands_in_the_certificate(tmp_path: Path) -> None:
    clock = SetClock()
    identity = own_identity(tmp_path, "2001:db8::2", clock)
    certificate = x509.load_pem_x509_certificate(identity.certificate.encode())
    now = datetime.fromtimestamp(clock.wall(), UTC)
    assert certificate.not_valid_before_utc == now - timedelta(days=7)
    assert certificate.not_valid_after_utc > now + timedelta(days=19 * 366)
    assert certificate.subject.rfc4514_string() == certificate.issuer.rfc4514_string() == "CN=equipoise"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("2001:db8::2")]
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    key = load_pem_private_key(identity.file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    certificate.verify_directly_issued_by(certificate)


def test_openssl_takes_it_strictly(tmp_path: Path) -> None:
    """Python 3.13 and others ask for all of RFC 5280."""
    first, second = pair(tmp_path, SetClock(datetime.now(UTC).timestamp()))
    for purpose in ("sslserver", "sslclient"):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", first.secured.peer]
        done = subprocess.run([*command, second.secured.own], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_two_machines_are_secured_when_both_files_are_there(tmp_path: Path) -> None:
    first, second = machine(tmp_path / "first"), machine(tmp_path / "second")
    assert secured(first.state) is None
    first.trusts(second)
    found = secured(first.state)
    assert found is not None
    assert (found.own, found.peer) == (str(own_file(first.state)), str(peer_file(first.state)))
    assert len(found.fingerprint) == 64
    assert fingerprint_in(peer_file(first.state)) == second.identity.fingerprint
    first.trusts(machine(tmp_path / "third"))
    assert first.secured.fingerprint != found.fingerprint
    remove_peer(first.state)
    remove_peer(first.state)
    assert secured(first.state) is None


def test_a_machine_is_not_its_own_peer(tmp_path: Path) -> None:
    first = machine(tmp_path)
    with pytest.raises(EquipoiseError, match="cannot be its own peer"):
        store_peer(first.state, first.identity.certificate)
    assert secured(first.state) is None


@pytest.mark.parametrize(
    "sent", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\ud800"]
)
def test_what_is_no_certificate_is_not_stored(tmp_path: Path, sent: str) -> None:
    with pytest.raises(EquipoiseError, match="join"):
        store_peer(tmp_path, sent)
    assert not peer_file(tmp_path).exists()


def test_only_one_certificate_of_a_bounded_size_is_stored(tmp_path: Path) -> None:
    first, second = machine(tmp_path / "first"), machine(tmp_path / "second")
    with pytest.raises(EquipoiseError, match="holds 2 certificates"):
        store_peer(first.state, second.identity.certificate * 2)
    with pytest.raises(EquipoiseError, match="bytes"):
        store_peer(first.state, second.identity.certificate + "#" * 20_000)


@pytest.mark.parametrize("file", ["own.pem", "peer.crt"])
@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path, file: str, content: str) -> None:
    first, _ = pair(tmp_path)
    path = first.state / "cluster" / file
    path.write_text(content)
    with pytest.raises(EquipoiseError, match=rf"{path}.*equipoise cluster join"):
        secured(first.state)


def test_a_key_that_belongs_to_another_certificate_is_found(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    _, _, key = second.identity.file.read_text().partition("-----END CERTIFICATE-----\n")
    own = first.identity.file
    own.write_text(first.identity.certificate + key)
    with pytest.raises(EquipoiseError, match="do not belong together"):
        secured(first.state)
    own.write_text(first.identity.certificate)
    with pytest.raises(EquipoiseError, match=f"{own} holds no private key"):
        own_identity(first.state, "10.0.0.2", SetClock())


def test_a_state_directory_that_takes_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "cluster").write_text("in the way")
    with pytest.raises(EquipoiseError, match="EQUIPOISE_STATE_DIR"):
        own_identity(tmp_path, "10.0.0.2", SetClock())


def test_haproxy_uses_the_same_files_for_its_peers(tmp_path: Path) -> None:
    first, _ = pair(tmp_path, SetClock(datetime.now(UTC).timestamp()))
    file = tmp_path / "haproxy.cfg"
    file.write_text(PEERS.format(own=first.secured.own, peer=first.secured.peer, port=11252, other=11253))
    program = find_program(os.environ).path
    command = [program, "-c", "-L", "here", "-f", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    first.identity.file.write_text(first.identity.certificate)
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0, "it does read them"
