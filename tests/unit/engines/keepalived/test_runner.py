"""The engine where there is no pair, and what it writes where there is; with keepalived: tests/system."""

import asyncio
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from equipoise.base.clock import SystemClock
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.engines import nft
from equipoise.engines.base import Observation
from equipoise.engines.keepalived import presence, rules
from equipoise.engines.keepalived.artifact import Artifact, Rules
from equipoise.engines.keepalived.runner import USUAL_RUNTIME, KeepalivedEngine, place, table_name
from equipoise.plan.model import Cluster, ManagedAddress, Plan, VipGroup
from equipoise.state.events import Event

GROUP = VipGroup("primary", 51, True, (ManagedAddress("10.0.0.100", "eth0"),))
OTHER = VipGroup("secondary", 52, False, (ManagedAddress("10.0.0.101", "eth0"),))
PAIR = Cluster("primary", "10.0.0.2", "10.0.0.3", "eth0", 0.2, False, 11251, (GROUP,))


class Alone:
    """An engine and what it said."""

    def __init__(self, directory: Path) -> None:
        self.events: list[Event] = []
        self.failures: list[BaseException] = []
        tasks = Tasks(lambda _, error: self.failures.append(error))
        self.engine = KeepalivedEngine(Directories(directory, directory), tasks, SystemClock(), self.events.append)


@pytest.fixture
def alone(tmp_path: Path) -> Alone:
    return Alone(tmp_path)


def plan(cluster: Cluster | None) -> Plan:
    return Plan("here", (), 1, 30, "", cluster=cluster)


def test_a_machine_alone_has_nothing_to_do_with_keepalived(alone: Alone, tmp_path: Path) -> None:
    async def live() -> None:
        engine = alone.engine
        assert await engine.adopt() == {}
        assert engine.render(plan(None)) == Artifact()
        assert await engine.check(Artifact()) == []
        await engine.apply(Artifact())
        await engine.set_fault("no gateway answers")
        await engine.set_nodes({})
        await engine.watch()
        assert await engine.fault() is None
        assert await engine.observe() == Observation()
        assert (engine.adopted, engine.groups) == (0, ())
        await engine.undo_start()
        await engine.stop(30)

    asyncio.run(live())
    assert (alone.events, alone.failures, list(tmp_path.iterdir())) == ([], [], [])


def test_a_pair_without_addresses_is_none(alone: Alone) -> None:
    empty = Cluster("primary", "10.0.0.2", "10.0.0.3", "eth0", 0.2, False, 11251, ())
    assert not alone.engine.render(plan(empty))


def test_the_same_plan_gives_the_same_and_names_the_directory_of_this_instance(alone: Alone, tmp_path: Path) -> None:
    first, second = (alone.engine.render(plan(PAIR)) for _ in range(2))
    assert first == second
    assert f'file "{tmp_path}/keepalived/fault"' in first.configuration
    assert (first.silence_ms, first.anchors) == (600, {"primary": "169.254.112.51"})
    assert first.hosts_of(frozenset({"primary"})) == {"10.0.0.100"}
    assert first.hosts_of(frozenset()) == frozenset()


def test_instances_on_one_machine_have_tables_of_their_own(tmp_path: Path) -> None:
    assert table_name(Directories(USUAL_RUNTIME, tmp_path)) == "equipoise-vrrp"
    assert re.fullmatch("equipoise-vrrp-[0-9a-f]{8}", table_name(Directories(tmp_path, tmp_path)))
    assert place(Directories(tmp_path, tmp_path)).directory == tmp_path / "keepalived"


def test_rules_leave_out_interfaces_that_are_gone_and_hold_addresses_of_both_families() -> None:
    wanted = Rules("equipoise-vrrp", ("eth0", "eth1"), "10.0.0.3", (51, 52))
    text = rules.structure(wanted, gone={"eth0"}, held={"10.0.0.100", "fd00::100", "10.0.0.99"})
    assert '"eth0"' not in text
    assert 'device "eth1"' in text
    assert text.endswith(
        "add element netdev equipoise-vrrp held4 { 10.0.0.100, 10.0.0.99 }\n"
        "add element netdev equipoise-vrrp held6 { fd00::100 }\n"
    )
    assert rules.holding("t", ()) == "flush set netdev t held4\nflush set netdev t held6\n"


@pytest.mark.parametrize("moment", ["interfaces", "run"])
def test_an_address_is_not_held_for_ever_by_rules_that_are_put_back_while_a_handover_ends(
    alone: Alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Who is held takes no new connection: with the address back here, nobody would be served."""
    told: list[str] = []
    is_reached, may_go_on = threading.Event(), threading.Event()

    def pause() -> None:
        is_reached.set()
        assert may_go_on.wait(10)

    def interfaces() -> frozenset[str]:
        if moment == "interfaces":
            pause()
        return frozenset({"eth0"})

    def run(text: str) -> None:
        if moment == "run" and "add chain" in text:
            pause()
        told.append(text)

    monkeypatch.setattr(presence, "interfaces", interfaces)
    monkeypatch.setattr(nft, "listed", lambda family, table: "")  # another program flushed all rules
    monkeypatch.setattr(nft, "run", run)

    async def live() -> None:
        engine = alone.engine
        monkeypatch.setattr(engine, "_artifact", engine.render(plan(PAIR)))
        monkeypatch.setattr(engine, "_begin_to_look", lambda: None)
        (tmp_path / "keepalived").mkdir()
        await engine.give(["primary"])
        assert "add element" in told[-1]
        watching = asyncio.ensure_future(engine.watch())
        await asyncio.to_thread(is_reached.wait, 10)
        keeping = asyncio.ensure_future(engine.keep(["primary"]))
        await asyncio.sleep(0.1)
        may_go_on.set()
        await asyncio.gather(watching, keeping)

    asyncio.run(live())
    assert any("add chain" in text for text in told)
    assert "add element" not in told[-1]
    assert alone.failures == []


def test_a_group_that_leaves_the_plan_while_it_is_handed_over_is_not_given_away_when_it_comes_back(
    alone: Alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft, "run", lambda text: None)
    monkeypatch.setattr(presence, "interfaces", lambda: frozenset({"eth0"}))
    given: list[str] = []

    async def live() -> None:
        engine = alone.engine
        both, other = (replace(PAIR, groups=groups) for groups in ((GROUP, OTHER), (OTHER,)))
        (tmp_path / "keepalived").mkdir()
        monkeypatch.setattr(engine, "_artifact", engine.render(plan(both)))
        await engine.give(["primary"])
        monkeypatch.setattr(engine, "_artifact", engine.render(plan(other)))
        await engine.keep(["primary"])
        monkeypatch.setattr(engine, "_artifact", engine.render(plan(both)))
        monkeypatch.setattr(nft, "run", given.append)
        await engine.keep(["secondary"])

    asyncio.run(live())
    assert "add element" not in given[-1]
