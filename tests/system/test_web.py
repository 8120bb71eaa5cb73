"""What becomes of requests on their way through the balancer: where they go, what is added, what is left alone.

Bad requests: `test_web_bad_input.py`; TLS: `test_web_tls.py`; nodes that come and go: `test_web_nodes.py`.
"""

import hashlib
import json
import random
import xml.etree.ElementTree as ET
from collections import Counter
from http.cookies import SimpleCookie
from pathlib import Path

import httpx
import pytest

from tests.system.stage import Served
from tests.system.web import CLOSE, Reply, WebNode, pages
from tests.system.web_client import RawWeb, client, curl
from tests.system.web_stage import WebStage, with_either_haproxy

CLIENT, ANOTHER = "127.0.0.5", "127.0.0.6"  # callers on other machines, as far as a server can tell
FORGED = "203.0.113.9"  # RFC 5737: nobody's
IHE = "urn:ihe:iti:2007:"


# Who asked


@with_either_haproxy
def test_nodes_are_told_who_asked_for_which_host_and_how(stage: WebStage, a: WebNode) -> None:
    served = stage.serve({"a": a.port})
    with client(served.port, source=CLIENT) as web:
        assert web.get("/studies", headers={"Host": "portal.example:8080"}).status_code == 200
    (arrived,) = a.arrived
    assert arrived.one("host") == "portal.example:8080"
    assert arrived.one("x-forwarded-for") == CLIENT
    assert arrived.one("x-forwarded-proto") == "http"
    assert arrived.one("x-forwarded-host") == "portal.example:8080"
    said = forwarded(arrived.one("forwarded"))
    assert (said["for"], said["proto"]) == (CLIENT, "http")
    assert said.get("host", "portal.example:8080") == "portal.example:8080"
    assert '"' not in arrived.one("forwarded")  # Orthanc would have it in its links


@pytest.mark.parametrize("name", ["X-Forwarded-For", "x-forwarded-for", "X-FORWARDED-FOR"])
def test_what_strangers_say_of_themselves_is_replaced(stage: WebStage, a: WebNode, name: str) -> None:
    served = stage.serve({"a": a.port}, http={"trust_forwarded": f"{ANOTHER}/32"})
    forged = [
        *[(name, FORGED)] * 3,
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example"),
        ("Forwarded", f"for={FORGED};host=evil.example;proto=https"),
        ("Forwarded", f"for={FORGED}"),
    ]
    with client(served.port, source=CLIENT) as web:
        assert web.get("/", headers=httpx.Headers(forged)).status_code == 200
    (arrived,) = a.arrived
    assert arrived.one("x-forwarded-for") == CLIENT
    assert arrived.one("x-forwarded-proto") == "http"
    assert arrived.one("x-forwarded-host") == arrived.one("host")
    assert forwarded(arrived.one("forwarded"))["for"] == CLIENT
    assert FORGED.encode() not in a.raw()
    assert b"evil.example" not in a.raw()


@with_either_haproxy
def test_a_proxy_that_is_trusted_is_believed(stage: WebStage, a: WebNode) -> None:
    served = stage.serve({"a": a.port}, http={"trust_forwarded": f"{CLIENT}/32"})
    said = {"X-Forwarded-For": FORGED, "X-Forwarded-Proto": "https", "X-Forwarded-Host": "portal.example"}
    with client(served.port, source=CLIENT) as web:
        assert web.get("/", headers=said).status_code == 200
    (arrived,) = a.arrived
    assert arrived.one("x-forwarded-for") == FORGED
    assert forwarded(arrived.one("forwarded"))["for"] == FORGED
    assert arrived.one("x-forwarded-proto") == "https"
    assert arrived.one("x-forwarded-host") == "portal.example"


# Cookies


