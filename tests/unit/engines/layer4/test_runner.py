"""The engine over a kernel that keeps what it is told: when it is told what, and what a failure leaves."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from equipoise.base.clock import SystemClock
from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.engines.layer4 import counting, runner
from equipoise.engines.layer4.artifact import Artifact
from equipoise.engines.layer4.runner import USUAL_RUNTIME, Layer4Engine, table_name
from equipoise.plan.model import Cluster, Plan
from equipoise.plan.states import NodeState
from equipoise.state.events import Event
from equipoise.state.network_events import Layer4Restored, Layer4Started
from tests.unit.engines.layer4.fake_kernel import FakeKernel
from tests.unit.engines.layer4.plans import plan_of
from tests.unit.engines.running import eventually

PATIENCE_S = 20.0
UP, DOWN, GONE = NodeState("up", 100), NodeState("down", 100), NodeState("down", 100, reachable=False)
DRAIN, DISABLED = NodeState("drain", 100), NodeState("disabled", 100)


def nat(settings: str = "balance: round_robin", *, b_weight: int = 100) -> Plan:
    nodes = f"{{a: {{address: 10.0.0.11}}, b: {{address: 10.0.0.12, weight: {b_weight}}}}}"
    return plan_of(f"s: {{protocol: tcp, ports: [80], mode: l4_nat, listen: 10.0.0.100, {settings}, nodes: {nodes}}}")


class Stage:
    """An engine of its own for each supervisor, all over one kernel."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directories = Directories(folder, folder)
        self.kernel = FakeKernel(table_name(self.directories))
        self.events: list[Event] = []
        self.broken: list[BaseException] = []
        monkeypatch.setattr(runner, "Kernel", lambda name: self.kernel)
        monkeypatch.setattr(runner, "_TICK_S", 0.01)
        monkeypatch.setattr(counting, "SHARE_OF_A_CORE", 1.0)
        monkeypatch.setattr(runner, "_AFTER_FAILURE_S", 0.01)
        monkeypatch.setattr(counting, "_FRESH_S", 0.0)

    def play(self, act: Callable[[Layer4Engine], Awaitable[None]]) -> None:
        """Run one supervisor's life with the engine; what it leaves running ends, and must not have failed."""

        async def main() -> None:
            tasks = Tasks(lambda _, failure: self.broken.append(failure))
            engine = Layer4Engine(self.directories, tasks, SystemClock(), self.events.append)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await act(engine)
            finally:
                await tasks.cancel_all()

        asyncio.run(main())
        assert self.broken == []

    def share(self, node: str) -> int:
        """Return how many slots a node has."""
        mark = self.mark(node)
        return sum(element.endswith(mark) for element in self.kernel.held("slots-s"))

    def mark(self, node: str) -> str:
        way = next(way for way in self.kernel.held("ways-s") if way.endswith(f"to-s/{node}"))
        return way.split(" : ")[0]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def test_each_instance_has_tables_of_its_own(tmp_path: Path) -> None:
    assert table_name(Directories(USUAL_RUNTIME, tmp_path)) == "equipoise"
    names = {table_name(Directories(tmp_path / name, tmp_path)) for name in "ab"}
    assert len(names) == 2
    assert all(name.startswith("equipoise-") and len(name) == 18 for name in names)


def test_a_plan_that_is_in_force_is_not_written_again(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat()))
        told = len(stage.kernel.told)
        await engine.apply(engine.render(nat()))
        assert len(stage.kernel.told) == told
        assert stage.events == [Layer4Started(services=("s",), adopted=False)]

    stage.play(act)


def test_a_plan_without_layer_4_looks_at_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> dict[str, object]:
        raise EngineError("no right")

    monkeypatch.setattr(stage.kernel, "found", forbidden)

    async def act(engine: Layer4Engine) -> None:
        nothing = engine.render(plan_of("s: {protocol: dicom, listen: 10.0.0.1, nodes: {a: {address: 10.0.0.2}}}"))
        assert await engine.check(nothing) == []
        await engine.apply(nothing)
        await engine.set_nodes({"s/a": UP})
        assert (await engine.observe()).nodes == {}
        await engine.watch()
        await engine.stop(0)

    stage.play(act)
    assert stage.kernel.told == []


def test_weights_alone_change_slots_and_no_rules(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat()))
        await engine.apply(engine.render(nat(b_weight=50)))
        assert (stage.share("a"), stage.share("b")) == (560, 280)
        assert not any("rule" in line for line in stage.kernel.told[-1].splitlines())

    stage.play(act)


