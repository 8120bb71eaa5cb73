"""Web nodes that come and go, by an operator's word or by themselves, and processes that are killed.

Nobody who asks through the balancer is to notice what can be hidden from him.
"""

import os
import signal
from http.cookies import SimpleCookie

import pytest

from tests.system.balancer import eventually
from tests.system.stage import Served
from tests.system.web import TcpNode, WebNode, slowly
from tests.system.web_client import Crowd, RawWeb, client
from tests.system.web_stage import QUICK, WebStage, with_either_haproxy

SLOW = {"check": "tcp", "interval": "1s", "timeout": "10s", "rise": 1, "fall": 2}


def node_of(served: Served, cookie: str = "", source: str = "127.0.0.1") -> str:
    with client(served.port, source=source) as web:
        answer = web.get("/", headers={"Cookie": cookie} if cookie else {})
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-node"])


def session(served: Served, source: str = "127.0.0.1") -> tuple[str, str]:
    """Log in: return the node and the cookie."""
    with client(served.port, source=source) as web:
        answer = web.get("/login")
    cookie = SimpleCookie(answer.headers["set-cookie"])["EQUIPOISE"]
    return str(answer.headers["x-node"]), f"EQUIPOISE={cookie.value}"


# By an operator's word


@with_either_haproxy
def test_a_drained_node_keeps_its_sessions_until_the_time_is_over(stage: WebStage, a: WebNode, b: WebNode) -> None:
    served = stage.serve({"a": a.port, "b": b.port}, top={"drain_timeout": "5s"})
    node, cookie = session(served)
    assert node == "a"
    served.operate("drain", "a")
    assert node_of(served, source="127.0.0.9") == "b"
    assert node_of(served, cookie, source="127.0.0.8") == "a"
    eventually(lambda: node_of(served, cookie, source="127.0.0.7") == "b", 20, "the session to move")
    assert served.status()["nodes"]["a"]["state"] == "drain"
    served.operate("enable", "a")
    eventually(lambda: node_of(served, source="127.0.0.10") == "a", what="the node to be back")


def test_a_disabled_node_gets_nothing_and_what_is_open_goes_on_to_its_end(
    stage: WebStage, a: WebNode, b: WebNode
) -> None:
    a.answer = slowly(0.5)
    served = stage.serve({"a": a.port, "b": b.port})
    with RawWeb(served.port) as raw:
        raw.send(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: a.arrived, what="the request to arrive")
        served.operate("disable", "a")
        assert node_of(served) == "b"
        answer = raw.answer()
        assert (answer.status, answer.headers["x-node"]) == (200, "a")
    assert served.status()["nodes"]["a"]["state"] == "disabled"
    served.operate("enable", "a")
    a.answer = slowly(0)
    eventually(lambda: node_of(served, source="127.0.0.10") == "a", what="the node to be back")


def test_weights_take_effect_at_once(stage: WebStage, a: WebNode, b: WebNode) -> None:
    served = stage.serve({"a": a.port, "b": b.port}, balance="round_robin", persistence={"by": "none"}, slow_start="0s")
    served.operate("weight", "a", 0)
    assert {node_of(served) for _ in range(6)} == {"b"}
    served.operate("weight", "a", 200)
    found = [node_of(served) for _ in range(30)]
    assert 17 <= found.count("a") <= 23  # 200 beside 100
    assert served.status()["nodes"]["a"]["weight"] == 200


@pytest.mark.parametrize("on_down", ["keep", "cut"])
def test_what_is_open_on_a_node_that_goes_down_is_kept_or_cut(stage: WebStage, on_down: str) -> None:
    """Our own check asks another port, so the connection is fine and the verdict is not."""
    with TcpNode("a") as node, WebNode("health") as health:
        served = stage.serve({"a": node.port}, protocol="tcp", on_down=on_down, health={**QUICK, "port": health.port})
        with RawWeb(served.port) as raw:
            assert raw.sock.recv(2) == b"a\n"
            health.stop()
            served.wait_state("a", "down")
            if on_down == "cut":
                assert raw.is_closed()
            else:
                raw.send(b"still here")
                assert raw.sock.recv(10) == b"still here"


# By themselves


def test_a_node_that_dies_is_not_missed(stage: WebStage, a: WebNode, b: WebNode) -> None:
    served = stage.serve({"a": a.port, "b": b.port}, health=QUICK, balance="round_robin", slow_start="0s")
    with Crowd(served.port) as crowd:
        eventually(lambda: crowd.nodes, what="a crowd")
        for node in (a, b):
            node.stop()
            served.wait_state(node.name, "down")
            node.start()
            served.wait_state(node.name, "up")
        eventually(lambda: crowd.answered > 50, what="answers")
    refused = [failure for failure in crowd.failures if "502" not in failure]
    # A request that a node has got when it dies is lost; of those that were not sent yet none is.
    assert (refused, len(crowd.failures) <= 2 * crowd.clients) == ([], True), crowd.failures


