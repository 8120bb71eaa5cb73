"""What real programs propose, caught on the wire, and the words that routes read in it.

The table in docs/explanation/routes.md says what this test says.
"""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest
from pydicom import dcmread

from equipoise.engines.gateway.routing import words_of
from equipoise.proto.dicom.association import AssociateRequest, parse_request
from equipoise.proto.dicom.pdu import REJECT_NO_REASON
from equipoise.sim.ports import free_port
from tests.playbook.scene import route
from tests.system.dcmtk import BIN, dcmqrscp, run
from tests.unit.engines.test_routing import pool

CT = Path(str(files("pydicom"))) / "data/test_files/CT_small.dcm"
KEYS = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2")
PATIENCE_S = 30


class Catcher:
    """A listener that keeps the first request it gets, and rejects it."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.port: int = listener.getsockname()[1]
        self._bodies: list[bytes] = []
        self._thread = threading.Thread(target=self._catch, daemon=True)
        self._thread.start()

    def request(self) -> AssociateRequest:
        self._thread.join(PATIENCE_S)
        (body,) = self._bodies
        return parse_request(body)

    def _catch(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as stream:
            header = stream.read(6)
            self._bodies.append(stream.read(int.from_bytes(header[2:6], "big")))
            connection.sendall(REJECT_NO_REASON.encode())
            stream.read(1)


@contextmanager
def catching() -> Iterator[Catcher]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        yield Catcher(listener)


def caught(program: str, *arguments: str) -> AssociateRequest:
    """Return what a program of DCMTK, or `pynetdicom-…`, asks for."""
    kit, _, app = program.rpartition("-")
    command = [sys.executable, "-m", "pynetdicom", app] if kit else [str(BIN / program)]
    if not kit and not Path(command[0]).exists():
        pytest.skip(f"{program} of DCMTK is not installed")
    with catching() as catcher:
        subprocess.run(
            [*command, "127.0.0.1", str(catcher.port), *arguments], capture_output=True, timeout=60, check=False
        )
        return catcher.request()


@pytest.mark.parametrize(
    ("program", "arguments", "words"),
    [
        ("echoscu", (), ""),
        ("findscu", ("-P", *KEYS), "query"),
        ("findscu", ("-S", *KEYS), "query"),
        ("findscu", ("-O", *KEYS), "query"),
        ("findscu", ("-W", "-k", "PatientID=X"), "worklist"),
        ("movescu", ("-S", *KEYS), "query retrieve"),
        ("movescu", ("-P", *KEYS), "query retrieve"),
        ("getscu", ("-S", *KEYS), "retrieve"),
        ("getscu", ("-P", *KEYS), "retrieve"),
        ("pynetdicom-echoscu", (), ""),
        ("pynetdicom-findscu", KEYS, "query retrieve worklist"),
        ("pynetdicom-movescu", KEYS, "query retrieve"),
        ("pynetdicom-getscu", KEYS, "retrieve"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:1]),
)
def test_what_a_program_asks_for(program: str, arguments: tuple[str, ...], words: str) -> None:
    assert words_of(caught(program, *arguments).proposal) == set(words.split())


@pytest.mark.parametrize("program", ["storescu", "pynetdicom-storescu"])
def test_a_sender_of_objects_stores(program: str) -> None:
    request = caught(program, str(CT))
    assert words_of(request.proposal) == {"store"}
    assert len(request.contexts) > 100


def test_a_retrieval_goes_where_routes_send_retrievals_though_it_proposes_to_receive() -> None:
    routes = [route("vna", service="store"), route("pacs", service=("query", "retrieve"))]
    for program in ("getscu", "pynetdicom-getscu"):
        assert pool(routes, caught(program, *(("-S",) if program == "getscu" else ()), *KEYS)) == "pacs"


def test_a_mover_needs_query_and_retrieve_in_one_pool() -> None:
    request = caught("movescu", "-S", *KEYS)
    assert pool([route("a", service="query"), route("b", service="retrieve")], request) is None
    assert pool([route("a", service="query"), route("a", service="retrieve")], request) == "a"


def test_an_archive_that_moves_stores_at_the_destination(tmp_path: Path) -> None:
    """The association that dcmqrscp opens for a C-MOVE is a C-STORE like any other."""
    with catching() as catcher, dcmqrscp(free_port(), tmp_path, "QR", {"CATCHER": catcher.port}) as archive:
        at = ("-aec", "QR", "127.0.0.1", str(archive.port))
        assert run("storescu", *at, str(CT)).returncode == 0
        run(
            "movescu",
            "-S",
            "-aem",
            "CATCHER",
            *at,
            *KEYS[:2],
            "-k",
            f"StudyInstanceUID={dcmread(CT, stop_before_pixels=True).StudyInstanceUID}",
        )
        assert words_of(catcher.request().proposal) == {"store"}
