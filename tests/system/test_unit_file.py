"""The systemd unit: systemd itself takes it, and what the process model stands on is in it."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from equipoise.base.units import parse_duration
from equipoise.config.models import Site

PACKAGING = Path(__file__).parents[2] / "packaging"
UNIT = PACKAGING / "equipoise.service"
LAYER4 = PACKAGING / "equipoise.service.d" / "layer4.conf"
MOST_EXPOSED = 20  # tenths, as systemd-analyze counts; it calls up to 2.0 OK
MOST_EXPOSED_LAYER4 = 21  # with the two rights for layer 4

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here: apt-get install systemd"
)


def service(path: Path = UNIT) -> dict[str, str]:
    """Return the section Service, its keys in lower case; of a key that is written several times, the last."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(path)
    return dict(unit["Service"])


@needs_systemd_analyze
@pytest.mark.parametrize("added", ["", LAYER4.read_text()], ids=["alone", "layer4"])
def test_systemd_takes_the_unit(tmp_path: Path, added: str) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/equipoise/bin/equipoise", "/bin/true") + f"\n{added}")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd_analyze
@pytest.mark.parametrize(("added", "most"), [("", MOST_EXPOSED), (LAYER4.read_text(), MOST_EXPOSED_LAYER4)])
def test_the_unit_is_confined(tmp_path: Path, added: str, most: int) -> None:
    unit = tmp_path / UNIT.name  # systemd reads what is added as if it stood behind the unit
    unit.write_text(f"{UNIT.read_text()}\n{added}")
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={most}", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_gateways_outlive_the_supervisor() -> None:
    """Each of these, left out, would take the gateways along with a supervisor, or leave them without one."""
    assert {
        "killmode": "process",
        "restart": "always",
        "oompolicy": "continue",
        "runtimedirectorypreserve": "yes",
        "execreload": "/bin/kill -HUP $MAINPID",
    }.items() <= service().items()


def test_a_stop_has_time_to_drain() -> None:
    stop_s = parse_duration(service()["timeoutstopsec"].replace("min", "m"))
    assert stop_s > 2 * Site.model_fields["drain_timeout"].default


def test_it_may_bind_port_104_and_nothing_else() -> None:
    assert service()["ambientcapabilities"] == service()["capabilityboundingset"] == "CAP_NET_BIND_SERVICE"


def test_layer_4_adds_its_rights_and_no_others() -> None:
    """The unit's lists and those of the file beside it add up."""
    assert service(LAYER4) == {
        "ambientcapabilities": "CAP_NET_ADMIN CAP_NET_RAW",
        "capabilityboundingset": "CAP_NET_ADMIN CAP_NET_RAW",
        "restrictaddressfamilies": "AF_PACKET",
    }


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not here")
def test_the_user_is_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    conf = PACKAGING / "sysusers.d" / "equipoise.conf"
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", str(conf)], check=True, capture_output=True)
    assert (tmp_path / "etc" / "passwd").read_text().startswith("equipoise:")
