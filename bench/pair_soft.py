"""How soon the other machine knows where 10 000 clients belong.

Clients have addresses of their own.  Those of HAProxy and of the gateway are real; those of `l4_dr` are first packets
of connections, by which the kernel learns all that it ever does, and come within a fraction of a second.  What is
`pushed` nobody was: until a gateway knows so many by itself takes too long to have it twenty times.
Leaves out what clients find after a failover: tests show that.
"""

import asyncio
import json
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.pair_crowd import FIRST_SOURCE, source
from bench.pair_machines import KNOWN_DICOM, KNOWN_DIRECT, KNOWN_WEB, TTL_S, VIP, Stage, until
from bench.pair_scenes import ask_handover
from bench.programs import BenchError
from equipoise.base.errors import EquipoiseError
from equipoise.base.paths import Directories
from equipoise.cluster.identity import secured
from equipoise.cluster.link import Link
from equipoise.cluster.messages import SoftPush
from equipoise.cluster.outbox import MOST_IN_A_PUSH
from equipoise.config.cluster import DEFAULT_PORT
from equipoise.engines.base import MOST_SHARED
from equipoise.engines.gateway.channel import Channel, connected
from equipoise.engines.gateway.messages import Kept, Recall
from equipoise.engines.haproxy.files import Files
from equipoise.engines.haproxy.runtime import ask
from equipoise.engines.layer4.artifact import FAMILIES
from equipoise.engines.layer4.kernel_tables import elements, sizes
from equipoise.engines.layer4.runner import table_name
from equipoise.plan.soft import SoftEntry, soft_table
from tests.system.pair_machine import Machine

Row = dict[str, Any]
Scene = Callable[[Stage, Machine, Machine, range], Row]
KERNEL, HAPROXY, PUSHED, CALLED = "l4_dr", "haproxy", "pushed", "gateway"
_WORDS = {KERNEL: "clients of l4_dr", HAPROXY: "clients of HAProxy", PUSHED: "what is pushed", CALLED: "callers"}
_ROOM = 120_000  # clients that there can be, of 198.18.0.0/15
_IP, _TCP = struct.Struct("!BBHHHBBH4s4s"), struct.Struct("!HHIIBBHHH")
_FROM_PORT, _SYN = 20_000, 0x02
WITHIN_S = 14.0  # what is not there by then counts as that; shorter than the kernel's entries live
_CROWD_WITHIN_S = 150.0
_SETTLES_S = 3.0  # until the machines have told each other of what is gone


class Numbers:
    """Clients that did not come lately."""

    def __init__(self, entries: int) -> None:
        self._entries, self._next = entries, 0

    def take(self) -> range:
        """Return as many as are needed."""
        if self._next + self._entries > _ROOM:
            self._next = 0
        first, self._next = self._next, self._next + self._entries
        return range(first, self._next)


def measure(stage: Stage, entries: int, runs: int, called: int) -> list[Row]:
    """Return how long it took in each run; the gateway learns by itself in the first `called` of them.

    A handover after each has the two machines learn in turn.  Raises: BenchError.
    """
    rows: list[Row] = []
    clients = Numbers(entries)
    scenes: dict[str, Scene] = {KERNEL: _kernel, HAPROXY: _haproxy, PUSHED: _pushed, CALLED: _called}
    for number in range(1, runs + 1):
        for where, scene in scenes.items():
            if where != CALLED or number <= called:
                active, standby = stage.pair.whole()
                try:
                    found = scene(stage, active, standby, clients.take())
                except (BenchError, EquipoiseError) as error:
                    raise BenchError(f"{_WORDS[where]}: {error}") from None
                rows.append({"where": where, "run": number, "entries": entries, "from": active.name, **found})
        ask_handover(active)
    return rows


def _kernel(stage: Stage, active: Machine, standby: Machine, numbers: range) -> Row:
    for machine in (active, standby):
        _empty(machine)
    time.sleep(_SETTLES_S)
    known, packets = KernelMap(standby), [first_packet(number, KNOWN_DIRECT) for number in numbers]

    def send() -> tuple[float, float]:
        began_s = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            for packet in packets:
                raw.sendto(packet, (VIP, 0))
        return began_s, time.monotonic()

    began_s, last_s = stage.pair.lab.far.host.inside(send)
    at_s = standby.host.inside(lambda: _when(lambda: known.count(numbers) >= len(numbers)))
    return {"took_s": round(at_s - last_s, 4), "came_s": round(last_s - began_s, 3)}


def _when(look: Callable[[], bool]) -> float:
    """Return when all of them were there, or when nobody waited any more."""
    try:
        return until(look, WITHIN_S, "all of them")
    except BenchError:
        return time.monotonic()


