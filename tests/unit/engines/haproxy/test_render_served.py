"""What rendered configurations do to real requests, with the oldest and the newest HAProxy at hand."""

import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from equipoise.engines.haproxy.states import commands
from equipoise.plan.states import NodeState
from equipoise.sim.ports import free_port
from tests.system.certificates import Authority
from tests.unit.engines.haproxy.rendered import Answer, Node, Running, asked, plan_of, running

QUERY = 'application/soap+xml; charset=UTF-8; action="urn:ihe:iti:2007:RegistryStoredQuery"'
PROVIDE = 'multipart/related; type="application/xop+xml"; action="urn:ihe:iti:2007:ProvideAndRegisterDocumentSet-b"'


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    pair = Node("a"), Node("b")
    yield pair
    for node in pair:
        node.close()


def service(nodes: tuple[Node, ...], rest: str, protocol: str = "http", host: str = "127.0.0.1") -> tuple[str, int]:
    """Return a service with these nodes, and its port."""
    port = free_port(host)
    listen = f"'[{host}]:{port}'" if ":" in host else f"{host}:{port}"
    pool = ", ".join(f"{node.name}: {{address: '127.0.0.1:{node.port}'}}" for node in nodes)
    text = f"web:\n  protocol: {protocol}\n  listen: {listen}\n  nodes: {{{pool}}}\n  slow_start: 0s\n"
    return text + "".join(f"  {line}\n" for line in rest.strip("\n").splitlines()), port


def once(port: int, path: str = "/", method: str = "GET", body: bytes = b"", /, **headers: str) -> Answer:
    source = (headers.pop("source"), 0) if "source" in headers else None
    connection = http.client.HTTPConnection(headers.pop("to", "127.0.0.1"), port, timeout=10, source_address=source)
    try:
        return asked(connection, path, method, body, **headers)
    finally:
        connection.close()


def test_claims_of_a_client_are_replaced(program: str, directory: Path, nodes: tuple[Node, Node]) -> None:
    text, port = service(nodes, "")
    forged = {
        "X__Forwarded__For": "1.2.3.4",
        "X_Forwarded_For": "1.2.3.4",
        "X__Forwarded__Proto": "https",
        "X__Forwarded__Prefix": "/x",
        "X__Real__IP": "1.2.3.4",
        "Forwarded": "for=1.2.3.4",
        "Host": "pacs.example:8080",
    }
    with running(program, directory, plan_of(text)):
        told = once(port, **forged).told
    assert {key: value for key, value in told.items() if "forward" in key or "real" in key} == {
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "pacs.example:8080",
        "x-forwarded-port": str(port),
        "forwarded": "for=127.0.0.1;proto=http",
    }


def test_an_ipv6_client_is_quoted(program: str, directory: Path, nodes: tuple[Node, Node]) -> None:
    text, port = service(nodes, "", host="::1")
    with running(program, directory, plan_of(text)):
        told = once(port, to="::1").told
    assert told["x-forwarded-for"] == "::1"
    assert told["forwarded"] == 'for="[::1]";proto=http'


def test_trusted_proxies_are_believed(program: str, directory: Path, nodes: tuple[Node, Node]) -> None:
    text, port = service(nodes, "http: {trust_forwarded: [127.0.0.0/8, 10.9.0.0/16]}\nallow_from: 127.0.0.1/32")
    with running(program, directory, plan_of(text)):
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        behind = {"X__Forwarded__For": "6.6.6.6, 5.5.5.5, 10.9.1.1, 127.0.0.9", "X__Forwarded__Host": "pacs.example"}
        told = asked(kept, X__Forwarded__Proto="https", **behind).told
        assert told["x-forwarded-for"] == "5.5.5.5"  # 6.6.6.6 is what that client claimed
        assert told["x-forwarded-port"] == "443"
        assert told["forwarded"] == "for=5.5.5.5;proto=https;host=pacs.example"
        told = asked(kept, X__Forwarded__For="2001:db8::7", X__Forwarded__Proto='a";for=9', Host="x").told
        assert told["forwarded"] == 'for="[2001:db8::7]";proto=http;host=x'
        told = asked(kept, Host="x").told  # each request is looked at anew
        assert told["x-forwarded-for"] == "127.0.0.1"


def test_others_are_not(program: str, directory: Path, nodes: tuple[Node, Node]) -> None:
    text, port = service(nodes, "http: {trust_forwarded: 10.9.0.0/16}")
    with running(program, directory, plan_of(text)):
        told = once(port, X__Forwarded__For="10.9.1.1", X__Forwarded__Proto="https").told
    assert (told["x-forwarded-for"], told["x-forwarded-proto"]) == ("127.0.0.1", "http")


