"""What stands in a rendered configuration, and where it comes from."""

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from equipoise.engines.haproxy.artifact import Artifact, Line, ServerLine
from equipoise.engines.haproxy.render import render
from equipoise.plan.model import Endpoint, Plan
from tests.unit.engines.haproxy.rendered import plan_of, text_of

NODES = "nodes: {a: {address: 10.0.0.11:80}, b: {address: 10.0.0.12:80}}"
WEB = f"web:\n  protocol: http\n  listen: 10.0.0.1\n  {NODES}\n"
SECURED = (
    f"web:\n  protocol: https\n  listen: 10.0.0.1\n  tls: {{cert: /c.pem, key: /k.pem, client_ca: /ca.pem}}\n  {NODES}"
)


def lines_with(artifact: Artifact, start: str) -> list[Line | ServerLine]:
    return [line for line in artifact.lines if line.text.strip().startswith(start)]


def test_nothing_where_nobody_needs_it() -> None:
    artifact = render(plan_of("ct: {protocol: dicom, listen: 10.0.0.1, nodes: {a: {address: 10.0.0.2}}}"))
    assert artifact == Artifact()
    assert not artifact


def test_the_same_plan_gives_the_same_bytes() -> None:
    assert text_of(render(plan_of(WEB))) == text_of(render(plan_of(WEB)))
    assert render(plan_of(WEB)) == render(plan_of(WEB))


def test_what_the_runner_needs_to_know() -> None:
    artifact = render(plan_of(WEB.replace("10.0.0.11", "gone.example"), {"gone.example": None}))
    (pool,) = artifact.pools
    assert (pool.service, pool.nodes, pool.table, pool.cut) == ("web", {"b": 1}, "web", False)
    assert artifact.listen == (Endpoint("10.0.0.1", 80),)
    (line,) = (line for line in artifact.lines if isinstance(line, ServerLine))
    assert (line.key, line.weight, line.path) == ("web/b", 100, ("services", "web", "nodes", "b", "address"))
    assert " id 1 " in line.text


@pytest.mark.parametrize(
    ("start", "path"),
    [
        ("bind", "listen"),
        ("timeout http-request", "timeouts.request"),
        ("timeout http-keep-alive", "timeouts.idle"),
        ("timeout client", "timeouts.stall"),
        ("timeout connect", "timeouts.connect"),
        ("timeout server", "timeouts.response"),
        ("timeout tunnel", "timeouts.tunnel"),
        ("timeout queue", "queue_wait"),
        ("balance", "balance"),
        ("cookie", "persistence"),
        ("default-server check", "health"),
    ],
)
def test_a_line_knows_the_keys_that_it_comes_from(start: str, path: str) -> None:
    (line,) = lines_with(render(plan_of(WEB)), start)
    assert line.path == ("services", "web", *path.split("."))


def test_requests_are_never_logged() -> None:
    assert not re.search(r"^\s*(log|option \w*log|capture|unique-id)", text_of(render(plan_of(WEB))), re.MULTILINE)


def test_a_line_holds_only_so_many_words() -> None:
    """HAProxy takes 64 words and 2 kB; networks are many."""
    many = ", ".join(f"10.{number}.0.0/16" for number in range(200))
    plan = plan_of(WEB + f"  allow_from: [{many}]\n  http: {{trust_forwarded: [{many}, '2001:db8::/32']}}\n")
    assert max(len(line.text.split()) for line in render(plan).lines) < 64
    assert max(len(line.text) for line in render(plan).lines) < 1500
    (line,) = lines_with(render(plan), "acl allowed_4 src 10.7.0.0/16")
    assert line.path == ("services", "web", "allow_from", "7")


def test_timers_are_none_that_haproxy_would_not_take() -> None:
    text = text_of(render(plan_of(WEB + "  timeouts: {response: 366d, connect: 0.001ms, idle: 1500ms}\n")))
    assert {"timeout server 24d", "timeout connect 1ms", "timeout http-keep-alive 1500ms"} <= set(
        map(str.strip, text.splitlines())
    )


def test_certificates_change_their_names_with_what_they_hold() -> None:
    plan = plan_of(SECURED)
    first = render(plan)
    tls = plan.services[0].tls
    assert tls is not None
    changed = replace(plan.services[0], tls=replace(tls, fingerprint="0123456789ab"))
    second = render(replace(plan, services=(changed,)))
    assert [bundle.parts for bundle in first.bundles] == [("/c.pem", "/k.pem"), ("/ca.pem",)]
    assert [bundle.path[2:] for bundle in first.bundles] == [("tls", "cert"), ("tls", "client_ca")]
    assert [bundle.name for bundle in second.bundles] == [
        "certs/web-0-0123456789ab.pem",
        "certs/web-client-ca-0123456789ab.pem",
    ]
    assert first.digest != second.digest
    for bundle in second.bundles:
        assert bundle.name.removeprefix("certs/") in text_of(second)


def test_a_path_of_the_document_stands_nowhere_in_the_file() -> None:
    text = text_of(render(plan_of(SECURED.replace("/c.pem", "'/etc/a \"b\" ${HOME} # c.pem'"))))
    assert "HOME" not in text


def cookies(plan: Plan) -> list[str]:
    return [line.text.split()[6] for line in lines_with(render(plan), "server ")]