def test_status_says_which_of_the_two_refuses_a_node(stage: WebStage, a: WebNode, b: WebNode) -> None:
    with WebNode("health") as health:
        served = stage.serve({"a": a.port, "b": b.port}, health={**QUICK, "port": health.port}, balance="round_robin")
        a.stop()  # HAProxy's own check sees it, ours does not
        refused = eventually(lambda: served.status()["nodes"]["a"]["refused"], 15, "HAProxy to refuse the node")
        shown = served.status()["nodes"]
        assert shown["a"]["check"]["ok"]
        assert "refused" in refused.lower() or "haproxy" in refused.lower()
        assert shown["b"]["refused"] is None
        a.start()
        eventually(lambda: served.status()["nodes"]["a"]["refused"] is None, 15, "HAProxy to take the node")
        health.stop()  # ours sees it, HAProxy's own does not
        served.wait_state("a", "down")
        shown = served.status()["nodes"]["a"]
        assert (shown["check"]["ok"], "refused" in shown["check"]["reason"]) == (False, True)


def test_a_dead_node_leaves_even_without_a_supervisor_who_then_takes_over(
    stage: WebStage, a: WebNode, b: WebNode
) -> None:
    served = stage.serve(
        {"a": a.port, "b": b.port}, health=SLOW, balance="round_robin", persistence={"fallback": "none"}
    )
    served.operate("weight", "b", 50)
    master, workers = stage.master(), stage.workers()
    with Crowd(served.port) as crowd:
        eventually(lambda: crowd.nodes == {"a", "b"}, what="a crowd at both nodes")
        stage.balancer.kill_supervisor()
        a.stop()
        before = b.spoken()
        eventually(lambda: b.spoken() > before, what="work for the other node")
        sources = [f"127.0.0.{number}" for number in range(80, 100)]
        eventually(lambda: {node_of(served, source=source) for source in sources} == {"b"}, what="one node")
        a.start()
        lost = list(crowd.failures)
        stage.balancer.start()
        assert (stage.master(), stage.workers()) == (master, workers)
        assert served.status()["nodes"]["b"]["weight"] == 50
        eventually(lambda: served.status()["nodes"]["a"]["refused"] is None, 15, "the node to be back")
        seen = crowd.answered
        eventually(lambda: crowd.answered > seen + 50, what="a crowd that goes on")
        assert crowd.failures == lost
    assert [failure for failure in lost if "502" not in failure] == []


def test_overrides_outlive_supervisor_and_haproxy(stage: WebStage, a: WebNode, b: WebNode) -> None:
    served = stage.serve({"a": a.port, "b": b.port}, balance="round_robin", persistence={"by": "none"})
    served.operate("disable", "a")
    stage.balancer.kill_supervisor()
    assert {node_of(served) for _ in range(4)} == {"b"}
    stage.balancer.start()
    assert {node_of(served) for _ in range(4)} == {"b"}
    lost = set(stage.haproxy_pids())
    os.kill(stage.master(), signal.SIGKILL)  # its worker goes on for a moment
    eventually(lambda: not lost & set(stage.haproxy_pids()) and is_served(served), 15, "HAProxy to be back")
    assert {node_of(served) for _ in range(4)} == {"b"}
    served.operate("enable", "a")
    eventually(lambda: node_of(served) == "a", what="the node to be back")


@pytest.mark.parametrize("who", ["master", "worker"])
def test_haproxy_comes_back_when_it_is_killed(stage: WebStage, a: WebNode, who: str) -> None:
    served = stage.serve({"a": a.port})
    assert node_of(served) == "a"
    before = stage.haproxy_pids()
    os.kill(stage.master() if who == "master" else stage.workers()[-1], signal.SIGKILL)
    eventually(lambda: is_served(served) and stage.workers() and stage.workers()[-1] not in before, 20, "HAProxy")
    assert node_of(served) == "a"
    eventually(lambda: len(stage.haproxy_pids()) == 2, 10, "one master and one worker")
    assert served.status()["state"] == "up"


@with_either_haproxy
def test_toggles_and_reloads_lose_nothing(stage: WebStage, a: WebNode, b: WebNode) -> None:
    """200 times a node is taken out or in, and 10 times the structure changes, under load."""
    service = stage.service({"a": a.port, "b": b.port}, balance="least_connections", slow_start="0s")
    assert stage.apply({"portal": service}).status_code == 200
    served = Served(stage.balancer, "portal", int(service["listen"].rpartition(":")[2]))
    master = stage.master()
    with stage.balancer.client() as api, RawWeb(served.port) as websocket, Crowd(served.port) as crowd:
        websocket.send(
            b"GET /live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert websocket.answer().status == 101
        eventually(lambda: crowd.answered > 50, what="a crowd")
        for number in range(10):
            for _ in range(5):
                for node in ("a", "b"):
                    for action in ("drain" if number % 2 else "disable", "enable"):
                        told = api.post("nodes", json={"pattern": f"portal/{node}", "action": action})
                        assert told.status_code == 200, told.text
            changed = {**service, "timeouts": {"connect": f"{number + 1}s"}}
            assert stage.apply({"portal": changed}).status_code == 200
        websocket.send(bytes([0x81, 0x82]) + bytes(4) + b"hi")
        assert websocket.sock.recv(10) == bytes([0x81, 2]) + b"hi"
    assert crowd.failures == []
    assert (crowd.answered > 200, crowd.nodes) == (True, {"a", "b"})
    assert stage.master() == master
    eventually(lambda: len(stage.workers()) == 1, 40, "old workers to end")


def is_served(served: Served) -> bool:
    try:
        with RawWeb(served.port) as raw:
            raw.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return raw.answer().status == 200
    except OSError:
        return False
