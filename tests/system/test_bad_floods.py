"""One device gone wild, and many that begin and never end: limits hold, and others do not notice.

What others see is compared with what they saw a moment before, in the same run; the bounds leave room for a machine
that is busy with other things.  EQUIPOISE_FLOOD_S makes the flood longer than its usual seconds.
"""

import itertools
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from equipoise.proto.proxy_protocol import encode
from tests.system import flood
from tests.system.balancer import eventually
from tests.system.certificates import Authority
from tests.system.rawpeer import RawClient, RawNode
from tests.system.senders import Sender, Shelf, nearly_all, usual
from tests.system.stage import Served, Stage

MIB = 1 << 20
WILD = "127.0.0.66"
A_MINUTE = 10_000
FLOOD_S = float(os.environ.get("EQUIPOISE_FLOOD_S", "6"))
QUIET_S = 2.0
ARTIM_S = 2.0
MANY = 500


@dataclass(slots=True)
class Site:
    """A stage, a good node and what it stored."""

    stage: Stage
    node: RawNode
    shelf: Shelf
    authority: Authority
    certificate: Path

    def resident_bytes(self) -> int:
        """Return the gateway's memory."""
        (pid,) = self.stage.balancer.gateway_pids()
        status = Path(f"/proc/{pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024

    def open_files(self) -> int:
        """Return how many descriptors the gateway has."""
        (pid,) = self.stage.balancer.gateway_pids()
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))

    def bugs(self) -> list[Any]:
        return [event for kind in ("task.failed", "gateway.lost") for event in self.stage.balancer.events(kind)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("tls")
    authority, shelf = Authority(directory), Shelf()
    with Stage() as stage, closing(RawNode({"PACS": shelf.serve})) as node:
        yield Site(stage, node, shelf, authority, authority.issue("balancer").both)


def raw(port: int) -> RawClient:
    return RawClient(port, "PACS")


# 10 000 associations a minute


def compare(sender: Sender, work: Callable[[], None]) -> dict[str, tuple[float, float, float]]:
    """Return what a sender saw, by kind: in quiet usually, then during `work` usually and nearly always, in seconds."""
    time.sleep(0.3)
    sender.clear()
    time.sleep(QUIET_S)
    assert sender.failures == []
    quiet = {"echo": usual(sender.echoes), "set-up": usual(sender.set_ups), "store": usual(sender.stores)}
    sender.clear()
    work()
    loud = {"echo": sender.echoes, "set-up": sender.set_ups, "store": sender.stores}
    return {kind: (quiet[kind], usual(found), nearly_all(found)) for kind, found in loud.items()}


def test_ten_thousand_a_minute_from_one_address_with_a_limit_for_each(site: Site) -> None:
    """It may have eight open at once; the rest is told so at once and costs next to nothing."""
    served = site.stage.serve({"a": site.node.port}, max_per_source=8)
    with Sender(lambda: raw(served.port)) as sender:
        came: dict[str, int] = {}
        before = site.resident_bytes()
        seen = compare(sender, lambda: came.update(run_flood(served)))
        after = site.resident_bytes()
    assert sender.failures == []
    assert came.pop("most") <= 8
    assert came.keys() == {"accepted", "rejected"}
    assert came["rejected"] > 0.8 * FLOOD_S * A_MINUTE / 60
    assert after - before < 8 * MIB
    not_noticed(seen, kept_waiting_s=0.0)
    refused = {event["reason"] for event in not_released(served) if event["ended"] == "refused"}
    assert refused == {f"{WILD} has 8 connections open, which is max_per_source"}
    given_back(site, served)


def test_ten_thousand_a_minute_from_one_address_without_one(site: Site) -> None:
    """It fills the service, whose callers then take turns by address: others wait for one place, not behind it."""
    served = site.stage.serve({"a": {"address": f"127.0.0.1:{site.node.port}", "max_connections": 40}}, queue_wait="3s")
    with Sender(lambda: raw(served.port)) as sender:
        came: dict[str, int] = {}
        before = site.resident_bytes()
        most = Most(lambda: int(served.status()["nodes"]["a"]["connections"]))
        seen = compare(sender, lambda: came.update(run_flood(served)))
        assert 35 < most.stop() <= 40, "a full house, and no more than that"
        after = site.resident_bytes()
    assert sender.failures == []
    assert came["accepted"] > 40
    assert came["rejected"] > 100
    assert came.get("nothing", 0) == 0
    assert after - before < 256 * 32 * 1024 + 16 * MIB  # those that wait hold a connection and a request
    not_noticed(seen, kept_waiting_s=0.5)  # of 40 places one is free every 25 ms
    given_back(site, served)


def not_released(served: Served) -> list[Any]:
    events = served.balancer.events("association.ended")
    return [event for event in events if event["service"] == served.name and event["ended"] != "released"]


def run_flood(served: Served) -> dict[str, int]:
    return flood.outcome(flood.start(served.port, WILD, A_MINUTE / 60, FLOOD_S, 1.0))


def not_noticed(seen: dict[str, tuple[float, float, float]], kept_waiting_s: float) -> None:
    """Hold that others saw what they had seen before; only set-ups may have been kept waiting for a place."""
    for kind, (quiet_s, loud_s, nearly_all_s) in seen.items():
        more_s = kept_waiting_s if kind == "set-up" else 0.0
        assert loud_s < 4 * quiet_s + 0.1 + more_s, (kind, seen)
        assert nearly_all_s < 10 * quiet_s + 0.6 + 2 * more_s, (kind, seen)


def given_back(site: Site, served: Served) -> None:
    eventually(lambda: served.status()["connections"] == 0, 30, f"no connection, {served.status()}")
    assert served.connections() == {"a": 0}
    assert site.bugs() == []


class Most:
    """The largest of what is looked at again and again."""

    def __init__(self, look: Callable[[], int]) -> None:
        self._look, self._most = look, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            self._most = max(self._most, self._look())

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self._most


# Slow lorises


def hello() -> bytes:
    """Return a ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


@dataclass(frozen=True, slots=True)
class Lorises:
    """Ways to begin and never end.

    Attributes:
        settings: What the service that they come to speaks.
        ways: What is sent at once, and what follows byte by byte for as long as the connection stands.
        said: What the event of each holds.
    """

    settings: tuple[str, ...]
    ways: tuple[tuple[bytes, bytes], ...]
    said: str


NOTHING = b""
REQUEST = b"\1\0\0\1\0\0" + bytes(1000)
HEADER = encode("v1", ("192.0.2.7", 5000), ("192.0.2.100", 104))
HELLO = hello()
LORISES = {
    "requests": Lorises((), ((NOTHING, NOTHING), (NOTHING, REQUEST)), "no whole A-ASSOCIATE-RQ within 2 s"),
    "handshakes": Lorises(
        ("tls",), ((HELLO[:80], NOTHING), (HELLO[:1], HELLO[1:]), (HELLO, NOTHING), (NOTHING, NOTHING)), "TLS"
    ),
    "headers": Lorises(
        ("proxy",), ((HEADER[:20], NOTHING), (NOTHING, HEADER)), "the PROXY header was not whole within 2 s"
    ),
    "handshakes behind headers": Lorises(("proxy", "tls"), ((HEADER, NOTHING), (HEADER + HELLO, NOTHING)), "TLS"),
}


def good_client(site: Site, served: Served, settings: tuple[str, ...]) -> RawClient:
    """Return a client that does it right."""
    client = raw(served.port)
    if "proxy" in settings:
        client.send(HEADER)
    if "tls" in settings:
        context = ssl.create_default_context(cafile=str(site.authority.ca_file))
        client.sock = context.wrap_socket(client.sock, server_hostname="localhost")
    return client


@pytest.mark.parametrize("name", LORISES)
def test_five_hundred_that_begin_and_never_end(site: Site, name: str) -> None:
    lorises = LORISES[name]
    settings: dict[str, Any] = {"dicom": {"artim": f"{ARTIM_S:g}s"}}
    if "tls" in lorises.settings:
        settings["tls"] = {"cert": str(site.certificate)}
    if "proxy" in lorises.settings:
        settings |= {"proxy_protocol": {"accept": True}, "allow_from": ["127.0.0.0/8"]}
    served = site.stage.serve({"a": site.node.port}, **settings)
    with Sender(lambda: good_client(site, served, lorises.settings)) as sender:
        time.sleep(0.5)
        files, memory = site.open_files(), site.resident_bytes()
        sender.clear()
        took_s = outlast(begin(served.port, lorises.ways))
        assert 0.8 * ARTIM_S < took_s < ARTIM_S + 15, "all are closed when their time is over"
        assert site.resident_bytes() - memory < MANY * 64 * 1024 + 8 * MIB  # a TLS session has some 50 KiB
        eventually(lambda: site.open_files() < files + 50, what="the descriptors given back")
        assert nearly_all(sender.echoes) < 1.0
        assert nearly_all(sender.set_ups) < 2.0
        assert len(sender.stores) > 3
    assert sender.failures == []
    eventually(lambda: len(not_released(served)) >= MANY, 30, "an event of each")
    ended = not_released(served)
    assert len(ended) == MANY
    assert {event["ended"] for event in ended} <= {"timed_out", "tls_failed"}
    assert all(lorises.said in event["reason"] for event in ended), ended[0]
    assert {event["node"] for event in ended} == {None}
    given_back(site, served)


def begin(port: int, ways: Sequence[tuple[bytes, bytes]]) -> list[tuple[socket.socket, bytes]]:
    crowd = []
    for number in range(MANY):
        first, drip = ways[number % len(ways)]
        caller = socket.create_connection(("127.0.0.1", port), source_address=(f"127.0.7.{1 + number % 250}", 0))
        caller.sendall(first)
        caller.setblocking(False)
        crowd.append((caller, drip))
    return crowd


def outlast(crowd: list[tuple[socket.socket, bytes]]) -> float:
    """Send on byte by byte until all are closed by the other side; return how long that took."""
    began_s, left = time.monotonic(), list(crowd)
    for place in itertools.count():
        left = [(caller, drip) for caller, drip in left if not is_over(caller, drip[place : place + 1])]
        if not left:
            break
        assert time.monotonic() - began_s < 30, f"{len(left)} are still open"
        time.sleep(0.15)
    for caller, _ in crowd:
        caller.close()
    return time.monotonic() - began_s


def is_over(caller: socket.socket, byte: bytes) -> bool:
    try:
        caller.sendall(byte)
        while caller.recv(1 << 16):
            pass  # the server's half of a handshake
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
