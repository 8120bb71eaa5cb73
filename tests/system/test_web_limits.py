"""Who is let in to a web service, how many at once, and what becomes of connections of plain TCP."""

import socket
import struct
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.system.balancer import eventually
from tests.system.stage import Served
from tests.system.web import Arrived, Reply, TcpNode, WebNode, slowly
from tests.system.web_client import RawWeb, client
from tests.system.web_stage import WebStage, with_either_haproxy

CLIENT, ANOTHER = "127.0.0.5", "127.0.0.6"  # callers on other machines, as far as a server can tell


# Limits


def test_only_some_networks_are_let_in(stage: WebStage, a: WebNode) -> None:
    served = stage.serve({"a": a.port}, allow_from=[f"{CLIENT}/32"])
    assert asked(served, CLIENT) == "a"
    assert is_turned_away(served, ANOTHER)
    assert len(a.arrived) == 1


def test_one_address_may_not_take_every_connection(stage: WebStage, a: WebNode) -> None:
    served = stage.serve({"a": a.port}, max_per_source=3)
    talks = [RawWeb(served.port, CLIENT) for _ in range(3)]
    for talk in talks:
        talk.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert talk.answer().status == 200
    assert is_turned_away(served, CLIENT)
    assert asked(served, ANOTHER) == "a"
    talks.pop().sock.close()
    eventually(lambda: not is_turned_away(served, CLIENT), what="room for another connection")
    for talk in talks:
        talk.sock.close()


def test_requests_wait_for_a_node_below_its_limit(stage: WebStage, a: WebNode) -> None:
    open_now, most = Counter[str](), []

    def counted(arrived: Arrived) -> Reply:
        open_now["a"] += 1
        most.append(open_now["a"])
        time.sleep(0.2)
        open_now["a"] -= 1
        return Reply()

    a.answer = counted
    served = stage.serve({"a": {"address": f"127.0.0.1:{a.port}", "max_connections": 1}}, queue_wait="5s")
    with ThreadPoolExecutor(3) as pool:
        asking = []
        for number in range(60, 63):
            asking.append(pool.submit(asked, served, f"127.0.0.{number}"))
            time.sleep(0.05)  # the first is at the node by then, and stays for longer than all of them take to come
        found = [each.result() for each in asking]
    assert (found, most) == (["a"] * 3, [1] * 3)


def test_requests_do_not_wait_for_ever(stage: WebStage, a: WebNode) -> None:
    a.answer = slowly(2)
    served = stage.serve({"a": {"address": f"127.0.0.1:{a.port}", "max_connections": 1}}, queue_wait="300ms")
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda number: answer_to(served, f"127.0.0.{number}"), range(60, 62)))
    assert sorted(answer.status_code for answer in answers) == [200, 503]
    assert next(answer for answer in answers if answer.status_code == 503).headers["retry-after"]


# TCP


def test_tcp_carries_any_bytes(stage: WebStage) -> None:
    with TcpNode("a") as node:
        served = stage.serve({"a": node.port}, protocol="tcp")
        with RawWeb(served.port) as raw:
            assert raw.sock.recv(2) == b"a\n"
            sent = bytes(range(256)) * 4000
            raw.send(sent)
            raw.sock.shutdown(socket.SHUT_WR)
            assert raw.rest() == sent
        assert node.raw() == sent


def test_tcp_clients_keep_their_node(stage: WebStage) -> None:
    with TcpNode("a") as a, TcpNode("b") as b:
        served = stage.serve(
            {"a": a.port, "b": b.port}, protocol="tcp", balance="round_robin", persistence={"by": "source_ip"}
        )
        nodes = {number: {greeting(served, f"127.0.0.{number}") for _ in range(3)} for number in range(70, 78)}
    assert all(len(found) == 1 for found in nodes.values()), nodes
    assert set.union(*nodes.values()) == {b"a\n", b"b\n"}


@with_either_haproxy
def test_tcp_nodes_are_told_the_client_by_the_proxy_protocol(stage: WebStage) -> None:
    with TcpNode("a") as node:
        served = stage.serve({"a": node.port}, protocol="tcp", proxy_protocol="v2")
        with RawWeb(served.port, CLIENT) as raw:
            raw.send(b"MSH|")
            eventually(lambda: b"MSH|" in node.raw(), what="what was sent")
        said = next(bytes(each.raw) for each in node.connections if b"MSH|" in each.raw)
    signature, kind, family, length = struct.unpack_from(">12sBBH", said)
    assert signature == b"\r\n\r\n\x00\r\nQUIT\n"  # the PROXY protocol, section 2.2
    assert (kind, family) == (0x21, 0x11)  # PROXY, TCP over IPv4
    source, _, _, port = struct.unpack_from(">4s4sHH", said, 16)
    assert (socket.inet_ntoa(source), port) == (CLIENT, served.port)
    assert said[16 + length :] == b"MSH|"


def asked(served: Served, source: str) -> str:
    answer = answer_to(served, source)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-node"])


def answer_to(served: Served, source: str) -> httpx.Response:
    with client(served.port, source=source) as web:
        return web.get("/")


def is_turned_away(served: Served, source: str) -> bool:
    try:
        answer_to(served, source).raise_for_status()
    except httpx.TransportError:  # the connection ends before a byte is read
        return True
    return False


def greeting(served: Served, source: str) -> bytes:
    with RawWeb(served.port, source) as raw:
        return raw.sock.recv(2)
