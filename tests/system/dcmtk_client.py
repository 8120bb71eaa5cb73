"""DCMTK's command-line clients.  Leaves out MPPS and storage commitment, for which it has no client."""

from pathlib import Path

from tests.system import dcmtk
from tests.system.conversation import CALLED, Client, Credentials, Line, Study
from tests.system.files import stored


def tls_options(credentials: Credentials | None) -> list[str]:
    """Return the options with which a client or a server of DCMTK speaks TLS and asks for the other's certificate."""
    if credentials is None:
        return []
    return ["+tls", str(credentials.key), str(credentials.cert), "+cf", str(credentials.ca)]


class DcmtkClient(Client):
    """echoscu, storescu, findscu, movescu, getscu."""

    def echo(self, line: Line) -> None:
        _run("echoscu", line)

    def store(self, line: Line, study: Study) -> None:
        _run("storescu", line, "-R", after=[str(study.path)])

    def find(self, line: Line, patient_id: str) -> list[str]:
        keys = ("-k", "StudyInstanceUID", "-k", f"PatientID={patient_id}")
        return _values("StudyInstanceUID", _run("findscu", line, "-S", *_STUDY, *keys))

    def move(self, line: Line, study_uid: str, destination: str) -> None:
        _run("movescu", line, "-S", "-aem", destination, *_STUDY, "-k", f"StudyInstanceUID={study_uid}")

    def get(self, line: Line, study_uid: str, folder: Path) -> None:
        asked = ("-S", "+B", "-od", str(folder), *_STUDY, "-k", f"StudyInstanceUID={study_uid}")
        _run("getscu", line, *asked)
        assert sum(stored(folder).values()) == 1  # its exit code is 0 also when nothing came

    def worklist(self, line: Line, station: str) -> list[str]:
        step = f"ScheduledProcedureStepSequence[0].ScheduledStationAETitle={station}"
        return _values("AccessionNumber", _run("findscu", line, "-W", "-k", "AccessionNumber", "-k", step))


_STUDY = ("-k", "QueryRetrieveLevel=STUDY")


def _run(program: str, line: Line, *options: str, after: list[str] | None = None) -> str:
    """Run it with `-v`; return what it said, on either channel."""
    where = ("-v", "-aec", CALLED, *tls_options(line.tls), *options, "127.0.0.1", str(line.port))
    done = dcmtk.run(program, *where, *(after or []))
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def _values(keyword: str, dump: str) -> list[str]:
    """Return the values of an element in a dump; the request has it too, without one.

    A line: `I: (0020,000d) UI [1.2.3 ]   #   6, 1 StudyInstanceUID`.
    """
    lines = [each for each in dump.splitlines() if each.endswith(keyword) and "[" in each]
    return [each.partition("[")[2].partition("]")[0].strip("\0 ") for each in lines]
