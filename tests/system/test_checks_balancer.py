"""Each check through a whole balancer: a node is up while what is asked of it answers, and down when that dies."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from equipoise.sim.ports import free_port
from tests.system import dcmtk
from tests.system.balancer import Balancer
from tests.system.certificates import Authority
from tests.system.files import named
from tests.system.worklist import wlmscpfs

INTERVAL = "interval: 200ms, rise: 1, fall: 2"


def site(health: str, port: int, more: str = "") -> str:
    return f"""\
site: checks
services:
  pacs:
    protocol: dicom
    listen: 127.0.0.1:{free_port()}
    health: {{{health}, {INTERVAL}}}
    nodes: {{a: {{address: 127.0.0.1:{port}}}}}
{more}"""


def reason(balancer: Balancer) -> str:
    return str(balancer.status("pacs")["nodes"]["a"]["check"]["reason"])


class _Viewer(ThreadingHTTPServer):
    """A page that says whether the database is there."""

    database = "up"


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Viewer)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"database {self.server.database}".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name that the base class gives it
        """Say nothing."""


@contextmanager
def viewer(context: ssl.SSLContext | None = None) -> Iterator[_Viewer]:
    with _Viewer(("127.0.0.1", 0), _Page) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:  # else it would go on for ever where a test fails, and the test run with it
            server.shutdown()
            thread.join()


def test_dicom_find_of_an_archive_whose_index_dies(tmp_path: Path) -> None:
    with dcmtk.dcmqrscp(free_port(), tmp_path, "PACS") as archive:
        path = str(named("CT_small.dcm")[0].path)
        assert dcmtk.run("storescu", "-aec", "PACS", "127.0.0.1", str(archive.port), path).returncode == 0
        with Balancer(site("check: dicom_find, called_ae: PACS", archive.port)) as balancer:
            balancer.wait_state("pacs", "a", "up")
            # There is a study, and it is not found.
            assert reason(balancer) == "C-FIND (study) answered 0000, nothing found, as it must be"
            index = tmp_path / "db" / "index.dat"
            index.rename(tmp_path / "kept")
            index.mkdir()
            balancer.wait_state("pacs", "a", "down")
            assert reason(balancer).startswith("C-FIND-RQ answered with A-ABORT by the service user")
            index.rmdir()
            (tmp_path / "kept").rename(index)
            balancer.wait_state("pacs", "a", "up")


class _Archive:
    """pynetdicom's server, with a database that can be lost: C-ECHO does not notice."""

    def __init__(self) -> None:
        self.status = 0x0000
        self.asked: list[Any] = []

    def find(self, event: Any) -> Iterator[tuple[int, None]]:
        self.asked.append(event.identifier)
        yield self.status, None

    @contextmanager
    def listening(self) -> Iterator[int]:
        entity = AE(ae_title="PACS")
        for context in (StudyRootQueryRetrieveInformationModelFind, Verification):
            entity.add_supported_context(context)
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, self.find)])
        yield server.server_address[1]
        server.shutdown()


def test_dicom_find_sees_a_database_that_c_echo_does_not() -> None:
    archive = _Archive()
    with archive.listening() as port, Balancer(site("check: dicom_find, called_ae: PACS", port)) as balancer:
        balancer.wait_state("pacs", "a", "up")
        archive.status = 0xC001
        balancer.wait_state("pacs", "a", "down")
        assert reason(balancer).startswith("C-FIND (study) answered C001, unable to process")
        assert balancer.cli("probe", "dicom_echo", f"127.0.0.1:{port}", "--called-ae", "PACS").returncode == 0
        archive.status = 0x0000
        balancer.wait_state("pacs", "a", "up")
    assert {(one.QueryRetrieveLevel, one.StudyInstanceUID[:5]) for one in archive.asked} == {("STUDY", "2.25.")}