def test_who_is_not_allowed_is_turned_away(program: str, directory: Path, nodes: tuple[Node, Node]) -> None:
    text, port = service(nodes, "allow_from: [10.0.0.0/8, '::/0']")
    with running(program, directory, plan_of(text)), pytest.raises((ConnectionError, http.client.BadStatusLine)):
        once(port)


def test_one_client_opens_only_so_many(program: str, directory: Path, nodes: tuple[Node, Node]) -> None:
    text, port = service(nodes, "max_per_source: 2")
    with running(program, directory, plan_of(text)):
        held = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for _ in range(2)]
        assert [asked(each).status for each in held] == [200, 200]
        with pytest.raises((ConnectionError, http.client.BadStatusLine)):
            once(port)


@pytest.mark.parametrize("host", ['a"b', "a b", "a/b", "a\\b", "x" * 300])
def test_a_host_that_cannot_be_quoted(program: str, directory: Path, nodes: tuple[Node, Node], host: str) -> None:
    text, port = service(nodes, "")
    with running(program, directory, plan_of(text)):
        answer = once(port, Host=host)
        assert (answer.status, nodes[0].asked, nodes[1].asked) == (400, [], [])


def test_nobody_left(program: str, directory: Path, nodes: tuple[Node, Node]) -> None:
    """On a connection that is kept: an answer to HEAD with a body would be taken for the next answer."""
    text, port = service(nodes, "http: {retry_after: 2500ms}\ntimeouts: {stall: 5s}")
    gone = {f"web/{name}": NodeState("down", 100) for name in "ab"}
    with running(program, directory, plan_of(text), states=gone):
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        for method in ("HEAD", "GET", "POST"):
            answer = asked(kept, "/", method)
            assert (answer.status, answer.headers["retry-after"]) == (503, "3")
            assert answer.headers["cache-control"] == "no-store"
            assert (b"No server of web can answer" in answer.body) == (method != "HEAD")


def test_a_question_is_asked_again_elsewhere(program: str, directory: Path, nodes: tuple[Node, Node]) -> None:
    text, port = service(nodes, "balance: round_robin\npersistence: {by: none}")
    with running(program, directory, plan_of(text)):
        assert once(port, "/break").status == 502
        assert len(nodes[0].asked) + len(nodes[1].asked) == 3
        assert nodes[0].asked
        assert nodes[1].asked


def test_what_is_stored_is_sent_once(program: str, directory: Path, nodes: tuple[Node, Node]) -> None:
    text, port = service(nodes, "", "dicomweb")
    with running(program, directory, plan_of(text)):
        for method in ("POST", "PUT"):
            assert once(port, "/break", method, b"object").status == 502
    assert sorted(nodes[0].asked + nodes[1].asked) == ["POST /break", "PUT /break"]


def test_documents_are_asked_for_twice_and_provided_once(
    program: str, directory: Path, nodes: tuple[Node, Node]
) -> None:
    text, port = service(nodes, "", "xds")
    with running(program, directory, plan_of(text)):
        once(port, "/break", "POST", b"<x/>", Content__Type=QUERY)
        assert len(nodes[0].asked) + len(nodes[1].asked) == 3
        answer = once(port, "/break", "POST", b"<x/>", Content__Type=PROVIDE)
        assert len(nodes[0].asked) + len(nodes[1].asked) == 4
        assert b"env:Receiver" in answer.body


def test_a_node_that_refuses_is_passed_over_for_all(program: str, directory: Path, nodes: tuple[Node, Node]) -> None:
    text, port = service(nodes, "balance: first_up\npersistence: {by: none}\nhealth: {check: tcp, interval: 1h}")
    with running(program, directory, plan_of(text)):
        nodes[0].close()
        assert once(port, "/", "POST", b"object").node == "b"


def test_an_answer_may_take_longer_than_a_client_may_stall(
    program: str, directory: Path, nodes: tuple[Node, Node]
) -> None:
    text, port = service(nodes, "timeouts: {stall: 500ms, request: 500ms, idle: 500ms, response: 10s}")
    with running(program, directory, plan_of(text)):
        assert once(port, "/slow").status == 200


def cookie_of(answer: Answer) -> str:
    return str(answer.headers["set-cookie"]).partition(";")[0]