def first_packet(number: int, port: int) -> bytes:
    """Return a SYN of a client, RFC 9293 section 3.1; its checksum is left out, so nobody answers it."""
    head = _IP.pack(0x45, 0, _IP.size + _TCP.size, 0, 0, 64, socket.IPPROTO_TCP, 0, _bytes(source(number)), _bytes(VIP))
    return head + _TCP.pack(_FROM_PORT, port, 0, 0, (_TCP.size // 4) << 4, _SYN, 1000, 0, 0)


def _bytes(address: str) -> bytes:
    return socket.inet_aton(address)


def _called(stage: Stage, active: Machine, standby: Machine, numbers: range) -> Row:
    came, last_s = _crowd(stage, KNOWN_DICOM, "dicom", numbers)
    at_s: float = asyncio.run(_gateway_knows(standby, numbers))
    return {"took_s": round(at_s - last_s, 4), "came_s": came}


def _haproxy(stage: Stage, active: Machine, standby: Machine, numbers: range) -> Row:
    for machine in (active, standby):
        asyncio.run(ask(_haproxy_socket(machine), "clear table known-web"))
    came, last_s = _crowd(stage, KNOWN_WEB, "web", numbers)
    at_s = _when(lambda: asyncio.run(_used(standby)) >= len(numbers))
    return {"took_s": round(at_s - last_s, 4), "came_s": came}


def _pushed(stage: Stage, active: Machine, standby: Machine, numbers: range) -> Row:
    """Say 10 000 clients that nobody saw, over the pair's link, with the certificates of the active machine."""
    entries = [SoftEntry(source(number), "ab"[number % 2], float(TTL_S)) for number in numbers]
    took_s: float = active.host.inside(lambda: asyncio.run(_push(active, standby, entries, numbers)))
    return {"took_s": round(took_s, 4), "came_s": None}


async def _push(active: Machine, standby: Machine, entries: list[SoftEntry], numbers: range) -> float:
    certificates = secured(active.balancer.home / "state")
    if certificates is None:
        raise BenchError(f"{active.name} has no peer's certificate")
    link = Link(standby.address, DEFAULT_PORT, active.address, certificates)
    try:
        from_s, table = time.monotonic(), soft_table("gateway", "persistence", "known-dicom")
        for start in range(0, len(entries), MOST_IN_A_PUSH):
            part = {table: tuple(entries[start : start + MOST_IN_A_PUSH])}
            push = SoftPush(session="bench", number=start // MOST_IN_A_PUSH, tables=part, whole=True)
            await link.take_soft(push)
        return await _gateway_knows(standby, numbers) - from_s
    finally:
        await link.close()


def _crowd(stage: Stage, port: int, kind: str, numbers: range) -> tuple[float, float]:
    """Have them all come; return for how many seconds they came, and when the last was answered."""
    words = (VIP, str(port), kind, str(numbers.start), str(len(numbers)))
    command = [*stage.pair.lab.far.host.prefix, sys.executable, "-m", "bench.pair_crowd", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CROWD_WITHIN_S, check=True)
    except subprocess.CalledProcessError as error:
        raise BenchError(f"bench.pair_crowd failed: {error.stderr[-1000:]}") from None
    except subprocess.TimeoutExpired:
        raise BenchError(f"bench.pair_crowd did not end within {_CROWD_WITHIN_S:g} s") from None
    told = json.loads(done.stdout)
    if told["failed"] or told["answered"] != len(numbers):
        raise BenchError(f"of {len(numbers)} clients {told['answered']} were answered; failed: {told['failed']}")
    return round(float(told["last_s"]) - told["began_s"], 3), float(told["last_s"])


# What a machine knows


class KernelMap:
    """The map of clients of one machine; only to be asked from inside its host."""

    def __init__(self, machine: Machine) -> None:
        found = [each for each in _maps(machine) if each["name"].startswith("persist-")]
        if len(found) != 1:
            raise BenchError(f"{machine.name} has {len(found)} maps of clients, expected one: {found}")
        self._family, self._table = FAMILIES[found[0]["family"]], str(found[0]["table"])
        self._name = str(found[0]["name"])

    def count(self, numbers: range) -> int:
        """Return how many of these clients it has; reading them takes a core, so not before there are as many."""
        size = sizes(self._family, self._table).get(self._name)
        if size is not None and size < len(numbers):
            return size
        seen, _ = elements(self._family, self._table, self._name, MOST_SHARED)
        first = int(FIRST_SOURCE)
        return sum(int.from_bytes(key[:4], "big") - first in numbers for key in seen)


def _maps(machine: Machine) -> list[Row]:
    """Return the maps of layer 4 of the service whose clients stay."""
    home = machine.balancer.home
    table = table_name(Directories(home / "run", home / "state"))
    listed = json.loads(machine.host.must("nft", "--json", "--terse", "list", "maps"))["nftables"]
    maps = [each["map"] for each in listed if "map" in each]
    return [each for each in maps if each["table"] == table and "known-direct" in each["name"]]


def _empty(machine: Machine) -> None:
    """Forget the clients and flows of the run before, so that each begins with the same."""
    for each in _maps(machine):
        if each["name"].startswith(("persist-", "flows-")):
            machine.host.must("nft", "flush", "map", each["family"], each["table"], each["name"])


def _haproxy_socket(machine: Machine) -> Path:
    home = machine.balancer.home
    return Files(Directories(home / "run", home / "state")).worker_socket


async def _used(machine: Machine) -> int:
    """Return how many clients the stick table has."""
    lines = await ask(_haproxy_socket(machine), "show table")
    found = [re.search(r"used: ?(\d+)", line) for line in lines if line.startswith("# table: known-web,")]
    if len(found) != 1 or found[0] is None:
        raise BenchError(f"{machine.name} has no stick table known-web: {lines}")
    return int(found[0].group(1))


async def _gateway_knows(machine: Machine, numbers: range) -> float:
    """Return when a machine's gateway knew all these clients, or when nobody waited any more."""
    (path,) = (machine.balancer.home / "run").glob("gateway-*.sock")
    channel = Channel(await connected(str(path), 2.0), lambda *_: None, lambda *_: None)
    wanted = {source(number) for number in numbers}
    deadline_s = time.monotonic() + WITHIN_S
    try:
        while time.monotonic() < deadline_s:
            answer, _ = await channel.ask(Recall(service="known-dicom", most=MOST_SHARED))
            at_s = time.monotonic()
            if isinstance(answer, Kept) and wanted <= {key for key, *_ in answer.tables["known-dicom"]}:
                return at_s
            await asyncio.sleep(0.01)
    finally:
        channel.close()
    return deadline_s
