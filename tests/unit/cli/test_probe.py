"""`probe` against real peers: a listening socket, a closed port, DCMTK's storescp."""

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from equipoise.sim.ports import free_port
from tests.system.certificates import Authority
from tests.system.hl7_peers import StreamsReceiver

Equipoise = Callable[..., Any]


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_port_that_listens(equipoise: Equipoise, listening: str) -> None:
    result = equipoise("probe", "tcp", listening, "--timeout", "2s")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"tcp {listening}: passed in ")
    assert "timeout 2s" in result.stdout


def test_a_port_that_is_closed_is_a_finding(equipoise: Equipoise) -> None:
    target = f"127.0.0.1:{free_port()}"
    result = equipoise("probe", "tcp", target, "--json")
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert document.keys() == {"check", "target", "settings", "ok", "reason", "took_ms"}
    assert (document["check"], document["target"], document["ok"]) == ("tcp", target, False)
    assert "refused" in document["reason"].lower()


def test_a_name_that_does_not_resolve_is_a_finding(equipoise: Equipoise) -> None:
    result = equipoise("probe", "tcp", "pacs.invalid:104")
    assert result.exit_code == 2
    assert "FAILED" in result.stdout


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[str]:
    program = shutil.which("storescp")
    if program is None:
        pytest.skip("needs DCMTK's storescp: apt-get install dcmtk")
    port = free_port()
    process = subprocess.Popen([program, "--output-directory", str(tmp_path), str(port)])
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert time.monotonic() < deadline, "storescp does not listen"
            time.sleep(0.05)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


def test_dicom_echo_with_titles(equipoise: Equipoise, storescp: str) -> None:
    result = equipoise("probe", "dicom_echo", storescp, "--calling-ae=CONSOLE", "--called-ae", "PACS", "--json")
    assert result.exit_code == 0, result.stdout + result.stderr
    settings = json.loads(result.stdout)["settings"]
    assert (settings["calling_ae"], settings["called_ae"]) == ("CONSOLE", "PACS")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nonsense", "127.0.0.1:1"), "there is no check 'nonsense'; there are: all_of, dicom_echo"),
        (("tcp", "127.0.0.1"), "not HOST:PORT"),
        (("tcp", "127.0.0.1:x"), "port"),
        (("tcp", "127.0.0.1:1", "--called-ae", "X"), "tcp has no setting --called-ae"),
        (("dicom_echo", "127.0.0.1:1", "--called-ae", "X" * 17), "dicom_echo: --called-ae:"),
        (("dicom_echo", "127.0.0.1:1", "--called-ae"), "--called-ae needs a value"),
        (("tcp", "127.0.0.1:1", "--timeout", "5"), "--timeout"),
        (("tcp", "127.0.0.1:1", "more"), "'more' is no option"),
        (("all_of", "127.0.0.1:1"), "all_of is made of other checks; probe each of them by itself"),
        (("script", "127.0.0.1:1"), "--program: missing"),
        (("hl7_ack", "127.0.0.1:1", "--message", "PID|1"), "hl7_ack: --message: line 1 does not begin with MSH"),
        (("hl7_ack", "127.0.0.1:1", "--codes", "AA,OK"), "--codes: 'OK' is not known"),
        (("http", "127.0.0.1:1", "--status", "999"), "'999' is not a status"),
        (("http", "127.0.0.1:1", "--body", "x"), "http: body: the answer to HEAD has none"),
        (("tls", "127.0.0.1:1", "--tls", "false"), "a check of TLS without TLS sees nothing"),
        (("tls", "127.0.0.1:1", "--verify", "maybe"), "--verify: 'maybe' is not known"),
    ],
)
def test_wrong_use_is_1_in_one_line(equipoise: Equipoise, words: tuple[str, ...], said: str) -> None:
    result = equipoise("probe", *words)
    assert result.exit_code == 1
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_help_lists_the_checks_with_their_settings(equipoise: Equipoise) -> None:
    said = equipoise("probe", "--help").stdout
    assert "dicom_echo: --timeout" in said
    assert "--called-ae" in said


class _Page(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(204 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name that the base class gives it
        """Say nothing."""


@contextmanager
def https(directory: Path) -> Iterator[tuple[int, Path]]:
    """Serve pages over TLS; give the port and the authority's file."""
    authority = Authority(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("viewer.example", names=("viewer.example",), addresses=()).both)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port, authority.ca_file
        finally:
            server.shutdown()
            thread.join()


def test_http_over_tls_with_an_authority_and_a_name(equipoise: Equipoise, tmp_path: Path) -> None:
    with https(tmp_path) as (port, ca):
        target = f"127.0.0.1:{port}"
        words = ("probe", "http", target, "--path", "/health", "--status", "200-204,301", "--tls", "true")
        trusted = equipoise(*words, "--ca", str(ca), "--server-name", "viewer.example")
        named = equipoise(*words, "--ca", str(ca))
        unknown = equipoise(*words, "--server-name", "viewer.example")
        unchecked = equipoise("probe", "http", target, "--verify", "none")
    assert (trusted.exit_code, "HEAD /health answered 204" in trusted.stdout) == (0, True), trusted.stdout
    assert (named.exit_code, "is not for the name or address" in named.stdout) == (2, True), named.stdout
    assert (unknown.exit_code, "authority that is not in" in unknown.stdout) == (2, True), unknown.stdout
    assert (unchecked.exit_code, "HEAD / answered 404" in unchecked.stdout) == (2, True), unchecked.stdout


def test_a_script_by_hand(equipoise: Equipoise) -> None:
    result = equipoise("probe", "script", "10.0.0.11:104", "--program", "/bin/echo", "--arguments", "-v,seen")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0].endswith("/bin/echo ended with 0; it said: -v seen - 0 10.0.0.11 104")


def test_hl7_ack_with_a_message_of_several_lines(equipoise: Equipoise) -> None:
    receiver = StreamsReceiver()
    try:
        message = "MSH|^~\\&|CONSOLE||||||ADT^A08||T|2.5\nPID|||CHECK\n"
        words = ("--message", message, "--codes", "AA,AE", "--frame-start", "0b")
        result = equipoise("probe", "hl7_ack", f"127.0.0.1:{receiver.port}", *words, "--timeout", "20s")
    finally:
        receiver.close()
    assert result.exit_code == 0, result.stdout + result.stderr
    assert ": acknowledged with AA\n" in result.stdout
    assert "codes AA,AE" in result.stdout
    assert len(result.stdout.splitlines()) == 2
    assert receiver.contents[0].endswith(b"\rPID|||CHECK\r")
