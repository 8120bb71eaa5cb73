"""What `bench.pair` measures in: the laboratory with a pair, a client behind the router, and what watches the machines.

    far ── router ─┬─ a, b: nodes of everything
                   ├─ c, d: nodes of downloads alone, with slow links
                   └─ balancer, standby: Equipoise, and beside it keepalived and HAProxy by hand

Tests build the same one (`tests/lab`, `tests/system/pair_stage.py`).  Leaves out what is done to it (`pair_scenes.py`).
"""

import random
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from bench import pair_plain
from bench.pair_crowd import NETWORK
from bench.pair_plain import Plain
from bench.programs import BenchError, Sink, find_program
from tests.lab.lab import VIPS, Lab, Segment
from tests.lab.lab import missing as missing_lab
from tests.lab.prober import Prober, Seen
from tests.system.netns import Host
from tests.system.pair_machine import Machine
from tests.system.pair_stage import Pair

VIP = VIPS[0]
WEB, DIRECT, DOWNLOADS, DICOM = 8003, 8001, 8004, 11112
KNOWN_WEB, KNOWN_DIRECT, KNOWN_DICOM = 8005, 8006, 11113
SNAT, DR, GATEWAY, PLAIN = "l7_snat", "l4_dr", "gateway", "plain"
# Who is asked, as what, by the name of the way that it travels.
WAYS = {
    SNAT: (VIP, WEB, "web"),
    DR: (VIP, DIRECT, "web"),
    GATEWAY: (VIP, DICOM, "dicom"),
    PLAIN: (pair_plain.VIP, pair_plain.PORT, "web"),
}
EVERY_S = 0.01
PLAIN_NODES = 8095  # where nodes answer those that come through keepalived and HAProxy by hand
LINK_MBIT, LINK_BURST_BYTES, LINK_QUEUE_MS = 64, 32_768, 50
TTL_S, BRIEF_S = 600, 15
_NODES = "abcd"
_CHECK = {"check": "tcp", "interval": "500ms", "timeout": "2s", "rise": 1, "fall": 2}
_ADDRESSES = 0x10  # RTMGRP_IPV4_IFADDR, rtnetlink(7)
_NEW_ADDRESS = 20  # RTM_NEWADDR
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_WHOLE_WITHIN_S = 60.0


def missing() -> str | None:
    """Return why this cannot be measured here, or None."""
    try:
        for program, package in (("keepalived", "keepalived"), ("haproxy", "haproxy"), ("tc", "iproute2")):
            find_program(program, package)
    except BenchError as error:
        return str(error)
    return missing_lab()


def services() -> dict[str, Any]:
    """Return what the pair serves."""
    known = {"by": "source_ip", "ttl": f"{TTL_S}s"}
    # New clients come in each run; those of HAProxy and of the kernel, whose tables are full some day, do not stay.
    brief = {"by": "source_ip", "ttl": f"{BRIEF_S}s"}
    return {
        "web": _service("http", WEB, "ab", WEB),
        "direct": _service("tcp", DIRECT, "ab", DIRECT, mode="l4_dr"),
        "downloads": _service("tcp", DOWNLOADS, "cd", DOWNLOADS, mode="l4_dr", balance="round_robin"),
        "dicom": _service("dicom", DICOM, "ab", DICOM),
        "known-web": _service("http", KNOWN_WEB, "ab", KNOWN_WEB, persistence=brief),
        "known-direct": _service("tcp", KNOWN_DIRECT, "ab", KNOWN_DIRECT, mode="l4_dr", persistence=brief),
        "known-dicom": _service("dicom", KNOWN_DICOM, "ab", DICOM, persistence=known),
    }


def _service(protocol: str, port: int, nodes: str, node_port: int, **settings: Any) -> dict[str, Any]:
    addresses = {name: {"address": f"{address_of(name)}:{node_port}"} for name in nodes}
    always = {"health": _CHECK, "slow_start": "0s", "persistence": {"by": "none"}}
    return {"protocol": protocol, "listen": f"{VIP}:{port}", "nodes": addresses, **always, **settings}


def address_of(node: str) -> str:
    """Return the address of a node."""
    return Segment.SERVERS.v4(11 + _NODES.index(node))


