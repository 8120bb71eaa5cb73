"""The simulated portal, asked by the standard library's client, by curl, and byte by byte."""

import hashlib
import http.client
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from equipoise.base.processes import kill, start_ready
from equipoise.sim.portal import Portal
from equipoise.sim.websocket import accept_key, frame
from tests.unit.sim.nodes import RunningNode


@pytest.fixture
def portal() -> Iterator[RunningNode]:
    node = RunningNode(Portal("web-a", {"/health": "allServicesOperative"}).handle)
    yield node
    node.close()


@pytest.fixture
def client(portal: RunningNode) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", portal.port, timeout=10)
    yield connection
    connection.close()


def ask(
    client: http.client.HTTPConnection, method: str, target: str, body: bytes = b"", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    client.request(method, target, body or None, {name.replace("_", "-"): value for name, value in headers.items()})
    response = client.getresponse()
    return response, response.read()


def test_the_page_says_who_served_it_and_what_the_client_looks_like(client: http.client.HTTPConnection) -> None:
    response, page = ask(client, "GET", "/", X_Forwarded_For="192.0.2.7", X_Forwarded_Proto="https", Host="<pacs>")
    assert response.headers["x-served-by"] == "web-a"
    for text in (b"Served by web-a", b"192.0.2.7", b"https", b"&lt;pacs&gt;", b"session none"):
        assert text in page


def test_head_has_the_length_of_the_page_and_no_body(client: http.client.HTTPConnection) -> None:
    whole = len(ask(client, "GET", "/")[1])
    response, nothing = ask(client, "HEAD", "/")
    assert (int(response.headers["content-length"]), nothing) == (whole, b"")


def test_a_session_is_known_to_its_own_node_alone(client: http.client.HTTPConnection) -> None:
    response, _ = ask(client, "POST", "/login", b"user=anna")
    cookie = response.headers["set-cookie"].split(";")[0]
    assert ask(client, "GET", "/", Cookie=cookie)[0].headers["x-session"] == "kept"
    other = RunningNode(Portal("web-b", {}).handle)
    connection = http.client.HTTPConnection("127.0.0.1", other.port, timeout=10)
    response, page = ask(connection, "GET", "/", Cookie=f"EQUIPOISE=x; {cookie}")
    connection.close()
    other.close()
    assert (response.headers["x-session"], b"session lost" in page) == ("lost", True)


@pytest.mark.parametrize("chunked", [False, True])
def test_echo_tells_what_arrived(client: http.client.HTTPConnection, chunked: bool) -> None:
    body = bytes(range(256)) * 20_000
    pieces = (body[start : start + 70_000] for start in range(0, len(body), 70_000))
    client.request("PUT", "/echo?a=1", pieces if chunked else body, {"X-Two": "2"}, encode_chunked=chunked)
    arrived = json.loads(client.getresponse().read())
    assert arrived["body"] == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    assert (arrived["method"], arrived["query"], arrived["version"]) == ("PUT", {"a": "1"}, "1.1")
    assert ["x-two", "2"] in arrived["headers"]


def test_one_connection_serves_many_requests_and_they_are_counted(client: http.client.HTTPConnection) -> None:
    for _ in range(3):
        ask(client, "POST", "/login", b"x" * 100_000)
        ask(client, "POST", "/", b"never read by the page")
    sock = client.sock
    counters = json.loads(ask(client, "GET", "/counters")[1])
    assert client.sock is sock
    assert (counters["POST /login"], counters["POST /"]) == (3, 3)


def test_other_answers(client: http.client.HTTPConnection) -> None:
    assert ask(client, "GET", "/health")[1] == b"allServicesOperative"
    assert ask(client, "GET", "/big?bytes=1234567")[1] == (bytes(range(256)) * 5000)[:1234567]
    assert ask(client, "GET", "/slow?seconds=0.01")[1] == b"at last\n"
    assert ask(client, "GET", "/nothing")[0].status == 404
    assert ask(client, "GET", "/ws")[0].status == 426
    assert ask(client, "GET", "/slow?seconds=soon")[0].status == 400


def read_exactly(sock: socket.socket, length: int) -> bytes:
    held = b""
    while len(held) < length:
        piece = sock.recv(length - len(held))
        assert piece, held
        held += piece
    return held


@pytest.mark.parametrize("length", [5, 126, 70_000])
def test_a_websocket_echoes(portal: RunningNode, length: int) -> None:
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    with socket.create_connection(("127.0.0.1", portal.port), timeout=10) as sock:
        sock.sendall(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: " + key.encode() + b"\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += read_exactly(sock, 1)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert accept_key(key).encode() in head
        echoed = frame(2, b"a" * length)
        header = echoed[:-length]
        mask = bytes((1, 2, 3, 4))
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(b"a" * length))
        sock.sendall(bytes([header[0], header[1] | 0x80]) + header[2:] + mask + masked)
        assert read_exactly(sock, len(echoed)) == echoed
        sock.sendall(bytes([0x88, 0x80, 0, 0, 0, 0]))
        assert read_exactly(sock, 2) == frame(8, b"")


@pytest.mark.parametrize(
    "bad", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: " + b"x" * 70_000]
)
def test_what_is_no_request_is_refused_and_the_node_lives_on(portal: RunningNode, bad: bytes) -> None:
    with socket.create_connection(("127.0.0.1", portal.port), timeout=10) as sock:
        sock.sendall(bad)
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
    connection = http.client.HTTPConnection("127.0.0.1", portal.port, timeout=10)
    assert ask(connection, "GET", "/")[0].status == 200
    connection.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here: apt-get install curl")
def test_curl_waits_for_100_continue_and_is_told(portal: RunningNode, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(b"z" * 3_000_000)
    command = ["curl", "-sSv", "-H", "Expect: 100-continue", "--data-binary", f"@{upload}", f"{portal.url}echo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert "100 Continue" in done.stderr
    assert json.loads(done.stdout)["body"]["bytes"] == 3_000_000


def test_the_program_says_its_port_and_ends_with_its_input(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "equipoise.sim.portal", "--name", "a", "--port", "0", "--end-with-input"]
    process, line = start_ready(command, tmp_path / "log", timeout_s=20)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", json.loads(line)["port"], timeout=10)
        assert ask(connection, "HEAD", "/")[0].headers["x-served-by"] == "a"
        assert process.stdin is not None
        process.stdin.close()  # with a client still connected
        assert process.wait(timeout=10) == 0
        connection.close()
    finally:
        kill(process.pid)