def test_node_states_take_nodes_in_and_out(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Layer4Engine, "_begin_to_follow", lambda engine: None)  # only what node states bring is told

    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat("balance: round_robin, slow_start: 0s")))
        await engine.set_nodes({"s/a": UP, "s/b": DRAIN})
        assert (stage.share("a"), stage.share("b")) == (840, 0)
        told = len(stage.kernel.told)
        await engine.set_nodes({"s/a": UP, "s/b": DRAIN})
        assert len(stage.kernel.told) == told
        await engine.set_nodes({"s/a": UP, "s/b": UP, "other/x": DOWN})
        assert (stage.share("a"), stage.share("b")) == (420, 420)

    stage.play(act)


def test_states_that_come_before_the_first_plan_are_in_it(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        engine.prepare({"s/a": UP, "s/b": DOWN})
        await engine.apply(engine.render(nat()))
        assert stage.share("b") == 0
        assert "slots" in stage.kernel.told[0], "from the first moment"

    stage.play(act)

    async def told_early(engine: Layer4Engine) -> None:
        await engine.set_nodes({"s/a": DOWN, "s/b": UP})
        await engine.apply(engine.render(nat()))
        assert stage.share("a") == 0

    stage.play(told_early)


def test_a_supervisor_takes_over_rules_and_node_states(stage: Stage) -> None:
    async def first(engine: Layer4Engine) -> None:
        assert await engine.adopt() == {}
        assert engine.adopted == 0
        await engine.apply(engine.render(nat()))
        await engine.set_nodes({"s/a": UP, "s/b": GONE, "other/x": DOWN})
        engine.leave()

    async def second(engine: Layer4Engine) -> None:
        assert await engine.adopt() == {"s/a": UP, "s/b": GONE}
        assert engine.adopted == 1
        engine.prepare({"s/b": GONE})
        await engine.apply(engine.render(nat()))
        assert stage.share("b") == 0
        await engine.undo_start()
        assert stage.kernel.found(), "what was adopted stays"

    stage.play(first)
    stage.play(second)
    assert [event for event in stage.events if isinstance(event, Layer4Started)] == [
        Layer4Started(services=("s",), adopted=False),
        Layer4Started(services=("s",), adopted=True),
    ]


def test_notes_of_another_version_are_no_notes(stage: Stage) -> None:
    async def first(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat()))

    async def second(engine: Layer4Engine) -> None:
        assert await engine.adopt() == {}
        assert engine.adopted == 1

    stage.play(first)
    for content in ("", "[1, 2]", '{"s/b": {"state": "asleep", "weight": 1}}'):
        (stage.directories.runtime / "layer4.json").write_text(content)
        stage.play(second)


def test_a_start_that_fails_takes_its_rules_along(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat()))
        await engine.undo_start()
        assert stage.kernel.found() == {}
        with pytest.raises(EngineError, match="being stopped"):
            await engine.apply(engine.render(nat()))

    stage.play(act)


def test_a_refused_plan_leaves_the_old_one(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        old, new = engine.render(nat()), engine.render(nat("persistence: {by: source_ip}"))
        await engine.apply(old)
        stage.kernel.refusals = 1
        with pytest.raises(EngineError):
            await engine.apply(new)
        await engine.set_nodes({"s/b": DOWN})
        assert stage.share("b") == 0
        await engine.apply(new)
        assert stage.kernel.held("persist-s") == []
        assert stage.share("b") == 0

    stage.play(act)


def test_what_the_kernel_did_not_take_of_node_states_is_told_again(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat()))
        stage.kernel.refusals = 2
        with pytest.raises(EngineError):
            await engine.set_nodes({"s/a": UP, "s/b": DOWN})
        await eventually(lambda: stage.share("b") == 0)

    stage.play(act)


def test_connections_of_a_cut_node_are_ended_once(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat()))
        for state in (DOWN, GONE, GONE, DISABLED):
            await engine.set_nodes({"s/a": UP, "s/b": state})
        assert stage.kernel.ended == [int(stage.mark("b"), 16)]
        await engine.set_nodes({"s/a": UP, "s/b": UP})
        await engine.set_nodes({"s/a": UP, "s/b": DISABLED})
        assert len(stage.kernel.ended) == 2

    stage.play(act)


def test_connections_that_could_not_be_ended_are_ended_later(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat()))
        stage.kernel.unable_to_end = 1
        with pytest.raises(EngineError):
            await engine.set_nodes({"s/a": UP, "s/b": GONE})
        await eventually(lambda: stage.kernel.ended)
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert stage.kernel.ended == [int(stage.mark("b"), 16)], "once"

    stage.play(act)


def test_a_plan_ends_what_is_open_on_nodes_that_are_cut_already(stage: Stage) -> None:
    """They may have been cut while no supervisor was there."""

    async def act(engine: Layer4Engine) -> None:
        engine.prepare({"s/a": UP, "s/b": DISABLED})
        await engine.apply(engine.render(nat()))
        assert stage.kernel.ended == [int(stage.mark("b"), 16)]

    stage.play(act)


