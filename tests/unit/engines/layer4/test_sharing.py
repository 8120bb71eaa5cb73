"""What is told of real maps of a kernel, and what is written to them; elements that tests add stand for packets'."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from equipoise.base.clock import SystemClock
from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.engines.layer4 import render_parts
from equipoise.engines.layer4.flow_keys import heard, said
from equipoise.engines.layer4.kernel import Kernel
from equipoise.engines.layer4.ledger import Change
from equipoise.engines.layer4.runner import Layer4Engine
from equipoise.engines.layer4.sharing import shared_maps
from equipoise.plan.soft import SoftEntry, SoftState
from equipoise.state.events import Event
from equipoise.state.network_events import Layer4Started
from tests.unit.engines.layer4.namespace import Namespace, missing, namespace
from tests.unit.engines.layer4.plans import artifact_of, plan_of
from tests.unit.engines.running import eventually

WHY_NOT = missing("nft")
pytestmark = [
    pytest.mark.root("network namespaces and nf_tables"),
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]
PATIENCE_S = 40.0
MANY = 10_000
FLOWS, PERSIST = "layer4/flows/s", "layer4/persist/s"
KEY, OTHER = "10.0.0.7 50123 10.0.0.100 104", "10.0.0.8 50123 10.0.0.100 104"


def services(mode: str = "l4_dr", more: str = "persistence: {by: source_ip}") -> str:
    nodes = "a: {address: 10.0.0.11}, b: {address: 10.0.0.12}"
    return f"s: {{protocol: tcp, mode: {mode}, listen: 10.0.0.100, ports: [104], {more}, nodes: {{{nodes}}}}}"


def about(seconds: float) -> Any:
    """Return what equals this time, on a machine that may be busy."""
    return pytest.approx(seconds, abs=20)


def mark(node: str) -> str:
    (pool,) = artifact_of(services()).pools
    return next(f"{member.mark:#x}" for member in pool.members if member.name == node)


class Machine:
    """A network of its own in which engines live, each for one test or for a part of it."""

    def __init__(self, network: Namespace, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.network = network
        self.events: list[Event] = []
        self.told: list[SoftState] = []
        self._folder = folder
        monkeypatch.setattr("equipoise.engines.layer4.runner.table_name", lambda directories: "equipoise")

    def play(self, act: Callable[[Layer4Engine], Awaitable[None]], text: str = "") -> None:
        """Run an engine with a plan."""

        async def main() -> None:
            broken: list[BaseException] = []
            tasks = Tasks(lambda _, failure: broken.append(failure))
            directories = Directories(self._folder, self._folder)
            engine = Layer4Engine(directories, tasks, SystemClock(), self.events.append)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await engine.adopt()
                    await engine.apply(engine.render(plan_of(text or services())))
                    await act(engine)
            finally:
                await tasks.cancel_all()
            assert broken == []

        self.network.call(asyncio.run, main())

    def add(self, name: str, key: str, node: str, left: str) -> None:
        """Do what a packet does."""
        words = key.replace(" ", " . ")
        self.network.nft(f"add element netdev equipoise {name} {{ {words} timeout {left} : {mark(node)} }}")

    def held(self, name: str, family: str = "netdev") -> Mapping[str, tuple[str, float]]:
        """Return node and seconds left by key."""
        seen, whole = self.network.call(Kernel("equipoise").elements, family, name, 1 << 20)
        assert whole
        text = services("l4_dr" if family == "netdev" else "l4_nat")
        each = next(each for each in shared_maps(artifact_of(text).pools) if each.name == name)
        return {said(each.form, key): (each.nodes[number], left_ms / 1000) for key, (number, left_ms) in seen.items()}

    def tell(self, state: SoftState) -> None:
        self.told.append(state)

    def heard(self, table: str) -> dict[str, tuple[str, float]]:
        """Return what was told last of each key."""
        return {entry.key: (entry.node, entry.left_s) for state in self.told for entry in state.get(table, ())}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with namespace() as network:
        network.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
        yield Machine(network, tmp_path, monkeypatch)


def test_flows_and_clients_are_told_when_they_come_and_when_they_go(machine: Machine) -> None:
    async def act(engine: Layer4Engine) -> None:
        engine.share(machine.tell)
        machine.add("flows-s", KEY, "a", "60s")
        machine.add("persist-s", "10.0.0.7", "b", "10m")
        await eventually(lambda: KEY in machine.heard(FLOWS) and machine.heard(PERSIST))
        assert machine.heard(FLOWS)[KEY] == ("a", about(60))
        assert machine.heard(PERSIST) == {"10.0.0.7": ("b", about(600))}
        machine.network.nft(f"delete element netdev equipoise flows-s {{ {KEY.replace(' ', ' . ')} }}")
        await eventually(lambda: machine.heard(FLOWS)[KEY] == ("a", 0.0))
        engine.share(None)
        told = len(machine.told)
        machine.add("flows-s", OTHER, "a", "60s")
        state = await engine.soft_state()
        assert [entry.key for entry in state[FLOWS]] == [OTHER]
        assert len(machine.told) == told

    machine.play(act)


def test_what_a_peer_knows_is_taken_over_and_not_said_back(machine: Machine) -> None:
    async def act(engine: Layer4Engine) -> None:
        engine.share(machine.tell)
        await engine.merge({FLOWS: (SoftEntry(KEY, "a", 100.0),), PERSIST: (SoftEntry("10.0.0.7", "b", 50.0),)})
        assert machine.held("flows-s") == {KEY: ("a", about(100))}
        assert machine.held("persist-s") == {"10.0.0.7": ("b", about(50))}
        machine.add("flows-s", OTHER, "b", "60s")
        await eventually(lambda: OTHER in machine.heard(FLOWS))
        await engine.merge({FLOWS: (SoftEntry(KEY, "b", 500.0),), PERSIST: (SoftEntry("10.0.0.7", "b", 0.0),)})
        assert machine.held("flows-s")[KEY] == ("b", about(500))
        assert machine.held("persist-s") == {}
        await engine.merge({FLOWS: (SoftEntry(KEY, "b", 0.0), SoftEntry(OTHER, "b", 0.0))})
        assert machine.held("flows-s").keys() == {OTHER}, "what lives here stays"
        assert [entry.key for entry in (await engine.soft_state())[FLOWS]] == [OTHER]
        assert machine.heard(FLOWS).keys() == {OTHER}
        await asyncio.sleep(1.5)
        assert await engine.fault() is None
        assert machine.events == [Layer4Started(services=("s",), adopted=False)], "and nobody thinks rules were touched"

    machine.play(act)


def test_persistence_of_translated_services_is_shared_too(machine: Machine) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.merge({PERSIST: (SoftEntry("10.0.0.7", "b", 50.0),), FLOWS: (SoftEntry(KEY, "a", 100.0),)})
        assert machine.held("persist-s", "inet") == {"10.0.0.7": ("b", about(50))}

    machine.play(act, services("l4_nat"))


def test_what_makes_no_sense_here_is_left_out(machine: Machine) -> None:
    async def act(engine: Layer4Engine) -> None:
        bad = ("10.0.0.7", "1 . 2 }; flush ruleset; #", "", "10.0.0.9 1 10.0.0.100 99999")
        flows = (
            *(SoftEntry(key, "a", 100.0) for key in bad),
            SoftEntry(KEY, "nobody", 9.0),
            SoftEntry(OTHER, "a", 9.0),
        )
        clients = (SoftEntry("10.0.0.9", "a", float("nan")), SoftEntry("10.0.0.9", "a", -1.0))
        await engine.merge({FLOWS: flows, PERSIST: clients, "layer4/flows/other": flows, "gateway/x/s": flows})
        assert machine.held("flows-s").keys() == {OTHER}
        assert machine.held("persist-s") == {}

    machine.play(act)


def test_a_packet_that_is_faster_keeps_its_node_and_the_rest_is_written(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(engine: Layer4Engine) -> None:
        machine.add("flows-s", KEY, "a", "1h")
        monkeypatch.setattr(Kernel, "elements", lambda *_: ({}, True))  # it came after the look
        others = tuple(SoftEntry(f"10.0.1.{i} 1 10.0.0.100 104", "b", 60.0) for i in range(20))
        await engine.merge({FLOWS: (*others[:7], SoftEntry(KEY, "b", 60.0), *others[7:])})
        monkeypatch.undo()
        held = machine.held("flows-s")
        assert held[KEY][0] == "a"
        assert len(held) == 21

    machine.play(act)


def test_an_element_that_has_just_run_out_is_replaced_all_the_same(machine: Machine) -> None:
    async def act(engine: Layer4Engine) -> None:
        (each,) = shared_maps(artifact_of(services(more="persistence: {by: none}")).pools)
        key = heard(each.form, KEY)
        assert key is not None
        a, b = (int(mark(node), 16).to_bytes(4, sys.byteorder) for node in "ab")
        change = partial(machine.network.call, Kernel("equipoise").change, each.family, each.name)
        assert change([Change(key, a, b, 60.0)])
        assert machine.held("flows-s")[KEY][0] == "b"
        assert change([Change(key, b, None, 0.0)])
        assert change([Change(key, a, None, 0.0)])
        assert machine.held("flows-s") == {}

    machine.play(act)


def test_a_full_map_is_no_error(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_parts, "CLIENTS", 16)

    async def act(engine: Layer4Engine) -> None:
        await engine.merge({PERSIST: tuple(SoftEntry(f"10.0.1.{i}", "a", 60.0) for i in range(40))})
        assert 0 < len(machine.held("persist-s")) <= 16

    machine.play(act)


def test_a_kernel_that_cannot_be_written_to_is_an_error(machine: Machine) -> None:
    async def act(engine: Layer4Engine) -> None:
        machine.network.nft("flush ruleset")
        with pytest.raises(EngineError, match="no set or map"):
            await engine.merge({PERSIST: (SoftEntry("10.0.0.7", "a", 60.0),)})

    machine.play(act)


def test_rules_that_were_flushed_and_put_back_are_no_news(machine: Machine) -> None:
    async def act(engine: Layer4Engine) -> None:
        engine.share(machine.tell)
        machine.add("flows-s", KEY, "a", "1h")
        await eventually(lambda: KEY in machine.heard(FLOWS))
        machine.network.nft("flush ruleset")
        await eventually(lambda: len(machine.events) == 2)
        machine.add("flows-s", OTHER, "a", "1h")
        await eventually(lambda: OTHER in machine.heard(FLOWS))
        assert machine.heard(FLOWS)[KEY] == ("a", about(3600)), "the peer may keep it"

    machine.play(act)


def test_what_was_taken_over_outlives_a_plan_and_a_supervisor(machine: Machine) -> None:
    async def first(engine: Layer4Engine) -> None:
        await engine.merge({FLOWS: (SoftEntry(KEY, "a", 1000.0),)})
        await engine.apply(engine.render(plan_of(services(more="balance: source_hash, timeouts: {idle: 5h}"))))
        assert machine.held("flows-s") == {KEY: ("a", about(1000))}

    async def second(engine: Layer4Engine) -> None:
        assert machine.held("flows-s") == {KEY: ("a", about(1000))}

    machine.play(first)
    machine.play(second)


def test_ten_thousand_clients_are_taken_over_at_once(machine: Machine) -> None:
    async def act(engine: Layer4Engine) -> None:
        keys = [f"10.1.{i >> 8}.{i & 255}" for i in range(MANY)]
        began_s = time.monotonic()
        await engine.merge({PERSIST: tuple(SoftEntry(key, "ab"[i % 2], 600.0) for i, key in enumerate(keys))})
        took_s = time.monotonic() - began_s
        assert machine.held("persist-s").keys() == set(keys)
        print(f"merged within {took_s:.3f} s")
        began_s = time.monotonic()
        state = await engine.soft_state()
        print(f"nothing said back within {time.monotonic() - began_s:.3f} s")
        assert PERSIST not in state
        assert took_s < 10, "0.1 s on an idle machine"

    machine.play(act)
