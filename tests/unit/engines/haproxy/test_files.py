from dataclasses import replace
from pathlib import Path

import pytest

from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories
from equipoise.engines.haproxy.artifact import SYSTEM_CA_VARIABLE, Artifact, Bundle, Page
from equipoise.engines.haproxy.files import Files, listening
from equipoise.plan.model import Endpoint


@pytest.fixture
def files(directory: Path) -> Files:
    made = Files(Directories(directory, directory))
    made.create()
    return made


def bundle(directory: Path, name: str, *parts: bytes) -> Bundle:
    paths = []
    for number, part in enumerate(parts):
        path = directory / f"{name}-{number}"
        path.write_bytes(part)
        paths.append(str(path))
    return Bundle(f"certs/{name}.pem", tuple(paths), ("services", "web", "tls", "cert"))


def test_a_bundle_is_its_parts_for_the_owner_alone(files: Files, directory: Path) -> None:
    artifact = Artifact(bundles=(bundle(directory, "one", b"cert", b"key\n\n"),), pages=(Page("503.http", b"sorry"),))
    assert files.write_parts(artifact) == []
    written = files.directory / "certs" / "one.pem"
    assert written.read_bytes() == b"cert\nkey\n"
    assert written.stat().st_mode & 0o777 == 0o600
    assert written.parent.stat().st_mode & 0o777 == 0o700
    assert (files.directory / "503.http").read_bytes() == b"sorry"


def test_what_is_there_is_not_read_again(files: Files, directory: Path) -> None:
    artifact = Artifact(bundles=(bundle(directory, "one", b"cert"),))
    with pytest.raises(EngineError, match=r"services\.web\.tls\.cert: .*gone cannot be read: No such file"):
        files.write_missing(
            replace(artifact, bundles=(Bundle("certs/x", (str(directory / "gone"),), artifact.bundles[0].path),))
        )
    files.write_missing(artifact)
    (directory / "one-0").unlink()
    files.write_missing(artifact)


def test_files_of_two_configurations_stay(files: Files, directory: Path) -> None:
    artifacts = [Artifact(bundles=(bundle(directory, name, b"x"),)) for name in ("one", "two", "three")]
    for artifact in artifacts:
        files.write_parts(artifact)
    files.write_configuration("global\n")
    files.remove_unused(artifacts[1], artifacts[2])
    assert sorted(path.name for path in (files.directory / "certs").iterdir()) == ["three.pem", "two.pem"]
    assert files.configured() == "global\n"
    files.remove_all()
    assert files.configured() is None
    assert files.endpoints() == frozenset()


def test_a_socket_that_is_just_being_bound_is_left_alone(files: Files) -> None:
    draft = files.master_socket.with_name(f"{files.master_socket.name}.4711.tmp")
    draft.touch()
    files.remove_unused(Artifact())
    assert draft.exists()


def test_where_a_configuration_listens() -> None:
    text = "frontend web\n  bind 10.0.0.1:80 transparent\n  bind [::1]:443 v6only ssl crt x.pem\n  bind-process all\n"
    assert set(listening(text)) == {Endpoint("10.0.0.1", 80), Endpoint("::1", 443)}


def test_a_long_log_is_cut_where_a_line_begins(files: Files) -> None:
    files.log.write_bytes(b"".join(b"line %d\n" % number for number in range(500_000)))
    files.trim_log()
    lines = files.log.read_text().splitlines()
    assert lines[-1] == "line 499999"
    assert lines[0].startswith("line 49")
    assert files.log_end() < 70_000
    before = files.log_end()
    files.trim_log()
    assert files.log_end() == before
    assert files.log_since(before) == []


def test_a_file_that_cannot_be_written_is_said(files: Files) -> None:
    files.configuration.mkdir()
    with pytest.raises(EngineError, match=r"haproxy\.cfg cannot be written: .*; make room"):
        files.write_configuration("x")


def test_haproxy_is_told_which_authorities_this_machine_trusts(files: Files) -> None:
    """One from a wheel would look where the machine that built it had them."""
    assert Path(files.environment()[SYSTEM_CA_VARIABLE]).exists()