def test_rules_that_another_program_wiped_are_written_anew(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat()))
        await engine.set_nodes({"s/a": UP, "s/b": DOWN})
        stage.kernel.wipe()
        await eventually(stage.kernel.found)
        await eventually(lambda: any(isinstance(event, Layer4Restored) for event in stage.events))
        assert stage.share("b") == 0

    stage.play(act)
    assert len([event for event in stage.events if isinstance(event, Layer4Started)]) == 1


def test_what_another_program_flushed_of_our_sets_is_written_again(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat()))
        await engine.set_nodes({"s/a": UP, "s/b": DOWN})
        stage.kernel.held("slots-s").clear()
        stage.kernel.touch()
        await eventually(lambda: stage.share("a") == 840)

    stage.play(act)
    assert not any(isinstance(event, Layer4Restored) for event in stage.events), "no rule was lost"


def test_what_another_program_flushed_of_what_the_plan_fills_is_written_again(stage: Stage) -> None:
    """Which addresses are served, and where each node is: without them nobody is led anywhere."""
    filled: dict[str, list[str]] = {}

    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat()))
        for table in engine.render(nat()).tables:
            filled.update((each.name, list(each.elements)) for each in table.keyed if each.elements)
        assert {"services-ip", "counted"} <= filled.keys()
        for name in filled:
            stage.kernel.held(name).clear()
        stage.kernel.touch()
        await eventually(lambda: all(stage.kernel.held(name) == held for name, held in filled.items()))

    stage.play(act)
    assert not any(isinstance(event, Layer4Restored) for event in stage.events), "no rule was lost"


@pytest.mark.parametrize("moment", ["found", "rules"])
def test_rules_that_another_program_wipes_as_soon_as_they_are_written_come_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """As a firewall does that starts at the same time: nothing is not taken for what should be there."""
    real = getattr(stage.kernel, moment)
    wiped: list[bool] = []

    def wipe_first() -> object:
        if stage.kernel.told and not wiped:
            wiped.append(True)
            stage.kernel.wipe()
        return real()

    async def act(engine: Layer4Engine) -> None:
        monkeypatch.setattr(stage.kernel, moment, wipe_first)
        await engine.apply(engine.render(nat()))
        assert wiped
        await eventually(lambda: any(isinstance(event, Layer4Restored) for event in stage.events))
        assert (stage.share("a"), stage.share("b")) == (420, 420)
        assert await engine.fault() is None

    stage.play(act)


def test_rules_do_without_an_interface_that_is_gone_until_it_is_back(stage: Stage) -> None:
    services = "s: {protocol: tcp, ports: [80], mode: l4_dr, listen: 10.0.0.100, nodes: {a: {address: 10.0.0.11}}}"

    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(plan_of(services)))
        assert stage.kernel.held("arrive-eth0") != []
        stage.kernel.links = {}
        await eventually(lambda: stage.kernel.held("arrive-eth0") == [])
        await eventually(lambda: any(isinstance(event, Layer4Restored) for event in stage.events))
        assert (await engine.observe()).problems == {"s": "the interface eth0 is not there (any more)"}
        assert await engine.check(engine.render(plan_of(services))) == []
        stage.kernel.links = {"eth0": 9}
        await eventually(lambda: stage.kernel.held("arrive-eth0") != [])
        await eventually(lambda: len([event for event in stage.events if isinstance(event, Layer4Restored)]) == 2)
        assert (await engine.observe()).problems == {}

    stage.play(act)


def test_slots_follow_live_connections(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat("balance: least_connections")))
        a = stage.mark("a")
        stage.kernel.connections = {int(a, 16): 240}
        await eventually(lambda: stage.share("a") == 0)
        stage.kernel.connections = {}
        await eventually(lambda: stage.share("a") == 120)

    stage.play(act)


def test_what_is_live_and_what_passed_is_observed(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat()))
        stage.kernel.connections = {int(stage.mark("a"), 16): 3, 0x45FFFFFF: 9}
        stage.kernel.packets = {"inet in-s/a": (10, 1000), "inet out-s/a": (20, 5000), "netdev in-s/b": (7, 7)}
        found = await engine.observe()
        assert found.connections == {"s": 3}
        counts = found.nodes["s/a"]
        assert (counts.connections, counts.bytes_in, counts.bytes_out) == (3, 1000, 5000)
        assert (found.nodes["s/b"].connections, found.nodes["s/b"].bytes_in) == (0, 0)

    stage.play(act)


