"""What gateways tell of their clients, over a real channel; and engines with real processes."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from equipoise.base.clock import SystemClock
from equipoise.base.errors import EngineError
from equipoise.engines.gateway import runner
from equipoise.engines.gateway.channel import Channel
from equipoise.engines.gateway.messages import Body, Kept, KeptClient, Message, Recall, Share
from equipoise.engines.gateway.pool import Picked
from equipoise.engines.gateway.sharing import Sharing
from equipoise.plan.model import Persistence
from equipoise.plan.soft import SoftEntry, SoftState
from equipoise.policy.base import Client
from tests.unit.engines.running import Running, eventually, nodes, play, task
from tests.unit.engines.test_runner import Engine, run

TABLE = "gateway/persistence/pool"
BY_SOURCE = {"persistence": {"by": "source_ip"}, "balance": "round_robin"}


class Told:
    """A supervisor's end of a channel to the sharing of services; `kept` is what it was told unasked."""

    def __init__(self, sharing: Sharing) -> None:
        theirs, ours = socket.socketpair()
        self.kept: list[dict[str, tuple[KeptClient, ...]]] = []
        self._gateway = Channel(theirs, lambda channel, message, _: sharing.heard(channel, message), self._ended)
        self._sharing = sharing
        self.channel = Channel(ours, self._heard, lambda channel, reason: None)

    def _heard(self, channel: Channel, message: Message, sockets: list[socket.socket]) -> None:
        assert isinstance(message.body, Kept)
        self.kept.append(message.body.tables)

    def _ended(self, channel: Channel, reason: str) -> None:
        self._sharing.closed(channel)

    async def ask(self, body: Body) -> Body:
        return (await self.channel.ask(body))[0]

    async def share(self) -> None:
        self.channel.send(Share())
        await self.ask(Recall(service="none", most=0))  # an answer behind it: it has been taken


def told(scene: Callable[[Running, Sharing, Told], Awaitable[None]]) -> None:
    async def inside(running: Running) -> None:
        by_source = Persistence("source_ip", 1800.0, 32, 64)
        await running.serve(
            *(task(name, nodes=nodes({"a": 1, "b": 2}), persistence=by_source) for name in ("ct", "mr"))
        )
        sharing = Sharing(running.services.values, SystemClock())
        supervisor = Told(sharing)
        try:
            await scene(running, sharing, supervisor)
        finally:
            supervisor.channel.close()
            await eventually(lambda: sharing._reader is None, "the end of sharing")

    play(inside)


def comes(running: Running, service: str, source: str) -> None:
    """Let a client come and go."""
    pool = running.services[service].pool
    picked = pool.pick(Client(source, "CT"), (), running.services[service].now())
    assert isinstance(picked, Picked)
    pool.release(picked)


def test_nobody_is_told_who_has_not_asked_and_a_new_supervisor_asks_again() -> None:
    async def scene(running: Running, sharing: Sharing, first: Told) -> None:
        comes(running, "ct", "192.0.2.1")
        await first.share()
        comes(running, "ct", "192.0.2.2")
        comes(running, "mr", "192.0.2.3")
        await eventually(lambda: first.kept, "the news")
        (tables,) = first.kept
        assert {name: [entry[:2] for entry in entries] for name, entries in tables.items()} == {
            "ct": [("192.0.2.2", "a")],
            "mr": [("192.0.2.3", "a")],
        }
        assert 1700 < tables["ct"][0][2] <= 1800

        first.channel.close()
        await eventually(lambda: sharing._reader is None, "the end of sharing")
        second = Told(sharing)
        comes(running, "ct", "192.0.2.4")
        await second.share()
        comes(running, "ct", "192.0.2.5")
        await eventually(lambda: second.kept, "the news")
        assert [entry[0] for entry in second.kept[0]["ct"]] == ["192.0.2.5"]
        second.channel.close()

    told(scene)


def test_a_whole_table_comes_youngest_first_and_no_longer_than_asked_for() -> None:
    async def scene(running: Running, sharing: Sharing, supervisor: Told) -> None:
        for number in range(1, 5):
            comes(running, "ct", f"192.0.2.{number}")
        running.services["ct"].pool.table.keep("x" * 257, "a", running.services["ct"].now())
        answer = await supervisor.ask(Recall(service="ct", most=3))
        assert isinstance(answer, Kept)
        assert [entry[0] for entry in answer.tables["ct"]] == ["192.0.2.4", "192.0.2.3"], "nor what nobody is told of"
        assert await supervisor.ask(Recall(service="gone", most=3)) == Kept(tables={"gone": ()})

    told(scene)


