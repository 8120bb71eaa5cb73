"""Whether anything is heard: packets that come in, and where none does, the answers of the segment."""

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from equipoise.app.pair import hearing
from equipoise.app.pair.hearing import Hearing
from equipoise.app.wiring import catalogue
from equipoise.base.errors import EngineError
from equipoise.config.loading import load
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts, Way
from equipoise.plan.model import Cluster, Plan

PEER, ROUTER = "10.0.0.3", "10.0.0.1"
SITE = f"""
site: here
cluster: {{peer: {PEER}, address: 10.0.0.2, interface: eth0, role: primary}}
services:
  ct:
    protocol: dicom
    listen: 10.0.0.100
    nodes: {{a: {{address: '10.0.1.11:104'}}, b: {{address: '10.0.1.12:104'}}}}
"""


class Clock:
    """It stands still until it is told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s


class Segment:
    """An interface that counts what comes in, and the machines that answer there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = folder / "eth0/statistics/rx_packets"
        self._file.parent.mkdir(parents=True)
        self.count(1)
        self.answers: Collection[str] = ()
        self.asked: list[Collection[str]] = []
        self.fails = False
        monkeypatch.setattr(hearing, "_SYS", folder)
        monkeypatch.setattr(hearing, "ask", self._ask)
        monkeypatch.setattr(hearing, "find_ways", lambda hosts: dict.fromkeys(hosts, Way("eth0", ROUTER)))

    def count(self, packets: int) -> None:
        self._file.write_text(f"{packets}\n")

    def vanish(self) -> None:
        self._file.unlink()

    def _ask(self, _: str, addresses: Collection[str], __: float) -> Mapping[str, tuple[str, ...]]:
        self.asked.append(sorted(addresses))
        if self.fails:
            raise EngineError("there is no interface eth0")
        return {host: ("02:00:00:00:00:01",) if host in self.answers else () for host in addresses}


@pytest.fixture
def segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Segment:
    return Segment(tmp_path, monkeypatch)


def pair() -> tuple[Plan, Cluster]:
    plan = compile_plan(load(SITE, "site.yaml", catalogue()).site, HostFacts())
    assert plan.cluster is not None
    return plan, plan.cluster


def heard(*steps_s: float) -> list[str | None]:
    """Return what is said after each of these times."""
    clock, (plan, cluster) = Clock(), pair()

    async def scene() -> list[str | None]:
        ear, said = Hearing(clock), list[str | None]()
        await ear.follow(plan, cluster)
        for step_s in steps_s:
            clock.now_s += step_s
            said.append(await ear.problem(cluster))
        return said

    return asyncio.run(scene())


def test_silence_is_a_fault_where_nobody_answers(segment: Segment) -> None:
    first, soon, later = heard(0.0, 0.3, 0.5)
    assert (first, soon) == (None, None)
    assert later is not None
    assert later.startswith("no packet comes in at eth0")
    assert segment.asked == [sorted([PEER, ROUTER])]


def test_a_quiet_segment_is_none_where_somebody_answers(segment: Segment) -> None:
    segment.answers = (ROUTER,)
    assert heard(0.0, 0.8, 0.8) == [None, None, None]
    assert len(segment.asked) == 2


def test_nobody_is_asked_where_packets_come_in(segment: Segment) -> None:
    clock, (plan, cluster) = Clock(), pair()
    ear = Hearing(clock)

    async def scene() -> None:
        await ear.follow(plan, cluster)
        for packets in range(2, 9):
            clock.now_s += 0.8
            segment.count(packets)
            assert await ear.problem(cluster) is None

    asyncio.run(scene())
    assert segment.asked == []


@pytest.mark.parametrize("way", ["gone", "forbidden", "lonely"])
def test_what_is_no_fault(segment: Segment, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "gone":
        segment.vanish()
    elif way == "forbidden":
        segment.fails = True
    else:  # a dead peer is all that there might be to hear
        monkeypatch.setattr(hearing, "find_ways", lambda hosts: dict.fromkeys(hosts, Way("eth9")))
    assert heard(0.0, 0.8, 5.0) == [None, None, None]
