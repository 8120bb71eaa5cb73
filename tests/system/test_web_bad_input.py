"""What web clients and files do wrong: refused, cleaned or ignored, and nobody else notices.

Forged headers and cookies of nodes that are gone stand in `test_web.py`.
Source: RFC 9112 sections 5.2 (obs-fold), 6.1 to 6.3 (lengths), 11.2 (smuggling); RFC 9113 section 8.2 (HTTP/2).
"""

import json
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import pytest

from equipoise.sim.ports import free_port
from tests.system.balancer import eventually
from tests.system.certificates import Authority
from tests.system.web import WebNode
from tests.system.web_client import RawWeb, client, statuses
from tests.system.web_stage import WebStage

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def node() -> Iterator[WebNode]:
    with WebNode() as node:
        yield node


@dataclass(frozen=True, slots=True)
class Shared:
    """A service for many tests, in plain and in TLS, and its node, which has forgotten what was before."""

    plain: int
    secure: int
    node: WebNode
    tls: ssl.SSLContext


@pytest.fixture(scope="module")
def shared_by_all(authority: Authority) -> Iterator[Shared]:
    """Have a stage that no test changes."""
    plain, secure = free_port(), free_port()
    tls = ssl.create_default_context(cafile=authority.ca_file)
    tls.set_alpn_protocols(["h2"])
    with WebStage() as stage, WebNode() as node:
        stage.serve(
            {"a": node.port},
            protocol="https",
            listen=[f"127.0.0.1:{plain}", f"127.0.0.1:{secure}"],
            tls={"cert": str(authority.issue("portal").both), "ports": [secure]},
        )
        yield Shared(plain, secure, node, tls)


@pytest.fixture
def shared(shared_by_all: Shared) -> Shared:
    shared_by_all.node.forget()
    return shared_by_all


def request(*lines: bytes, body: bytes = b"", method: bytes = b"POST") -> bytes:
    head = (method + b" /public HTTP/1.1", b"Host: x", *lines)
    return b"\r\n".join(head) + b"\r\n\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"
