"""What is done to the pair while clients connect every 10 ms, and what they see of it.

Runs alternate between the two machines: the one that lost its link or its power comes back and stands by.  A run says
only when it happened; what clients saw is read from their attempts afterwards.
Leaves out what the other machine knows of clients (`pair_soft.py`).
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import pairwise
from typing import Any

import httpx

from bench.pair_machines import DOWNLOADS, DR, GATEWAY, PLAIN, SNAT, VIP, Arrival, Stage, until
from bench.programs import BenchError
from tests.lab.prober import Seen
from tests.system.pair_machine import Machine

Row = dict[str, Any]
LINK, POWER = "link", "power"
API, COMMAND = "api", "command"
PAGE = "big"
_BEFORE_S = 0.5  # a quiet piece in which answers came as usual
_FROM_S, _TO_S = 0.3, 0.6  # it happens at a moment between, so that it is not always the same one between two adverts
_OLD_S = 1.0  # of a download when it happens: a flow is known to the other machine some 0.4 s after it began
_BACK_S = 1.3  # longer than any interruption that is expected; then the machine comes back
_SETTLED_S = 1.6  # for clients whose first packet was lost: TCP sends it again after 1 s, RFC 6298
_BOOTED_S = 90.0
_LAST_S = 20.0  # of what an attempt may take, the prober's patience
_PIECE_BYTES = 65536


class Download(threading.Thread):
    """A page over a slow link; notes when its pieces came."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(daemon=True)
        self._call = stage.pair.lab.far.call(VIP, DOWNLOADS, timeout_s=40)
        self._expected = stage.pair.page(PAGE)
        self._got = bytearray()
        self._times_s: list[float] = []
        self._failure, self._failed_s = "", 0.0
        self._is_reset = False

    def run(self) -> None:
        """Take it to its end."""
        try:
            answer = self._call.ask(f"/{PAGE}")
            while piece := answer.read1(_PIECE_BYTES):
                self._times_s.append(time.monotonic())
                self._got += piece
        except (OSError, HTTPException) as error:
            self._failure = repr(error)
            self._failed_s = time.monotonic()
            self._is_reset = isinstance(error, ConnectionResetError)
        self._call.close()

    def is_old(self) -> bool:
        """Say whether it has gone on for a while."""
        return bool(self._times_s) and time.monotonic() - self._times_s[0] > _OLD_S

    def seen(self, at_s: float) -> Row:
        """Return how it went across something that happened at a time."""
        self.join(60)
        pauses = [(after - before, after) for before, after in pairwise(self._times_s) if after > at_s]
        stall_s, resumed_at_s = max(pauses, default=(0.0, at_s))
        return {
            "stall_s": round(stall_s, 4),
            "resumed_s": round(resumed_at_s - at_s, 4),
            "bytes": len(self._got),
            "wrong_bytes": self._wrong_bytes(),
            "reset": self._is_reset,
            "failure": self._failure,
            "failed_s": round(self._failed_s - at_s, 4) if self._failure else None,
        }

    def _wrong_bytes(self) -> int:
        """Return how many bytes are not what they must be; those that a failure kept away are no bytes."""
        missing = 0 if self._failure else abs(len(self._expected) - len(self._got))
        if self._expected.startswith(self._got):
            return missing
        return missing + sum(a != b for a, b in zip(self._got, self._expected, strict=False))


@dataclass(frozen=True, slots=True)
class Happened:
    """One run: from when to when it took to happen, until when it is looked at, and what is known by itself."""

    from_s: float
    to_s: float
    until_s: float
    known: Row = field(default_factory=dict)


def losses(stage: Stage, kind: str, advert_ms: int, runs: int) -> list[Row]:
    """Have the active machine lose its link or its power again and again.  Raises: BenchError."""
    scene = {LINK: _lose_link, POWER: _lose_power}[kind]
    return _played(stage, (SNAT, DR, PLAIN), runs, lambda number: [scene(stage)], kind=kind, advert_ms=advert_ms)


def handovers(stage: Stage, advert_ms: int, runs: int) -> list[Row]:
    """Hand over by the API, and in every other run by the command, too.  Raises: BenchError."""

    def scene(number: int) -> list[Happened]:
        return [_hand_over(stage, how) for how in ((API, COMMAND) if number % 2 else (API,))]

    return _played(stage, (SNAT, DR, GATEWAY), runs, scene, kind="handover", advert_ms=advert_ms)


def _played(
    stage: Stage, ways: tuple[str, ...], runs: int, scene: Callable[[int], list[Happened]], **told: Any
) -> list[Row]:
    """Return a row for each thing that happened; clients connect all the time."""
    with stage.probers(*ways) as probers:
        happened = [(number, each) for number in range(1, runs + 1) for each in scene(number)]
        stage.whole()
        seen = probers.stop()
    rows: list[Row] = [
        {**told, "run": number, **each.known, "seen": {way: of_clients(seen[way], each) for way in ways}}
        for number, each in happened
    ]
    return rows