def test_a_stop_refuses_new_flows_waits_for_live_ones_and_clears_away(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat()))
        stage.kernel.connections = {int(stage.mark("a"), 16): 1}
        stopping = asyncio.get_running_loop().create_task(engine.stop(PATIENCE_S))
        await eventually(lambda: stage.kernel.held("slots-s") == [])
        assert stage.kernel.held("takes-s") == []
        assert len(stage.kernel.held("holds-s")) == 2
        assert not stopping.done()
        stage.kernel.connections = {}
        await stopping
        assert stage.kernel.found() == {}
        assert not (stage.directories.runtime / "layer4.json").exists()

    stage.play(act)


@pytest.mark.parametrize("hurried", [True, False])
def test_a_stop_ends_in_time_or_when_it_is_hurried(stage: Stage, hurried: bool) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat()))
        stage.kernel.connections = {int(stage.mark("a"), 16): 1}
        stopping = asyncio.get_running_loop().create_task(engine.stop(3600 if hurried else 0.05))
        await eventually(lambda: stage.kernel.held("slots-s") == [] if stage.kernel.objects else True)
        if hurried:
            engine.hurry()
        await stopping
        assert stage.kernel.found() == {}

    stage.play(act)


def test_a_plan_without_layer_4_takes_the_rules_away(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat()))
        await engine.apply(Artifact(name=stage.kernel.name))
        assert stage.kernel.found() == {}
        await engine.set_nodes({"s/a": DOWN})
        await engine.apply(engine.render(nat()))
        assert stage.share("a") == 0

    stage.play(act)


def test_who_leaves_changes_nothing_any_more(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat("balance: least_connections")))
        engine.leave()
        stage.kernel.wipe()
        told = len(stage.kernel.told)
        await engine.watch()
        await asyncio.sleep(0.1)
        assert len(stage.kernel.told) == told

    stage.play(act)


def test_what_a_former_plan_left_over_is_cleared_away_by_and_by(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat("persistence: {by: source_ip}")))
        await engine.apply(engine.render(nat()))
        await engine.watch()
        assert ("inet", "map", "persist-s") not in stage.kernel.objects
        told = len(stage.kernel.told)
        await engine.watch()
        assert len(stage.kernel.told) == told

    stage.play(act)


@pytest.mark.parametrize("just", ["before", "during"])
def test_what_another_program_flushes_when_leftovers_are_cleared_away_comes_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, just: str
) -> None:
    def flush() -> None:
        stage.kernel.held("slots-s").clear()
        stage.kernel.touch()

    def load_and_flush(text: str) -> None:
        FakeKernel.load(stage.kernel, text)
        if "delete map" in text:
            flush()

    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat("persistence: {by: source_ip}")))
        await engine.apply(engine.render(nat()))
        with monkeypatch.context() as patch:
            if just == "before":
                flush()
            else:
                patch.setattr(stage.kernel, "load", load_and_flush)
            await engine.watch()
        await eventually(lambda: stage.kernel.held("slots-s"))
        await engine.watch()
        await eventually(lambda: ("inet", "map", "persist-s") not in stage.kernel.objects)

    monkeypatch.setattr(runner, "_TICK_S", 0.2)  # watching comes first
    stage.play(act)


def test_it_is_at_fault_while_rules_cannot_be_put_back(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        assert await engine.fault() is None
        await engine.apply(engine.render(nat()))
        await asyncio.sleep(0.1)
        assert await engine.fault() is None
        stage.kernel.refusals = 1_000_000
        stage.kernel.wipe()
        await until(engine.fault, "the kernel refuses")
        stage.kernel.refusals = 0
        await until(engine.fault, None)

    stage.play(act)


async def until(ask: Callable[[], Awaitable[str | None]], wanted: str | None) -> None:
    found = await ask()
    for _ in range(1000):
        if found == wanted:
            return
        await asyncio.sleep(0.01)
        found = await ask()
    raise AssertionError(f"{found!r} is not {wanted!r}")


def test_what_conntrackd_needs_is_written_with_the_plan_and_goes_with_it(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "conntrackd.conf"
    peer = Cluster("primary", "10.0.0.2", "10.0.0.3", "eth0", 0.2, False, 11251, ())

    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(replace(nat(), cluster=peer)))
        assert "IPv4_Destination_Address 10.0.0.3" in file.read_text()
        await engine.apply(engine.render(nat()))
        assert not file.exists()

    stage.play(act)


def test_a_stop_leaves_no_rules_where_another_program_flushed_them_just_before(stage: Stage) -> None:
    async def act(engine: Layer4Engine) -> None:
        await engine.apply(engine.render(nat()))
        stage.kernel.wipe()
        with pytest.raises(EngineError, match="no such thing"):  # said to whoever stops all engines
            await engine.stop(5)

    stage.play(act)
    assert stage.kernel.objects == {}