@with_either_haproxy
def test_a_browser_keeps_its_node_by_a_cookie(stage: WebStage, a: WebNode, b: WebNode) -> None:
    served = stage.serve({"a": a.port, "b": b.port}, balance="round_robin")
    nodes = set()
    for number in range(20, 30):
        with client(served.port, source=f"127.0.0.{number}") as web:
            first = web.get("/")
            cookie = SimpleCookie(first.headers["set-cookie"])["EQUIPOISE"]
            assert (cookie["httponly"], cookie["samesite"].lower(), cookie["secure"]) == (True, "lax", "")
            assert {web.get("/").headers["x-node"] for _ in range(4)} == {first.headers["x-node"]}
            nodes.add(first.headers["x-node"])
    assert nodes == {"a", "b"}


def test_a_cookie_counts_more_than_the_address(stage: WebStage, a: WebNode, b: WebNode) -> None:
    """A browser that is carried from one network to another stays where its session is."""
    served = stage.serve({"a": a.port, "b": b.port}, balance="round_robin")
    with client(served.port, source=CLIENT) as web:
        first = web.get("/")
    cookie = first.headers["set-cookie"].partition(";")[0]
    for number in range(40, 44):
        with client(served.port, source=f"127.0.0.{number}") as web:
            assert web.get("/", headers={"Cookie": cookie}).headers["x-node"] == first.headers["x-node"]


def test_a_client_without_cookies_is_known_by_its_address(stage: WebStage, a: WebNode, b: WebNode) -> None:
    served = stage.serve({"a": a.port, "b": b.port}, balance="round_robin")
    nodes = {number: {asked(served, f"127.0.0.{number}") for _ in range(4)} for number in range(50, 58)}
    assert all(len(found) == 1 for found in nodes.values()), nodes
    assert set.union(*nodes.values()) == {"a", "b"}


def test_without_a_fallback_clients_without_cookies_go_anywhere(stage: WebStage, a: WebNode, b: WebNode) -> None:
    kept = {"by": "cookie", "fallback": "none"}
    served = stage.serve({"a": a.port, "b": b.port}, balance="round_robin", persistence=kept)
    assert Counter(asked(served, CLIENT) for _ in range(6)) == {"a": 3, "b": 3}


def test_only_our_cookie_is_taken_out_on_the_way_to_nodes(stage: WebStage, a: WebNode) -> None:
    kept = {"by": "cookie", "cookie": "PORTAL", "same_site": "strict"}
    served = stage.serve({"a": a.port}, persistence=kept)
    with client(served.port) as web:
        first = web.get("/")
        assert first.headers["set-cookie"].startswith("PORTAL=")
        assert "samesite=strict" in first.headers["set-cookie"].lower()
        ours = first.headers["set-cookie"].partition(";")[0]
        web.cookies.clear()
        web.get("/", headers={"Cookie": f"SESSION=17; {ours}; LANGUAGE=en"})
    whole = a.arrived[1].one("cookie")
    assert "PORTAL" not in whole
    assert {"SESSION=17", "LANGUAGE=en"} <= {part.strip() for part in whole.split(";")}


def test_a_cookie_of_a_node_that_left_the_configuration_is_replaced(stage: WebStage, a: WebNode, b: WebNode) -> None:
    service = stage.service({"a": a.port, "b": b.port})
    assert stage.apply({"portal": service}).status_code == 200
    served = Served(stage.balancer, "portal", int(service["listen"].rpartition(":")[2]))
    with client(served.port) as web:
        first = web.get("/")
    cookie = {"Cookie": first.headers["set-cookie"].partition(";")[0]}
    del service["nodes"]["a"]
    assert stage.apply({"portal": service}).status_code == 200
    with client(served.port, source=CLIENT) as web:
        moved = web.get("/", headers=cookie)
        assert (first.headers["x-node"], moved.status_code, moved.headers["x-node"]) == ("a", 200, "b")
        assert "EQUIPOISE=" in moved.headers["set-cookie"]
        assert web.get("/").headers["x-node"] == "b"


# Nodes that fail a request