def of_clients(seen: Seen, each: Happened) -> Row:
    """Return what the clients of one way saw of one run."""
    answered = [one for one in seen.answered() if one.ended_s < each.until_s + _LAST_S]
    back = min((one.ended_s for one in answered if one.began_s >= each.to_s), default=None)
    near = [one.ended_s for one in answered if each.from_s - _BEFORE_S <= one.ended_s]
    gaps = [later - sooner for sooner, later in pairwise(near) if sooner < each.until_s]
    begun = [one for one in seen.attempts if each.from_s - _BEFORE_S <= one.began_s < each.until_s]
    if back is None or not gaps:
        raise BenchError(f"nobody was answered any more; {seen}")
    return {
        "back_s": round(back - each.from_s, 4),
        "gap_s": round(max(gaps), 4),
        "attempts": len(begun),
        "failed": _counted([one.failure for one in begun if one.failure]),
        "slowest_s": round(max((one.took_s for one in begun if not one.failure), default=0.0), 4),
    }


def _counted(failures: list[str]) -> Mapping[str, int]:
    return {way: failures.count(way) for way in sorted(set(failures))}


def _lose_link(stage: Stage) -> Happened:
    active, standby = stage.whole()
    time.sleep(stage.chance.uniform(_FROM_S, _TO_S))
    with Arrival(standby, VIP) as arrival:
        from_s = time.monotonic()
        active.host.unplug()
        to_s = time.monotonic()
        came_s = arrival.wait() - from_s
    time.sleep(max(0.0, from_s + _BACK_S - time.monotonic()))
    until_s = time.monotonic()
    active.host.plug()
    return Happened(from_s, to_s, until_s, {"lost": active.name, "address_s": round(came_s, 4)})


def _lose_power(stage: Stage) -> Happened:
    active, standby = stage.whole()
    downloads = [Download(stage) for _ in range(2)]  # one for each node
    for download in downloads:
        download.start()
    while not all(download.is_old() for download in downloads):
        if not all(download.is_alive() for download in downloads):
            raise BenchError(f"a download ended too soon: {[each.seen(0) for each in downloads]}")
        time.sleep(0.01)
    time.sleep(stage.chance.uniform(0, _TO_S - _FROM_S))
    with Arrival(standby, VIP) as arrival:
        from_s = time.monotonic()
        active.lose_power()
        to_s = time.monotonic()
        came_s = arrival.wait() - from_s
    found = [download.seen(from_s) for download in downloads]
    time.sleep(max(0.0, from_s + _BACK_S - time.monotonic()))
    until_s = time.monotonic()
    _boot(stage, active)
    return Happened(from_s, to_s, until_s, {"lost": active.name, "address_s": round(came_s, 4), "downloads": found})


def _boot(stage: Stage, machine: Machine) -> None:
    for device in machine.host.devices:
        machine.host.plug(device)
    machine.balancer.start(wait=False)
    stage.plain.boot(machine)
    until(lambda: _answers(machine), _BOOTED_S, f"the API of {machine.name}", every_s=0.05)


def _answers(machine: Machine) -> bool:
    try:
        machine.balancer.get("identity")
    except httpx.TransportError:
        return False
    return True


def _hand_over(stage: Stage, how: str) -> Happened:
    active, standby = stage.whole()
    with active.balancer.client() as client, Arrival(standby, VIP) as arrival:  # to make a client takes its time
        time.sleep(stage.chance.uniform(_FROM_S, _TO_S))
        from_s = time.monotonic()
        said = _asked(active, client) if how == API else active.command("cluster", "handover")
        answered_s = time.monotonic() - from_s
        came_s = arrival.wait() - from_s
    time.sleep(max(0.0, from_s + _SETTLED_S - time.monotonic()))
    known = {"how": how, "lost": active.name, "address_s": round(came_s, 4), "answered_s": round(answered_s, 4)}
    return Happened(from_s, from_s, time.monotonic(), known | ({"said": said} if isinstance(said, dict) else {}))


def ask_handover(machine: Machine) -> Row:
    """Have a machine hand over, and return what it answers.  Raises: BenchError."""
    with machine.balancer.client() as client:
        return _asked(machine, client)


def _asked(machine: Machine, client: httpx.Client) -> Row:
    answer = client.post("cluster/handover", json={})
    if answer.status_code != 200:
        raise BenchError(f"{machine.name} would not hand over: {answer.text}")
    return dict(answer.json())