def test_dicom_find_of_a_worklist(tmp_path: Path) -> None:
    with wlmscpfs(tmp_path) as worklist:
        text = site("check: dicom_find, model: worklist, called_ae: PACS", worklist.port)
        with Balancer(text) as balancer:
            balancer.wait_state("pacs", "a", "up")
            assert reason(balancer) == "C-FIND (worklist) answered 0000, nothing found, as it must be"
            worklist.kill()
            balancer.wait_state("pacs", "a", "down")
            worklist.start()
            balancer.wait_state("pacs", "a", "up")


def test_http_sees_what_the_page_says() -> None:
    with viewer() as server:
        text = site("check: http, method: GET, path: /health, body: database up", server.server_port)
        with Balancer(text) as balancer:
            balancer.wait_state("pacs", "a", "up")
            server.database = "down"
            balancer.wait_state("pacs", "a", "down")
            assert reason(balancer).startswith("GET /health answered 200, but without 'database up'")
            server.database = "up"
            balancer.wait_state("pacs", "a", "up")


def test_tls_and_http_over_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("viewer.example").both)
    checks = "[{check: tls, min_days: 3}, {check: http, method: GET, status: 200}]"
    with viewer(context) as server:
        text = site(
            f"check: all_of, checks: {checks}", server.server_port, f"    node_tls: {{ca: {authority.ca_file}}}\n"
        )
        with Balancer(text) as balancer:
            balancer.wait_state("pacs", "a", "up")
            assert reason(balancer).startswith("tls: TLSv1.3, ")
            assert reason(balancer).endswith("29 days left; http: GET / answered 200")
            context.load_cert_chain(authority.issue("viewer.example", days=1).both)
            balancer.wait_state("pacs", "a", "down")
            assert "less than a day left, fewer than min_days, 3" in reason(balancer)


def test_a_script_decides_and_is_told_who_asks(tmp_path: Path) -> None:
    program = tmp_path / "check"
    program.write_text(f'#!/bin/sh\necho "$@"\ntest -e {tmp_path}/well\n')
    program.chmod(0o755)
    (tmp_path / "well").touch()
    text = site(f"check: script, program: {program}", 104)
    listen = next(line for line in text.splitlines() if "listen" in line).partition(": ")[2]
    with Balancer(text) as balancer:
        balancer.wait_state("pacs", "a", "up")
        said = f"it said: {listen.replace(':', ' ')} 127.0.0.1 104"
        assert reason(balancer) == f"{program} ended with 0; {said}"
        (tmp_path / "well").unlink()
        balancer.wait_state("pacs", "a", "down")
        assert reason(balancer) == f"{program} ended with 1, 0 is up; {said}"
        program.chmod(0o644)


@pytest.mark.parametrize("lines", [("sleep 60",), ("trap '' TERM", "yes"), ("sleep 60 &", "exit 1")])
def test_a_script_that_misbehaves_takes_its_node_down_and_nothing_else(tmp_path: Path, lines: tuple[str, ...]) -> None:
    program = tmp_path / "check"
    program.write_text("\n".join(("#!/bin/sh", *lines, "")))
    program.chmod(0o755)
    with viewer() as server:
        text = site(f"check: script, program: {program}, timeout: 5s", 104)
        text = text.replace(INTERVAL, "interval: 500ms, rise: 1, fall: 1")  # a busy machine is not quick to start it
        text += f"""\
  other:
    protocol: dicom
    listen: 127.0.0.1:{free_port()}
    health: {{check: http, method: GET, {INTERVAL}}}
    nodes: {{a: {{address: 127.0.0.1:{server.server_port}}}}}
"""
        with Balancer(text) as balancer:
            balancer.wait_state("pacs", "a", "down", 30)
            balancer.wait_state("other", "a", "up")
            took = balancer.status("other")["nodes"]["a"]["check"]["took_ms"]
            assert took < 2500  # of those 5 s that the script is given
            assert balancer.events("task.") == []