@pytest.mark.parametrize(
    ("protocol", "method", "headers", "is_safe"),
    [
        ("http", "GET", {}, True),
        ("http", "HEAD", {}, True),
        ("http", "POST", {}, False),
        ("dicomweb", "GET", {"Accept": "application/dicom+json"}, True),
        ("dicomweb", "POST", {"Content-Type": 'multipart/related; type="application/dicom"; boundary=X'}, False),
        ("fhir", "GET", {}, True),
        ("fhir", "POST", {"Content-Type": "application/fhir+json"}, False),
        ("xds", "POST", {"Content-Type": f'application/soap+xml; action="{IHE}RegistryStoredQuery"'}, True),
        ("xds", "POST", {"Content-Type": f'multipart/related; action="{IHE}RetrieveDocumentSet"'}, True),
        (
            "xds",
            "POST",
            {"Content-Type": f'multipart/related; action="{IHE}ProvideAndRegisterDocumentSet-b"'},
            False,
        ),
        ("xds", "POST", {"Content-Type": f'application/soap+xml; action="{IHE}RegisterDocumentSet-b"'}, False),
    ],
)
def test_a_request_that_got_no_answer_is_asked_again_only_where_that_is_safe(
    stage: WebStage, a: WebNode, b: WebNode, protocol: str, method: str, headers: dict[str, str], is_safe: bool
) -> None:
    a.answer = lambda arrived: CLOSE
    served = stage.serve({"a": a.port, "b": b.port}, protocol=protocol)
    body = b"<Envelope/>" if method == "POST" else b""
    with client(served.port) as web:
        answer = web.request(method, "/ask", headers=headers, content=body)
    assert len(a.arrived) == 1
    if is_safe:
        assert (answer.status_code, answer.headers["x-node"], b.arrived[0].body) == (200, "b", body)
    else:
        assert (answer.status_code, b.arrived) == (502, [])


@pytest.mark.parametrize("protocol", ["http", "dicomweb", "xds", "fhir"])
def test_a_request_that_never_reached_a_node_goes_to_another_one(
    stage: WebStage, a: WebNode, b: WebNode, protocol: str
) -> None:
    served = stage.serve({"a": a.port, "b": b.port}, protocol=protocol)
    a.stop()
    with client(served.port) as web:
        answer = web.post("/studies", content=b"x" * 100_000)
    assert (answer.status_code, answer.headers["x-node"]) == (200, "b")
    assert b.arrived[0].body == b"x" * 100_000