def test_what_another_machine_knows_is_merged_and_not_told_back() -> None:
    async def scene(running: Running, sharing: Sharing, supervisor: Told) -> None:
        await supervisor.share()
        theirs = (("192.0.2.1", "b", 1000.0), ("192.0.2.2", "gone", 1000.0), ("192.0.2.3", "a", 1.0))
        comes(running, "ct", "192.0.2.3")
        await supervisor.ask(Kept(tables={"ct": theirs, "unknown": theirs}))
        table = running.services["ct"].pool.table
        assert {key: (node, left_s > 900) for key, node, left_s in table.entries(running.services["ct"].now())} == {
            "192.0.2.1": ("b", True),
            "192.0.2.3": ("a", True),
        }
        await eventually(lambda: supervisor.kept, "the news")
        await asyncio.sleep(0.3)
        assert [[entry[0] for entry in tables["ct"]] for tables in supervisor.kept] == [["192.0.2.3"]]

    told(scene)


async def node_of(engine: Engine, calling: str = "CT") -> str:
    """Return which node a client gets now that comes from this machine."""
    before = (await engine.engine.observe()).nodes
    line = await engine.associated(calling)
    after = (await engine.engine.observe()).nodes
    await line.release()
    (name,) = [key for key in after if after[key].associations > before[key].associations]
    return name.removeprefix("pool/")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    assert len(str(tmp_path)) < 80
    return tmp_path


def test_engines_share_what_gateways_learn_and_survive_their_death(directory: Path) -> None:
    async def scene(engine: Engine) -> None:
        shared: list[SoftState] = []
        engine.engine.share(shared.append)
        await engine.up(a=False, b=True)
        assert await node_of(engine) == "b"
        await engine.up(a=True, b=True)
        await eventually(lambda: shared, "the news")
        (entry,) = shared[0][TABLE]
        assert (entry.key, entry.node) == ("127.0.0.1", "b")
        known = await engine.engine.soft_state()
        assert [(each.key, each.node) for each in known[TABLE]] == [("127.0.0.1", "b")]
        assert known.keys() == {TABLE}

        (pid,) = engine.pids()
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: engine.pids() not in ([], [pid]), "another gateway")
        await given(engine, known)
        assert await node_of(engine) == "b"

        engine.engine.leave()
        engine.engine = engine.another()
        engine.engine.share(shared.append)
        await engine.engine.adopt()
        await engine.apply(**BY_SOURCE)
        shared.clear()
        await engine.up(a=True, b=False)
        assert await node_of(engine) == "a"
        await eventually(lambda: shared, "the news of an adopted gateway")
        assert shared[-1][TABLE][-1].node == "a"

        engine.engine.share(None)
        await engine.engine.observe()
        shared.clear()
        await engine.up(a=False, b=True)
        assert await node_of(engine) == "b"
        await asyncio.sleep(0.3)
        assert shared == []

    run(directory, scene, **BY_SOURCE)


async def given(engine: Engine, state: SoftState) -> None:
    """Merge, again while a gateway is being started."""
    deadline_s = asyncio.get_running_loop().time() + 20
    while True:
        try:
            return await engine.engine.merge(state)
        except EngineError:
            assert asyncio.get_running_loop().time() < deadline_s
            await asyncio.sleep(0.05)


def test_what_is_of_no_service_is_left_out_and_a_missing_gateway_is_told(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_PAUSES_S", (60.0,))  # none is started again meanwhile

    async def scene(engine: Engine) -> None:
        entries = (SoftEntry("127.0.0.1", "b", 60.0), SoftEntry("127.0.0.2", "gone", 60.0))
        await engine.engine.merge({"gateway/persistence/gone": entries, "layer4/flows/pool": entries, TABLE: entries})
        assert [entry.key for entry in (await engine.engine.soft_state())[TABLE]] == ["127.0.0.1"]
        (pid,) = engine.pids()
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not engine.engine._serving, "its death")
        with pytest.raises(EngineError, match="no gateway has pool now"):
            await engine.engine.merge({TABLE: entries})

    run(directory, scene, **BY_SOURCE)


def test_a_whole_table_travels(directory: Path) -> None:
    async def scene() -> None:
        engine = Engine(directory)
        try:
            await engine.start(**BY_SOURCE)
            entries = tuple(
                SoftEntry(f"192.0.{n // 250}.{n % 250}", "ab"[n % 2], 600.0 + n / 1000) for n in range(65_536)
            )
            await engine.engine.merge({TABLE: entries})
            known = (await engine.engine.soft_state())[TABLE]
            assert len(known) == 65_536
            assert (known[0].key, known[0].node) == (entries[-1].key, entries[-1].node), "the youngest first"
        finally:
            await engine.close()

    uvloop.run(asyncio.wait_for(scene(), 60))