def test_a_cookie_leads_back(program: str, directory: Path, nodes: tuple[Node, Node]) -> None:
    text, port = service(nodes, "balance: round_robin\npersistence: {by: cookie, fallback: none}")
    with running(program, directory, plan_of(text)):
        first = once(port)
        assert set(first.headers["set-cookie"].split("; ")[1:]) == {"path=/", "HttpOnly", "SameSite=Lax"}
        again = [once(port, Cookie=f"other=1; {cookie_of(first)}") for _ in range(4)]
        assert {each.node for each in again} == {first.node}
        assert {each.told["cookie"] for each in again} == {"other=1"}  # ours is not the node's business
        gone = once(port, Cookie="EQUIPOISE=000000000000")
        assert (gone.status, "set-cookie" in gone.headers) == (200, True)


def test_without_a_cookie_the_address_leads_back(program: str, directory: Path, nodes: tuple[Node, Node]) -> None:
    text, port = service(nodes, "balance: round_robin\npersistence: {mask: 8}")
    with running(program, directory, plan_of(text)) as haproxy:
        first = once(port)
        assert {once(port).node for _ in range(4)} == {first.node}
        other = "b" if first.node == "a" else "a"
        value = haproxy_cookie(haproxy, other)
        assert once(port, Cookie=f"EQUIPOISE={value}|").node == other  # a cookie comes first


def haproxy_cookie(haproxy: Running, node: str) -> str:
    words = next(line.text for line in haproxy.artifact.lines if line.text.startswith(f"    server {node} ")).split()
    return words[words.index("cookie") + 1]


def change(haproxy: Running, over: frozenset[str] = frozenset(), /, **states: NodeState) -> None:
    """Bring nodes to these states; HAProxy has nothing to say to that."""
    wanted = {f"web/{node}": state for node, state in states.items()}
    assert {haproxy.tell(command) for command in commands(haproxy.pool, wanted, over)} <= {""}


@pytest.mark.parametrize("balance", ["round_robin", "least_connections", "source_hash", "first_up"])
def test_node_states_are_obeyed(program: str, directory: Path, nodes: tuple[Node, Node], balance: str) -> None:
    text, port = service(nodes, f"balance: {balance}")
    with running(program, directory, plan_of(text)) as haproxy:
        held = once(port)
        away, left = held.node, "b" if held.node == "a" else "a"
        change(haproxy, **{away: NodeState("drain", 50), left: NodeState("up", 256)})
        assert once(port).node == left  # its address is forgotten
        assert once(port, Cookie=cookie_of(held)).node == away
        change(haproxy, frozenset({f"web/{away}"}), **{away: NodeState("drain", 50)})
        assert once(port, Cookie=cookie_of(held)).node == left
        change(haproxy, **{away: NodeState("up", 256), left: NodeState("up", 0)})
        change(haproxy, **{left: NodeState("disabled", 0)})
        assert once(port).node == away
        change(haproxy, **{away: NodeState("down", 1)})
        assert once(port).status == 503


def test_a_file_says_drain_as_well(program: str, directory: Path, nodes: tuple[Node, Node]) -> None:
    text, port = service(nodes, "persistence: {by: cookie, fallback: none}")
    with running(program, directory, plan_of(text), states={"web/a": NodeState("drain", 100)}) as haproxy:
        assert {once(port).node for _ in range(4)} == {"b"}
        assert once(port, Cookie=f"EQUIPOISE={haproxy_cookie(haproxy, 'a')}|").node == "a"
        assert haproxy.artifact.digest in haproxy.tell("show info")


def test_two_balancers_send_a_client_to_the_same_node(program: str, directory: Path, nodes: tuple[Node, Node]) -> None:
    """And so does another version of HAProxy: who goes where was the same on 2.6.12 and 2.8.25."""
    text, port = service(nodes, "balance: source_hash\npersistence: {by: none}")
    went = []
    for folder in ("one", "two"):
        (directory / folder).mkdir()
        with running(program, directory / folder, plan_of(text)):
            went.append("".join(once(port, source=f"127.0.0.{number}").node for number in range(1, 25)))
    assert went == ["bbaaaaaaabaabbbaabaaaaba"] * 2


def test_a_node_without_a_port_is_called_where_the_client_came(program: str, directory: Path) -> None:
    with socket.create_server(("127.0.0.2", 0)) as node:
        port = node.getsockname()[1]
        text = f"web: {{protocol: tcp, listen: '127.0.0.1:{port}', nodes: {{a: {{address: 127.0.0.2}}}}}}"
        with running(program, directory, plan_of(text)), socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"to the node")
            while not (got := node.accept()[0].recv(100)):
                pass  # a check, which says nothing
            assert got == b"to the node"