@pytest.mark.parametrize("protocol", ["http", "dicomweb", "xds", "fhir"])
def test_when_no_node_is_left_clients_are_told_when_to_come_again(stage: WebStage, a: WebNode, protocol: str) -> None:
    served = stage.serve({"a": a.port}, protocol=protocol, http={"retry_after": "7s"})
    served.operate("disable", "a")
    with client(served.port) as web:
        answer = web.get("/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert answer.headers["cache-control"] == "no-store" or "no-cache" in answer.headers["cache-control"]
    kind, page = answer.headers["content-type"].partition(";")[0], answer.text
    if protocol == "http":
        assert kind == "text/html"
        assert page.lower().startswith("<!doctype html>")
    elif protocol == "fhir":
        assert kind == "application/fhir+json"
        assert json.loads(page)["resourceType"] == "OperationOutcome"
    elif protocol == "xds":
        assert kind == "application/soap+xml"
        assert ET.fromstring(page).tag == "{http://www.w3.org/2003/05/soap-envelope}Envelope"
    else:
        assert kind in ("application/json", "text/plain")
    served.operate("enable", "a")
    with client(served.port) as web:
        assert web.get("/").status_code == 200


# What is in a request is left alone


@with_either_haproxy
def test_bodies_and_answers_are_what_they_were(stage: WebStage, a: WebNode) -> None:
    """MTOM: XOP boundaries and WS-Security signatures hold for the bytes as they are."""
    body = mtom(random.Random(5).randbytes(700_000))
    answered = random.Random(6).randbytes(900_000)
    kind = (
        f'multipart/related; boundary="b5"; type="application/xop+xml"; start="<0>"; action="{IHE}RetrieveDocumentSet"'
    )
    a.answer = pages({"/repository": Reply(200, answered, (("Content-Type", kind),))})
    served = stage.serve({"a": a.port}, protocol="xds")
    with client(served.port) as web:
        answer = web.post("/repository", content=body, headers={"Content-Type": kind})
        assert answer.content == answered
        assert answer.headers["content-type"] == kind
        chunked = web.post("/repository", content=iter([body[:1000], body[1000:]]), headers={"Content-Type": kind})
        assert chunked.content == answered
    for arrived in a.arrived:
        assert arrived.sha256 == hashlib.sha256(body).hexdigest()
        assert arrived.one("content-type") == kind


def test_paths_queries_and_long_headers_are_what_they_were(stage: WebStage, a: WebNode) -> None:
    served = stage.serve({"a": a.port}, protocol="dicomweb")
    target = "/studies;v=1/1.2.3/series?PatientName=D%C3%B6%2a&00080020=20200101-20201231&x=%2F..%2F//a"
    token = "t" * 12_000  # a Kerberos ticket of a member of many groups
    with RawWeb(served.port) as raw:
        raw.send(f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Negotiate {token}\r\n\r\n".encode())
        assert raw.answer().status == 200
    assert a.arrived[0].target == target
    assert a.arrived[0].one("authorization") == f"Negotiate {token}"


def test_a_large_upload_streams_through(stage: WebStage, a: WebNode, tmp_path: Path) -> None:
    study = tmp_path / "study"
    size = 200 << 20
    with study.open("wb") as file:
        file.truncate(size)
    served = stage.serve({"a": a.port}, protocol="dicomweb")
    curl(f"http://127.0.0.1:{served.port}/warm-up", "-o", tmp_path / "first")
    before_kib = stage.peak_kib()
    curl("-T", study, f"http://127.0.0.1:{served.port}/studies", "-o", tmp_path / "second")
    assert a.arrived[-1].body_bytes == size
    assert stage.peak_kib() - before_kib < 8 << 10


def test_connections_are_kept_on_both_sides(stage: WebStage, a: WebNode) -> None:
    served = stage.serve({"a": a.port})
    with client(served.port) as web:
        for _ in range(50):
            assert web.get("/").status_code == 200
    assert len(a.arrived) == 50
    assert a.spoken() <= 3


@with_either_haproxy
def test_a_websocket_goes_through(stage: WebStage, a: WebNode, b: WebNode) -> None:
    served = stage.serve({"a": a.port, "b": b.port})
    with RawWeb(served.port) as raw:
        raw.send(
            b"GET /live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        answer = raw.answer()
        assert answer.status == 101
        assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
        for text in (b"Hello", b"again"):
            raw.send(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)
            assert raw.sock.recv(100) == bytes([0x81, len(text)]) + text
    assert a.arrived[0].one("x-forwarded-for") == "127.0.0.1"


def asked(served: Served, source: str) -> str:
    answer = answer_to(served, source)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-node"])


def answer_to(served: Served, source: str) -> httpx.Response:
    with client(served.port, source=source) as web:
        return web.get("/")


def forwarded(value: str) -> dict[str, str]:
    """Return the pairs of one element of Forwarded (RFC 7239 section 4)."""
    pairs = (pair.partition("=") for pair in value.split(";"))
    return {name.strip().lower(): text.strip().strip('"') for name, _, text in pairs}


def mtom(document: bytes) -> bytes:
    """Return a message with an attachment, whose boundary stands in the attachment's bytes nearly, too."""
    return (
        b"--b5\r\nContent-Type: application/xop+xml\r\nContent-ID: <0>\r\n\r\n<Envelope/>\r\n"
        b"--b5\r\nContent-Type: application/octet-stream\r\nContent-ID: <1>\r\n\r\n"
        + document
        + b"\r\n--b4\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n--b5--\r\n"
    )
