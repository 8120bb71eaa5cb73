"""What `http` asks and what it takes, against the standard library's server and against bytes."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import ValidationError

from equipoise.base.clock import SystemClock
from equipoise.health.asking import Outcome
from equipoise.health.checks.http import CHECK, Params
from equipoise.health.runner import probe_once
from tests.unit.health.conftest import Run
from tests.unit.health.fake_peer import Script, serving
from tests.unit.health.peers.http import answering, closing, status


class _Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        content = {"/long": b"x" * 200_000, "/late": b"x" * 65_530 + b"database up"}.get(self.path, b"database up\n")
        code = int(self.path[1:]) if self.path[1:].isdigit() else 200
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Version", "4.7 build 3")
        self.send_header("X-Asked", f"{self.command} {self.headers['Host']}")
        if code in (301, 302):
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_OPTIONS(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name that the base class gives it
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as serving_pages:
        thread = threading.Thread(target=serving_pages.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield serving_pages.server_port
        serving_pages.shutdown()
        thread.join()


async def asked(port: int, **settings: Any) -> Outcome:
    params = Params.model_validate({"timeout": 2.0, **settings})
    return await probe_once(CHECK, params, "127.0.0.1", port, SystemClock())


@pytest.mark.parametrize(
    ("settings", "ok", "reason"),
    [
        ({}, True, "HEAD / answered 200"),
        ({"method": "OPTIONS", "path": "/x?y=1"}, True, "OPTIONS /x?y=1 answered 200"),
        ({"path": "/302"}, True, "HEAD /302 answered 302 to /elsewhere"),
        ({"path": "/404", "status": ["200", "404"]}, True, "HEAD /404 answered 404"),
        ({"status": 204}, False, "HEAD / answered 200, expected 204"),
        (
            {"path": "/302", "status": "200-299"},
            False,
            "HEAD /302 answered 302 to /elsewhere, expected 200-299; set health.path, or health.tls, to where it leads",
        ),
        ({"header": "x-version: 4.7"}, True, "HEAD / answered 200"),
        ({"header": "X-Version:"}, True, "HEAD / answered 200"),
        (
            {"header": "X-Version: 4.8"},
            False,
            "HEAD / answered 200, but X-Version is '4.7 build 3', expected '4.8' in it",
        ),
        ({"header": "X-Site: a"}, False, "HEAD / answered 200, but without the header X-Site"),
        ({"header": "X-Asked: HEAD viewer.example", "host": "viewer.example"}, True, "HEAD / answered 200"),
        ({"method": "GET", "body": "database up"}, True, "GET / answered 200"),
        (
            {"method": "GET", "body": "all well"},
            False,
            "GET / answered 200, but without 'all well' in its first 12 bytes of body",
        ),
        (
            {"method": "GET", "path": "/long", "body": "y"},
            False,
            "GET /long answered 200, but without 'y' in its first 65536 bytes of body",
        ),
        (
            {"method": "GET", "path": "/late", "body": "database up"},
            False,
            "GET /late answered 200, but without 'database up' in its first 65536 bytes of body",
        ),
    ],
)
def test_what_is_taken(run: Run, server: int, settings: dict[str, Any], ok: bool, reason: str) -> None:
    outcome = run(asked(server, **settings))
    assert (outcome.ok, outcome.reason) == (ok, reason)


def test_the_request_names_the_node_and_closes(run: Run) -> None:
    async def talk() -> tuple[int, bytes]:
        async with serving(answering(status("200 OK"))) as peer:
            await asked(peer.port)
            await peer.left_alone()
            return peer.port, bytes(peer.heard[0].data)

    port, heard = run(talk())
    lines = heard.decode().split("\r\n")
    assert lines[0] == "HEAD / HTTP/1.1"
    assert {f"Host: 127.0.0.1:{port}", "User-Agent: equipoise", "Connection: close"} <= set(lines)


@pytest.mark.parametrize(
    ("answer", "ok", "said"),
    [
        (status("100 Continue") + status("200 OK", "Content-Length: 4") + b"well", True, "GET / answered 200"),
        (
            status("200 OK", "Transfer-Encoding: chunked") + b"3\r\nwel\r\n1\r\nl\r\n0\r\n\r\n",
            True,
            "GET / answered 200",
        ),
        (
            status("200 OK", "Transfer-Encoding: chunked") + b"3\r\nwel\r\nDOE^JOHN\r\n",
            False,
            "the HTTP answer broke off after 3 bytes of body; the node's log says why",
        ),
        (
            status("200 OK", "Content-Length: 9") + b"w",
            False,
            "the HTTP answer broke off after 1 bytes of body; the node's log says why",
        ),
        (status("200 OK", "X: " + "y" * 300_000), False, "no HTTP answer: "),
        (
            status("302 Moved", "Content-Length: 0", "Location: /a%1b[2J" + "x" * 500),
            False,
            "GET / answered 302 to /a%1b[2Jx",
        ),
    ],
)
def test_what_bytes_mean(run: Run, answer: bytes, ok: bool, said: str) -> None:
    async def talk(script: Script) -> Outcome:
        async with serving(closing(script)) as peer:
            return await asked(peer.port, method="GET", body="well")

    outcome = run(talk(answering(answer)))
    assert outcome.ok == ok
    assert outcome.reason.startswith(said)
    assert outcome.reason.isprintable()
    assert len(outcome.reason) < 400


@pytest.mark.parametrize(
    "settings",
    [
        {"path": "x"},
        {"path": "/x y"},
        {"path": "/x\r\nHost: y"},
        {"host": "a b"},
        {"status": "20"},
        {"status": "299-200"},
        {"status": []},
        {"header": "no colon"},
        {"header": "X: y\r\nZ: 1"},
        {"method": "POST"},
        {"body": "x"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate(settings)