def test_a_node_is_called_the_same_on_every_balancer() -> None:
    """The value stands in browsers: whoever takes over must know it, and so must the next version."""
    assert cookies(plan_of(WEB)) == ["c7dff4606018", "cf3d17af21cc"]


def test_two_cookies_never_meet() -> None:
    other = WEB + WEB.replace("web:", "other:").replace("10.0.0.1\n", "10.0.0.2\n")
    assert len(set(cookies(plan_of(other)))) == 4


@pytest.mark.parametrize(
    ("tls", "http", "secure"),
    [
        ("{cert: /c.pem}", "{}", True),
        ("{cert: /c.pem, ports: 443}", "{}", False),
        ("{cert: /c.pem, ports: 443}", "{redirect_to_https: true}", True),
    ],
)
def test_a_cookie_is_secure_where_browsers_come_by_tls(tls: str, http: str, secure: bool) -> None:
    text = f"web:\n  protocol: https\n  listen: 10.0.0.1\n  ports: [80, 443]\n  tls: {tls}\n  http: {http}\n  {NODES}"
    (line,) = lines_with(render(plan_of(text)), "cookie")
    assert (" secure " in line.text) == secure


def test_a_node_without_a_port_is_checked_where_clients_come() -> None:
    for health, port in (("", 80), ("  health: {check: tcp, port: 8080}\n", 8080)):
        plan = plan_of(f"{WEB.replace('10.0.0.11:80', '10.0.0.11')}{health}")
        portless, other = lines_with(render(plan), "server ")
        assert f" 10.0.0.11 id 1 check port {port}" in portless.text
        assert "check port" not in other.text


@pytest.mark.parametrize(
    ("balance", "grows"),
    [("round_robin", True), ("least_connections", True), ("source_hash", False), ("first_up", False)],
)
def test_a_returning_node_grows_where_that_moves_nobody(balance: str, grows: bool) -> None:
    (line,) = lines_with(render(plan_of(f"{WEB}  balance: {balance}\n  slow_start: 7s\n")), "default-server check")
    assert ("slowstart 7s" in line.text) == grows


def page(protocol: str, status: int) -> tuple[list[str], bytes]:
    """Return the head and the body of an answer."""
    text = WEB.replace("protocol: http", f"protocol: {protocol}").replace("10.0.0.1\n", "10.0.0.1:80\n")
    artifact = render(plan_of(text))
    (content,) = (page.content for page in artifact.pages if page.name == f"pages/web-{status}.http")
    head, _, body = content.partition(b"\r\n\r\n")
    return head.decode().split("\r\n"), body


@pytest.mark.parametrize("protocol", ["http", "dicomweb", "fhir", "xds"])
@pytest.mark.parametrize("status", [400, 408, 502, 503, 504])
def test_pages_are_whole(protocol: str, status: int) -> None:
    head, body = page(protocol, status)
    assert head[0].startswith(f"HTTP/1.1 {status} ")
    assert f"Content-Length: {len(body)}" in head
    assert "Cache-Control: no-store" in head
    assert ("Retry-After: 10" in head) == (status == 503)
    assert "{" not in re.sub(r"<style>.*</style>", "", body.decode()) or protocol == "fhir"


def test_a_page_is_in_the_language_of_its_clients() -> None:
    assert json.loads(page("fhir", 503)[1])["issue"][0]["code"] == "transient"
    fault = ElementTree.fromstring(page("xds", 503)[1])
    assert fault.findtext(".//{http://www.w3.org/2003/05/soap-envelope}Value") == "env:Receiver"
    assert page("dicomweb", 503)[1].startswith(b"No server of web can answer right now.")
    assert b"<script" not in page("http", 503)[1]


def test_services_that_are_not_read_answer_nothing() -> None:
    artifact = render(plan_of(f"web: {{protocol: tcp, listen: '10.0.0.1:80', {NODES}}}"))
    assert artifact.pages == ()
    assert "http" not in text_of(artifact).partition("frontend")[2]


def test_services_of_other_engines_leave_no_trace() -> None:
    both = plan_of(f"{WEB}ct: {{protocol: dicom, listen: 10.0.0.1, nodes: {{a: {{address: 10.0.0.2}}}}}}\n")
    assert render(both) == render(plan_of(WEB))


def test_by_a_hash_who_leaves_moves_no_client_of_the_others() -> None:
    both = WEB + "  balance: source_hash\n"
    one = both.replace("a: {address: 10.0.0.11:80}, ", "")
    assert render(plan_of(both)).pools[0].nodes["b"] == render(plan_of(one)).pools[0].nodes["b"]
    assert len(set(render(plan_of(both)).pools[0].nodes.values())) == 2
    ordered = both.replace("source_hash", "first_up")
    assert render(plan_of(ordered)).pools[0].nodes == {"a": 1, "b": 2}


def test_no_regular_expression_is_in_it() -> None:
    """Under systemd's MemoryDenyWriteExecute HAProxy of Debian cannot compile one, and would not start."""
    trusting = WEB + "  http: {trust_forwarded: [10.0.0.0/8]}\n"
    for document in (WEB, SECURED, trusting, WEB.replace("http", "xds")):
        assert not re.search(r" -m reg|_reg |regsub", text_of(render(plan_of(document))))