@dataclass(frozen=True, slots=True)
class Stage:
    """The pair, what stands beside it, and the chance by which moments are drawn."""

    pair: Pair
    plain: Plain
    chance: random.Random

    def whole(self) -> tuple[Machine, Machine]:
        """Wait until both pairs are whole; return the active machine and the standby.  Raises: BenchError."""
        try:
            active, standby = self.pair.whole(_WHOLE_WITHIN_S)
        except AssertionError as error:
            raise BenchError(f"the pair is not whole: {error}") from None
        self.plain.follow(active)
        return active, standby

    def set_advert(self, advert_ms: int) -> None:
        """Have both pairs advertise so often.  Raises: BenchError."""
        self.pair.cluster["advert"] = f"{advert_ms}ms"
        self.pair.first.apply(self.pair.document())
        self.plain.start(advert_ms / 1000)
        self.whole()

    @contextmanager
    def probers(self, *ways: str) -> Iterator["Probers"]:
        """Have a client for each way that connects every 10 ms meanwhile."""
        with ExitStack() as stack:
            probers = {way: Prober(self.pair.lab.far.host, *WAYS[way], EVERY_S) for way in ways}
            with ThreadPoolExecutor(len(ways)) as pool:  # each waits until somebody answers
                for prober in pool.map(lambda each: each.__enter__(), probers.values()):
                    stack.push(prober)
            yield Probers(probers)


class Probers:
    """What clients see, once they are stopped."""

    def __init__(self, probers: Mapping[str, Prober]) -> None:
        self._probers = probers

    def stop(self) -> dict[str, Seen]:
        """End them, and return what each saw."""
        return {way: prober.stop() for way, prober in self._probers.items()}


@contextmanager
def stage(folder: Path, chance: random.Random) -> Iterator[Stage]:
    """Build everything; the end removes it.  Raises: BenchError."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(folder, nodes=tuple(_NODES), inner=(), pair=True))
        for name in "ab":
            sink = Sink(1, "--address", "0.0.0.0", "--port", str(DICOM), prefix=lab.nodes[name].host.prefix)
            stack.callback(sink.stop)
        lab.far.host.ip("route", "add", "local", NETWORK, "dev", "lo")
        lab.router.ip("route", "add", NETWORK, "via", lab.far.host.address)
        for name in "cd":
            slow_down(lab, name)
        for host in (lab.balancer, lab.standby):
            host_only(host)
        try:
            pair = stack.enter_context(Pair(folder, lab, services(), {"more_addresses": []}))
        except AssertionError as error:
            raise BenchError(f"the pair could not be made: {error}") from None
        nodes = {name: address_of(name) for name in "ab"}
        plain = stack.enter_context(Plain(folder / "plain", pair.machines, nodes, PLAIN_NODES))
        yield Stage(pair, plain, chance)


def slow_down(lab: Lab, node: str) -> None:
    """Give a node a slow link, so that a download takes a while and flows evenly."""
    rate = ("rate", f"{LINK_MBIT}mbit", "burst", str(LINK_BURST_BYTES), "latency", f"{LINK_QUEUE_MS}ms")
    lab.nodes[node].host.must("tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", *rate)


def host_only(host: Host) -> None:
    """Have a machine get only frames that are for it, or for all.

    Switches send a frame for nobody that they know to all, also when a cable was just pulled.  Then the other machine
    takes it in direct routing, before it has the address: switches that do otherwise are the worse case.
    """
    for device in host.devices:
        command = ["ip", *host.cable(device), "type", "bridge_slave", "flood", "off"]
        subprocess.run(command, check=True, capture_output=True, timeout=10)


class Arrival:
    """Notes when an address comes to a machine: the kernel says so at once."""

    def __init__(self, machine: Machine, address: str) -> None:
        self._wanted = socket.inet_aton(address)
        self._socket = machine.host.inside(_listen)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.at_s: float | None = None

    def __enter__(self) -> "Arrival":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()

    def wait(self, within_s: float = 10) -> float:
        """Return when it came.  Raises: BenchError."""
        self._thread.join(within_s)
        if self.at_s is None:
            raise BenchError(f"{socket.inet_ntoa(self._wanted)} did not come within {within_s:g} s")
        return self.at_s

    def _watch(self) -> None:
        self._socket.settimeout(15)
        while self.at_s is None:
            try:
                message = self._socket.recv(65536)
            except OSError:
                return
            _, kind, *_ = _HEADER.unpack_from(message)
            if kind == _NEW_ADDRESS and self._wanted in message:
                self.at_s = time.monotonic()


def _listen() -> socket.socket:
    listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    listening.bind((0, _ADDRESSES))
    return listening


def until(look: Callable[[], bool], within_s: float, what: str, every_s: float = 0.005) -> float:
    """Return when something came about.  Raises: BenchError."""
    deadline_s = time.monotonic() + within_s
    while not look():
        if time.monotonic() > deadline_s:
            raise BenchError(f"{what} did not come about within {within_s:g} s")
        time.sleep(every_s)
    return time.monotonic()
