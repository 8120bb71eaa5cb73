"""dcmjs-dimse, of npm, as a client: `npm/client.js`, one process of node for each association.

The package and what it needs are pinned in npm/package-lock.json, without the place they came from, and installed
below build/ by npm when they are first used.  A machine without node and npm skips these tests and says so.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.system.conversation import CALLED, Client, Line, Study

_FOLDER = Path(__file__).parent / "npm"
PACKAGE = _FOLDER / "package.json"
_LOCK = _FOLDER / "package-lock.json"
_INSTALLED = Path(__file__).parents[2] / "build" / "peers"
_SUCCESS, _PENDING = 0x0000, (0xFF00, 0xFF01)


def installed_modules() -> Path:
    """Return the node_modules folder, filled when it is not there; skips the test when npm cannot."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"the peers from npm are not tested: {program} is not installed; apt-get install nodejs npm")
    target = _INSTALLED / f"npm-{hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:12]}"
    if not target.exists():
        _install(target)
    return target / "node_modules"


def _install(target: Path) -> None:
    """Install beside it, then rename: what is there is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        for file in (PACKAGE, _LOCK):
            shutil.copy(file, scratch)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=100, check=False)
        if done.returncode != 0:
            pytest.skip(f"the peers from npm are not tested: npm cannot fetch them: {_first_line(done.stderr)}")
        if not target.exists():
            os.rename(scratch, target)
            os.mkdir(scratch)  # for the temporary directory to remove


def _first_line(said: str) -> str:
    return (said.strip().splitlines() or ["it said nothing"])[0][:300]


class DcmjsClient(Client):
    """dcmjs-dimse; its storage commitment is left out, since its client has no listener."""

    def __init__(self) -> None:
        self._modules = installed_modules()

    def echo(self, line: Line) -> None:
        self._ask(line, operation="echo")

    def store(self, line: Line, study: Study) -> None:
        self._ask(line, operation="store", file=str(study.path))

    def find(self, line: Line, patient_id: str) -> list[str]:
        answer = self._ask(line, operation="find", keys={"PatientID": patient_id, "StudyInstanceUID": ""})
        return [str(each["StudyInstanceUID"]) for each in answer["found"]]

    def move(self, line: Line, study_uid: str, destination: str) -> None:
        self._ask(line, operation="move", study=study_uid, destination=destination)

    def get(self, line: Line, study_uid: str, folder: Path) -> None:
        answer = self._ask(line, operation="get", study=study_uid, folder=str(folder))
        assert len(answer["stored"]) == 1

    def worklist(self, line: Line, station: str) -> list[str]:
        keys = {"AccessionNumber": "", "ScheduledProcedureStepSequence": [{"ScheduledStationAETitle": station}]}
        answer = self._ask(line, operation="worklist", keys=keys)
        return [str(each["AccessionNumber"]) for each in answer["found"]]

    def create(self, line: Line, instance_uid: str, values: Mapping[str, Any]) -> None:
        self._ask(line, operation="create", instance=instance_uid, keys=dict(values))

    def set(self, line: Line, instance_uid: str, values: Mapping[str, Any]) -> None:
        self._ask(line, operation="set", instance=instance_uid, keys=dict(values))

    def _ask(self, line: Line, **job: Any) -> Any:
        tls = {"cert": str(line.tls.cert), "key": str(line.tls.key), "ca": str(line.tls.ca)} if line.tls else None
        whole = {"port": line.port, "tls": tls, "calling": "DCMJS", "called": CALLED, **job}
        command = ["node", str(_FOLDER / "client.js"), json.dumps({**whole, "modules": str(self._modules.parent)})]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        *pending, last = answer["statuses"]
        assert last == _SUCCESS, answer
        assert set(pending) <= set(_PENDING), answer
        return answer
