"""odil's command line as a client: `echo`, `find`, `get` and `store`; it has no TLS, and no C-MOVE there."""

import re
import subprocess
from pathlib import Path

from tests.system.conversation import CALLED, Client, Line, Study

_PROGRAM = "/usr/bin/odil"


class OdilClient(Client):
    """One process an association."""

    def echo(self, line: Line) -> None:
        _run("echo", line)

    def store(self, line: Line, study: Study) -> None:
        assert _run("store", line, str(study.path)) == ""  # its exit code is 0 also when an object was not stored

    def find(self, line: Line, patient_id: str) -> list[str]:
        said = _run("find", line, "study", "QueryRetrieveLevel=STUDY", f"PatientID={patient_id}", "StudyInstanceUID")
        return re.findall(r"[0-9]+(?:\.[0-9]+){5,}", said)

    def get(self, line: Line, study_uid: str, folder: Path) -> None:
        keys = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study_uid}")
        _run("get", line, "study", *keys, options=("--directory", str(folder)))


def _run(command: str, line: Line, *arguments: str, options: tuple[str, ...] = ()) -> str:
    assert line.tls is None, "odil has no TLS"
    where = ("127.0.0.1", str(line.port), "ODIL", CALLED)
    whole = [_PROGRAM, command, *options, *where, *arguments]
    done = subprocess.run(whole, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
