"""`doctor` on this machine: what it is depends on the machine, how it says it does not."""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise.app.document import DocumentStore
from equipoise.app.wiring import catalogue
from equipoise.base.clock import SystemClock
from equipoise.config.loading import load
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.sim.ports import free_port
from tests.unit.api.running import RunningApi

Equipoise = Callable[..., Any]

SITE = """\
site: general-hospital
services:
  ct:
    protocol: dicom
    listen: 127.0.0.1:{port}
    nodes:
      a: {{address: '127.0.0.2:104', max_connections: 10}}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(SITE.format(port=free_port()))
    return path


def findings(result: Any) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(result.stdout)
    assert result.exit_code == (2 if any(each["level"] != "ok" for each in found) else 0)
    assert all(bool(each["do"]) == (each["level"] != "ok") for each in found)
    return found


def test_a_site(equipoise: Equipoise, site: Path) -> None:
    began = time.monotonic()
    found = findings(equipoise("doctor", str(site), "--json"))
    assert time.monotonic() - began < 10
    assert {"site", "clock", "python", "openssl", "disk", "ports", "open files"} <= {each["item"] for each in found}
    assert [each["level"] for each in found if each["item"] in {"ports", "addresses", "open files"}] == ["ok"] * 3


def test_a_port_that_is_taken_is_a_problem_with_a_way_out(equipoise: Equipoise, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        site = tmp_path / "site.yaml"
        site.write_text(SITE.format(port=port))
        result = equipoise("doctor", str(site))
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("X  ports")]
    assert f"127.0.0.1:{port}: another program has the port" in lines[at]
    assert "-> find it with `ss -ltnp" in lines[at + 1]
    assert "problem(s)" in lines[-1]


def test_without_a_site_the_machine_alone_is_looked_at(equipoise: Equipoise, places: Path) -> None:
    found = findings(equipoise("doctor", "--json"))
    assert "machine alone" in found[0]["seen"]
    assert "open files" not in {each["item"] for each in found}
    assert list((places / "state").iterdir()) == list((places / "run").iterdir()) == [], "nothing was changed"


def test_what_the_running_supervisor_applied(equipoise: Equipoise, places: Path, api: RunningApi, site: Path) -> None:
    document = load(site.read_text().replace("127.0.0.1", "10.0.0.100"), "site.yaml", catalogue())
    plan = compile_plan(document.site, HostFacts())
    DocumentStore(site, places / "state", SystemClock()).keep_plan(plan)
    found = {each["item"]: each for each in findings(equipoise("doctor", "--json"))}
    assert found["site"]["seen"] == "general-hospital, as the running balancer serves it"
    assert "process 4711" in found["supervisor"]["seen"]
    assert found["addresses"]["level"] == "warning"
    (places / "state" / "plan.json").write_text("{")
    assert {each["item"]: each for each in findings(equipoise("doctor", "--json"))}["site"]["level"] == "warning"


def test_a_bad_file_cannot_be_examined(equipoise: Equipoise, site: Path) -> None:
    site.write_text(site.read_text().replace("listen:", "lissen:"))
    result = equipoise("doctor", str(site))
    assert result.exit_code == 1
    assert f"{site}:5:" in result.stderr
    assert equipoise("doctor", str(site.parent / "none.yaml")).exit_code == 1
