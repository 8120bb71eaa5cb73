"""`equipoise doctor` beside a real balancer: its own ports are good, also when its supervisor is gone."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from equipoise.sim.ports import free_port
from tests.system.balancer import Balancer, eventually

SITE = """\
site: here
services:
  ct:
    protocol: dicom
    listen: 127.0.0.1:{port}
    nodes:
      a: {{address: '127.0.0.1:{node}', max_connections: 10}}
"""


def doctor(environment: dict[str, str], *words: str, prefix: tuple[str, ...] = ()) -> dict[str, list[dict[str, Any]]]:
    command = [*prefix, sys.executable, "-m", "equipoise", "doctor", "--json", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in {0, 2}, done.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for each in json.loads(done.stdout):
        found.setdefault(each["item"], []).append(each)
    return found


def test_a_running_balancer_and_what_is_left_of_it() -> None:
    site = SITE.format(port=free_port(), node=free_port())
    with Balancer(site) as balancer:
        found = doctor(balancer.environment)
        assert "as the running balancer serves it" in found["site"][0]["seen"]
        assert [each["level"] for each in found["ports"]] == ["ok"]
        assert "held by the running balancer" in found["ports"][0]["seen"]
        assert "for the running balancer" in found["open files"][0]["seen"]

        balancer.kill_supervisor()
        found = eventually(lambda: _orphaned(doctor(balancer.environment, str(balancer.site))))
        assert "1 engine(s)" in found["supervisor"][0]["seen"]
        assert [each["level"] for each in found["ports"]] == ["ok"]
        balancer.start()


def _orphaned(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]] | None:
    return found if found["supervisor"][0]["level"] == "problem" else None


@pytest.mark.root("becomes nobody")
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become somebody else")
def test_somebody_without_rights_hears_which_one_is_missing() -> None:
    nobody = pwd.getpwnam("nobody")
    prefix = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
    with tempfile.TemporaryDirectory(dir="/tmp") as readable_by_all:
        home = Path(readable_by_all)
        home.chmod(0o755)
        site = home / "site.yaml"
        site.write_text(SITE.format(port=104, node=free_port()))
        environment = {**os.environ, "EQUIPOISE_STATE_DIR": f"{home}/state", "EQUIPOISE_RUNTIME_DIR": f"{home}/run"}
        found = doctor(environment, str(site), prefix=prefix)
    assert found["state directory"][0]["level"] == "warning"
    assert f"{home}/state cannot be made for nobody" in found["state directory"][0]["seen"]
    assert "127.0.0.1:104: nobody lacks CAP_NET_BIND_SERVICE" in found["rights"][0]["seen"]
    assert "ports" not in found