END = b"0\r\n\r\n"
SHAPES = {
    "CL.TE": request(b"Content-Length: 6", CHUNKED, body=END + b"G"),
    "CL.TE, a whole request": request(b"Content-Length: %d" % len(END + SMUGGLED), CHUNKED, body=END + SMUGGLED),
    "TE.CL": request(b"Content-Length: 4", CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
    "TE.CL, the other order": request(
        CHUNKED, b"Content-Length: 4", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    ),
    "TE.TE, one disguised": request(CHUNKED, b"Transfer-Encoding: cow", b"Content-Length: 4", body=END + SMUGGLED),
    "TE of an unknown kind": request(b"Transfer-Encoding: xchunked", b"Content-Length: 4", body=END + SMUGGLED),
    "TE chunked, then another": request(b"Transfer-Encoding: chunked, identity", body=END),
    "TE twice": request(b"Transfer-Encoding: chunked, chunked", body=END + SMUGGLED),
    "TE, a space before the colon": request(b"Transfer-Encoding : chunked", b"Content-Length: 4", body=END),
    "TE, a vertical tab": request(b"Transfer-Encoding:\x0bchunked", b"Content-Length: 5", body=END),
    "TE in HTTP/1.0": b"POST /public HTTP/1.0\r\nHost: x\r\nContent-Length: 5\r\n" + CHUNKED + b"\r\n\r\n" + END,
    "two lengths": request(b"Content-Length: 4", b"Content-Length: 40", body=b"a=b&" + SMUGGLED),
    "two lengths in a line": request(b"Content-Length: 4, 40", body=b"a=b&" + SMUGGLED),
    "the same length twice": request(b"Content-Length: 4", b"Content-Length: 4", body=b"a=b&"),
    "a length with a sign": request(b"Content-Length: +4", body=b"a=b&"),
    "a length below zero": request(b"Content-Length: -1", body=b"a=b&"),
    "a hexadecimal length": request(b"Content-Length: 0x4", body=b"a=b&"),
    "an endless length": request(b"Content-Length: 99999999999999999999999", body=b"a=b&"),
    "no length at all": request(b"Content-Length:", body=b"a=b&"),
    "an endless chunk": request(CHUNKED, body=b"fffffffffffffffff1\r\na=b&\r\n"),
    "a chunk of no number": request(CHUNKED, body=b"xyz\r\na=b&\r\n0\r\n\r\n"),
    "a folded header": request(b"X-Long: one", b" two", b"\tthree", method=b"GET"),
    "a folded length": request(b"Content-Length:", b" 4", body=b"a=b&"),
    "a folded TE": request(b"Transfer-Encoding:", b" chunked", b"Content-Length: 4", body=END + SMUGGLED),
    "NUL in a value": request(b"X-Name: a\x00b", method=b"GET"),
    "NUL at the end": request(b"X-Name: a\x00", method=b"GET"),
    "NUL in a name": request(b"X-\x00Name: a", method=b"GET"),
    "a carriage return in a value": request(b"X-Name: a\rTransfer-Encoding: chunked", method=b"GET"),
    "a line feed alone": b"GET /public HTTP/1.1\nHost: x\nX-Name: a\n\n",
    "a space in a name": request(b"X Name: a", method=b"GET"),
    "no name": request(b": a", method=b"GET"),
    "no colon": request(b"X-Name", method=b"GET"),
    "a header in front": b"GET /public HTTP/1.1\r\n Host: y\r\nHost: x\r\n\r\n",
    "a control character in the path": b"GET /public\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the path": b"GET /public /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    "two hosts": request(b"Host: y", method=b"GET"),
    "another host in the target": b"GET http://evil.example/public HTTP/1.1\r\nHost: x\r\n\r\n",
    "a version of its own": b"GET /public HTTP/1.1x\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /public\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(190),
    "DICOM": bytes.fromhex("0100000000cd00010000") + b"PACS".ljust(16) + bytes(200),
    "nothing but line ends": b"\r\n" * 2000,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_node_gets_one_clean_request_or_none(shared: Shared, shape: str) -> None:
    with RawWeb(shared.plain) as raw:
        raw.send(SHAPES[shape])
        answers = raw.rest(silent_s=0.25) or raw.rest(silent_s=1.5)  # some of these wait for the rest of a body
    eventually(shared.node.settled, what="the node to have read all")
    assert_clean(shared.node, answers)
    with client(shared.plain) as web:
        assert web.get("/others").status_code == 200


def assert_clean(node: WebNode, answers: bytes) -> None:
    """Check what a node got of one request, and what its sender was told."""
    raw = node.raw()
    assert node.unreadable == []
    assert len(node.arrived) <= 1, node.arrived
    assert [target for target in node.targets() if target != "/public"] == []
    assert len(statuses(answers)) <= 1
    if not node.arrived:
        assert all(400 <= status < 500 or status == 501 for status in statuses(answers)), answers
    for arrived in node.arrived:
        assert len(arrived.all("content-length")) + len(arrived.all("transfer-encoding")) <= 1
        assert len(arrived.all("host")) == 1
    head = raw.partition(b"\r\n\r\n")[0]
    assert not {b"\x00"[0], 0x0B} & set(head)
    assert b"\r\n " not in head
    assert b"\r\n\t" not in head
    assert head.count(b"\r") == head.count(b"\n") == head.count(b"\r\n")


@pytest.mark.parametrize(
    "headers",
    [
        [b"X-Long: " + b"x" * 300_000],
        [b"X-%d: 1" % number for number in range(5000)],
        [b"Cookie: a%d=1" % number for number in range(5000)],
    ],
    ids=["long", "many", "many cookies"],
)
def test_headers_may_not_be_endless(shared: Shared, headers: list[bytes]) -> None:
    with RawWeb(shared.plain) as raw:
        with suppress(ConnectionError):
            raw.send(request(*headers, method=b"GET"))
        assert statuses(raw.rest()) in ([], [400], [431])
    assert shared.node.arrived == []


def test_a_path_may_not_be_endless(shared: Shared) -> None:
    with RawWeb(shared.plain) as raw:
        raw.send(b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert statuses(raw.rest()) in ([], [400], [414], [431])
    assert shared.node.arrived == []


def test_slow_headers_end(stage: WebStage, node: WebNode) -> None:
    served = stage.serve({"a": node.port}, timeouts={"request": "1s"})
    began_s = time.monotonic()
    with RawWeb(served.port) as raw:
        threading.Thread(target=drip, args=(raw, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 60), daemon=True).start()
        assert statuses(raw.rest()) == [408]
    assert 0.8 < time.monotonic() - began_s < 8  # to drip it all takes longer
    assert node.arrived == []


def test_a_body_that_stops_ends(stage: WebStage, node: WebNode) -> None:
    """Debian's HAProxy 2.6.12 ends it by `response` alone, a later one by `stall`."""
    served = stage.serve({"a": node.port}, timeouts={"stall": "1s", "response": "2s"})
    began_s = time.monotonic()
    with RawWeb(served.port) as raw:
        raw.send(request(b"Content-Length: 1000", body=b"x" * 500))
        assert statuses(raw.rest()) in ([], [400], [408], [504])
    assert 0.8 < time.monotonic() - began_s < 9  # `rest` gives up after 10 s
    eventually(lambda: node.unfinished == 1, what="the node to see the end of its connection")
    assert node.arrived == []


def test_a_body_that_is_slow_arrives(stage: WebStage, node: WebNode) -> None:
    served = stage.serve({"a": node.port}, timeouts={"request": "500ms", "stall": "3s"})
    with RawWeb(served.port) as raw:
        raw.send(request(b"Content-Length: 24"))
        drip(raw, b"x" * 24, every_s=0.15)  # 3.6 s
        assert raw.answer().status == 200
    assert node.arrived[0].body == b"x" * 24


def test_slow_clients_do_not_keep_others_waiting(stage: WebStage, node: WebNode) -> None:
    served = stage.serve({"a": node.port}, timeouts={"request": "10s"})
    slow = [RawWeb(served.port) for _ in range(200)]
    try:
        for each in slow:
            each.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        began_s = time.monotonic()
        with client(served.port) as web:
            assert web.get("/").status_code == 200
        assert time.monotonic() - began_s < 3  # the slow ones have 10 s
    finally:
        for each in slow:
            each.sock.close()


# HTTP/2


H2_HEADERS = {
    "a line end in a value": [(b"x-name", b"a\r\nTransfer-Encoding: chunked")],
    "a line end in a name": [(b"x-name: a\r\ntransfer-encoding", b"chunked")],
    "a request in a value": [(b"x-name", b"a\r\n\r\n" + SMUGGLED)],
    "TE": [(b"transfer-encoding", b"chunked")],
    "two lengths": [(b"content-length", b"0"), (b"content-length", b"30")],
    "a length that is not so": [(b"content-length", b"30")],
    "NUL": [(b"x-name", b"a\x00b")],
    "upper case": [(b"X-Name", b"a")],
    "connection": [(b"connection", b"x-forwarded-for")],
}


@pytest.mark.parametrize("shape", H2_HEADERS)
def test_a_node_gets_one_clean_request_or_none_of_http_2(shared: Shared, shape: str) -> None:
    with RawWeb(shared.secure, tls=shared.tls) as raw:
        raw.send(h2_request(H2_HEADERS[shape]))
        raw.rest(silent_s=1.0)
    eventually(shared.node.settled, what="the node to have read all")
    assert_clean(shared.node, b"")


def test_the_shape_of_http_2_is_right_where_nothing_else_is_wrong(shared: Shared) -> None:
    with RawWeb(shared.secure, tls=shared.tls) as raw:
        raw.send(h2_request([(b"x-name", b"a")]))
        eventually(lambda: shared.node.arrived, what="the request")
        raw.rest(silent_s=0.25)
    assert [arrived.one("x-name") for arrived in shared.node.arrived] == ["a"]


def h2_request(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return a connection with one request: RFC 9113 section 4.1, RFC 7541 section 6.2.2 (literals, never indexed)."""
    fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/public"), (b":authority", b"x"), *headers]
    block = b"".join(b"\x00" + hpack_text(name) + hpack_text(value) for name, value in fields)
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2_frame(4, 0, 0, b"") + h2_frame(1, 0x05, 1, block)


def h2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def hpack_text(text: bytes) -> bytes:
    assert len(text) < 127
    return bytes([len(text)]) + text


# Files


def test_a_certificate_without_its_key_is_refused(stage: WebStage, node: WebNode, authority: Authority) -> None:
    running = stage.serve({"a": node.port})
    issued = authority.issue("keyless")
    service = stage.service({"a": node.port}, protocol="https", tls={"cert": str(issued.cert)})
    answer = stage.apply({"portal": service})
    assert answer.status_code == 422
    assert "services.portal.tls.cert" in answer.json()["error"]
    with client(running.port) as web:
        assert web.get("/").status_code == 200


def test_a_key_of_another_certificate_is_refused(stage: WebStage, node: WebNode, authority: Authority) -> None:
    one, another = authority.issue("one"), authority.issue("another")
    more = [{"cert": str(one.cert), "key": str(another.key)}]
    service = stage.service({"a": node.port}, protocol="https", tls={"cert": str(one.both), "more_certificates": more})
    answer = stage.apply({"portal": service})
    assert answer.status_code == 422
    assert "services.portal.tls.more_certificates" in answer.json()["error"]


def test_a_certificate_that_has_ended_is_spoken_of(stage: WebStage, node: WebNode, authority: Authority) -> None:
    """It is served: a viewer that warns is better than a portal that is gone."""
    issued = authority.issue("ended", days=-1)
    served = stage.serve({"a": node.port}, protocol="https", tls={"cert": str(issued.both)})
    assert served.status()["tls"]["tls.cert"]["days_left"] < 0
    said = [event for event in stage.balancer.events("certificate.expired") if event["service"] == served.name]
    assert [event["file"] for event in said] == ["tls.cert"]
    with pytest.raises(ssl.SSLCertVerificationError):
        RawWeb(served.port, tls=ssl.create_default_context(cafile=authority.ca_file))


def test_what_haproxy_refuses_changes_nothing_and_names_the_key(tmp_path: Path) -> None:
    """A wrapper has HAProxy mind one line of its configuration; the real one would after an upgrade, say."""
    program = which("haproxy") or "/usr/sbin/haproxy"
    wrapper = tmp_path / "haproxy"
    wrapper.write_text(REFUSING.format(program=program))
    wrapper.chmod(0o755)
    with WebNode("a") as node, WebStage(str(wrapper)) as stage:
        served = stage.serve({"a": node.port})
        master, plan = stage.master(), stage.balancer.get("status")["plan"]
        service = stage.service({"good": node.port, "refused": node.port})
        document = stage.document({"portal": service})
        answer = stage.balancer.post("apply", document=document, force=True)
        assert answer.status_code in (422, 503)
        error = answer.json()["error"]
        assert "services.portal.nodes.refused" in error
        assert "no such keyword here" in error
        line = 1 + next(n for n, text in enumerate(document.splitlines()) if '"refused"' in text)
        assert f":{line}:" in error or f":{line + 1}:" in error, error
        assert (stage.master(), stage.balancer.get("status")["plan"]) == (master, plan)
        assert json.loads(stage.balancer.site.read_text())["services"].keys() == {served.name}
        with client(served.port) as web:
            assert web.get("/").status_code == 200


REFUSING = """#!/usr/bin/env python3
import os, re, sys
paths = [each for each in sys.argv if each.endswith(".cfg")]
if any(re.fullmatch("-[a-zA-Z]*c", each) for each in sys.argv):
    for path in paths:
        for number, line in enumerate(open(path), 1):
            if re.match(r"\\s*server refused\\b", line):
                sys.stderr.write(f"[ALERT]    (7) : config : parsing [{{path}}:{{number}}] : no such keyword here.\\n")
                sys.stderr.write("[ALERT]    (7) : config : Error(s) found in configuration file : " + path + "\\n")
                sys.exit(1)
os.execv("{program}", ["{program}", *sys.argv[1:]])
"""


def drip(raw: RawWeb, data: bytes, every_s: float = 0.2) -> None:
    """Send byte by byte, as long as somebody takes it."""
    for byte in data:
        try:
            raw.send(bytes([byte]))
        except OSError:
            return
        time.sleep(every_s)