def test_redirect_and_hsts(program: str, directory: Path, nodes: tuple[Node, Node], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours, other = authority.issue("ours"), authority.issue("other", names=("other.example",), addresses=())
    plain, secured = free_port(), free_port()
    text, _ = service(nodes, "")
    text = text.replace("protocol: http", "protocol: https").partition("  listen")[0] + (
        f"  listen: [127.0.0.1, '::1']\n  ports: [{plain}, {secured}]\n"
        f"  nodes: {{a: {{address: '127.0.0.1:{nodes[0].port}'}}}}\n"
        "  http: {redirect_to_https: true, hsts: 1h}\n"
        f"  tls: {{cert: {ours.both}, ports: {secured}, more_certificates: [{{cert: {other.both}}}]}}\n"
    )
    files = {str(each.both): each.both.read_bytes() for each in (ours, other)}
    with running(program, directory, plan_of(text), files):
        for host, shown in (("Pacs.example:8080", "pacs.example"), ("[2001:db8::1]:80", "[2001:db8::1]")):
            answer = once(plain, "/study?id=1&x=%22", "POST", b"x", Host=host)
            assert (answer.status, answer.headers["location"]) == (308, f"https://{shown}:{secured}/study?id=1&x=%22")
            assert "strict-transport-security" not in answer.headers
        trust = ssl.create_default_context(cafile=str(authority.ca_file))
        answer = asked(http.client.HTTPSConnection("localhost", secured, timeout=10, context=trust))
        assert answer.headers["strict-transport-security"] == "max-age=3600"
        assert "Secure" in answer.headers["set-cookie"]
        assert answer.told["x-forwarded-proto"] == "https"
        assert asked(http.client.HTTPSConnection("localhost", secured, context=trust), Host='a"').status == 400
        named = ssl.create_default_context(cafile=str(authority.ca_file))
        named.set_alpn_protocols(["h2"])
        connected = socket.create_connection(("127.0.0.1", secured), timeout=10)
        with named.wrap_socket(connected, server_hostname="other.example") as link:
            assert link.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize(
    ("node_tls", "state", "status"),
    [
        ("server_name: localhost, ca: CA", "UP", 200),
        ("server_name: elsewhere.example, ca: CA", "DOWN", 503),
        ("verify: authority, ca: CA", "UP", 200),
        ("verify: authority, ca: OTHER", "DOWN", 503),
        ("verify: none", "UP", 200),
    ],
)
def test_nodes_show_their_certificate(
    program: str, directory: Path, tmp_path: Path, node_tls: str, state: str, status: int
) -> None:
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("node").both)
    node = Node("a", context)
    said = node_tls.replace("CA", str(authority.ca_file)).replace("OTHER", str(other.ca_file))
    text, port = service((node,), f"node_tls: {{{said}}}\nhealth: {{check: tcp, interval: 1s, fall: 1}}")
    files = {str(each.ca_file): each.ca_file.read_bytes() for each in (authority, other)}
    with running(program, directory, plan_of(text), files) as haproxy:
        haproxy.wait_for("a", "L6OK" if state == "UP" else "L6RSP")
        haproxy.wait_for("a", state)
        assert once(port).status == status
    node.close()


def test_who_has_a_cookie_leads_nobody_else_to_a_draining_node(
    program: str, directory: Path, nodes: tuple[Node, Node]
) -> None:
    """Behind one address of a hospital are many browsers, some of them logged in at the node that drains."""
    text, port = service(nodes, "balance: round_robin")
    with running(program, directory, plan_of(text)) as haproxy:
        change(haproxy, a=NodeState("drain", 100), b=NodeState("up", 100))
        assert {once(port).node for _ in range(3)} == {"b"}
        assert once(port, Cookie=f"EQUIPOISE={haproxy_cookie(haproxy, 'a')}|").node == "a"
        assert {once(port).node for _ in range(3)} == {"b"}


def test_a_tunnel_past_the_rules_is_not_opened(program: str, directory: Path, nodes: tuple[Node, Node]) -> None:
    text, port = service(nodes, "")
    with running(program, directory, plan_of(text)):
        told = once(port, Connection="Upgrade", Upgrade="h2c").told
        assert "upgrade" not in told
        assert once(port, Connection="x-forwarded-for").status == 400
        for start in (
            b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"CONNECT pacs.example:443 HTTP/1.1\r\nHost: pacs.example:443\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
                raw.sendall(start)
                assert raw.recv(1000).split()[1] in (b"400", b"405")
