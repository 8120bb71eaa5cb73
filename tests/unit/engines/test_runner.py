"""The supervisor's side with real gateway processes: what one has learned and holds, the next one knows."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import uvloop

from equipoise.app.wiring import catalogue
from equipoise.base.clock import SystemClock
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.config.loading import load
from equipoise.engines.gateway import runner
from equipoise.engines.gateway.channel import Channel
from equipoise.engines.gateway.messages import Learned, Message, Serve
from equipoise.engines.gateway.runner import MAX_LEARNED, GatewayEngine
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.plan.states import NodeState
from equipoise.proto.dicom.association import encode_request
from equipoise.proto.dicom.pdu import PduType
from equipoise.sim.ports import free_port
from equipoise.state.events import Event, GatewayReplaced, GatewayStarted
from tests.playbook.scene import STORE_RQ
from tests.property.dicom_streams import p_data, pdv
from tests.system.rawpeer import CONTEXTS
from tests.unit.engines.running import Archive, Line, dial, eventually

BIG_BYTES = 3_000_000


class Engine:
    """An engine, its two archives and the port of `front`, whose WL calls go to `pool`."""

    def __init__(self, directory: Path) -> None:
        self.directories = Directories(directory, directory)
        self.events: list[Event] = []
        self.told: list[dict[str, Any]] = []
        self.failures: list[object] = []
        self.tasks = Tasks(lambda name, error: self.failures.append((name, error)))
        self.port = free_port()
        self.engine = self.another()

    def another(self) -> GatewayEngine:
        return GatewayEngine(self.directories, self.tasks, SystemClock(), self.events.append, self._relay)

    def _relay(self, events: tuple[msgspec.Raw, ...]) -> None:
        self.told += [msgspec.json.decode(event) for event in events]

    async def start(self, **pool: Any) -> None:
        self.a, self.b = await Archive().start(), await Archive().start()
        await self.apply(**pool)

    async def apply(self, **pool: Any) -> None:
        service = {
            "protocol": "dicom",
            "balance": "least_work",
            "nodes": {name: {"address": f"127.0.0.1:{node.port}"} for name, node in (("a", self.a), ("b", self.b))},
            "slow_start": "0s",
            **pool,
        }
        front = {"protocol": "dicom", "listen": f"127.0.0.1:{self.port}", "routes": [{"called_ae": "WL", "to": "pool"}]}
        text = msgspec.json.encode({"site": "x", "services": {"front": front, "pool": service}}).decode()
        plan = compile_plan(load(text, "site.yaml", catalogue()).site, HostFacts())
        await self.engine.apply(self.engine.render(plan))

    async def up(self, **up: bool) -> None:
        """Have exactly these nodes up."""
        await self.engine.set_nodes(
            {f"pool/{name}": NodeState("up" if yes else "drain", 100) for name, yes in up.items()}
        )
        await self.engine.observe()  # an answer behind it: it has been taken

    async def associated(self, calling: str) -> Line:
        return await (await dial(self.port)).associate(encode_request("WL", calling, CONTEXTS))

    def pids(self) -> list[int]:
        started = {event.pid for event in self.events if isinstance(event, GatewayStarted)}
        return sorted(pid for pid in started if Path(f"/proc/{pid}/cmdline").exists() and _runs(pid))

    async def connections(self) -> tuple[int, int]:
        """Return what is open at nodes a and b, in all processes."""
        nodes = (await self.engine.observe()).nodes
        return nodes["pool/a"].connections, nodes["pool/b"].connections

    async def close(self) -> None:
        await self.engine.stop(0)
        await self.tasks.cancel_all()
        self.a.close()
        self.b.close()
        assert self.failures == []


def _runs(pid: int) -> bool:
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]


def run(directory: Path, scene: Callable[[Engine], Awaitable[None]], **pool: Any) -> None:
    async def play() -> None:
        engine = Engine(directory)
        try:
            await engine.start(**pool)
            async with asyncio.timeout(60):
                await scene(engine)
        finally:
            await engine.close()

    uvloop.run(play())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    assert len(str(tmp_path)) < 80
    return tmp_path


async def teach(engine: Engine) -> None:
    """Let BIG move megabytes once."""
    line = await engine.associated("BIG")
    line.send(STORE_RQ)
    for _ in range(BIG_BYTES // 16000):
        line.send(p_data(pdv(1, 0, bytes(16000))))
    line.send(p_data(pdv(1, 2, b"end")))
    await line.writer.drain()
    line.close()


async def knows_big(engine: Engine) -> bool:
    """Say whether the gateway keeps BIG away from where another BIG is.

    Counted by associations, or all of them being alike, node a with one is better than b with two.
    """
    lines = []
    for up, callers in (({"a": True, "b": False}, ["BIG"]), ({"a": False, "b": True}, ["SMALL", "SMALL"])):
        await engine.up(**up)
        lines += [await engine.associated(calling) for calling in callers]
    assert await engine.connections() == (1, 2)
    await engine.up(a=True, b=True)
    lines.append(await engine.associated("BIG"))
    found = await engine.connections()
    for line in lines:
        await line.release()
    assert found in ((2, 2), (1, 3))
    return found == (1, 3)


def test_what_was_learned_goes_from_gateway_to_gateway(directory: Path) -> None:
    """Replaced, killed, or of an earlier life: each new process is told."""

    async def scene(engine: Engine) -> None:
        for archive in (engine.a, engine.b):
            archive.echoes = False
        assert not await knows_big(engine)
        await teach(engine)
        learned = engine.engine.learned
        await eventually(lambda: learned.get("pool", {}).get("BIG", 0) > BIG_BYTES / 10, "what was learned")
        assert learned["pool"].keys() == {"BIG", "SMALL"}
        assert "front" not in learned, "an association is the pool's"
        assert await knows_big(engine)

        await engine.engine.replace("a test asks for it")
        assert await knows_big(engine)
        await eventually(lambda: len(engine.pids()) == 1, "the end of the old one")

        (pid,) = engine.pids()
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: engine.pids() not in ([], [pid]), "another gateway")
        assert await knows_big(engine)

    run(directory, scene)


def test_a_gateway_is_told_of_an_earlier_life_at_its_start(directory: Path) -> None:
    async def scene() -> None:
        engine = Engine(directory)
        engine.engine.learned = {"pool": {"BIG": 50e6, "SMALL": 900.0, "BAD": -1.0, "": 1e300}, "gone": {"X": 1.0}}
        await engine.start()
        try:
            assert await knows_big(engine)
        finally:
            await engine.close()

    uvloop.run(asyncio.wait_for(scene(), 60))


def test_routed_associations_outlive_a_replacement_and_the_successor_counts_them(directory: Path) -> None:
    async def scene(engine: Engine) -> None:
        await engine.up(a=True, b=False)
        first = await engine.associated("FIRST")
        await engine.engine.replace("a test asks for it")
        (replaced,) = [event for event in engine.events if isinstance(event, GatewayReplaced)]
        assert engine.pids() == sorted((replaced.old_pid, replaced.new_pid))
        await first.echo()
        assert await engine.connections() == (1, 0), "counted once"

        second = await dial(engine.port)
        second.send(encode_request("WL", "SECOND", CONTEXTS))
        await asyncio.sleep(0.3)
        assert await engine.connections() == (1, 0), "the limit counts what the old gateway holds"
        await first.release()
        assert (await second.pdu())[:1] == bytes([PduType.ASSOCIATE_AC])
        await eventually(lambda: engine.pids() == [replaced.new_pid], "the end of the old gateway")
        await second.echo()
        await second.release()
        await eventually(lambda: len(ended(engine)) == 2, "two ends")
        assert {(event["service"], event["routed_from"], event["ended"]) for event in ended(engine)} == {
            ("pool", "front", "released")
        }
        assert await engine.connections() == (0, 0)

    run(directory, scene, max_connections=1, queue_wait="30s")


def test_a_node_that_is_disabled_is_so_in_the_old_gateway_too(directory: Path) -> None:
    async def scene(engine: Engine) -> None:
        await engine.up(a=True, b=False)
        line = await engine.associated("FIRST")
        await engine.engine.replace("a test asks for it")
        await engine.engine.set_nodes({"pool/a": NodeState("disabled", 100), "pool/b": NodeState("up", 100)})
        assert (await line.pdu())[:1] == bytes([PduType.ABORT])
        line.close()
        await eventually(lambda: ended(engine), "its end")
        assert [(event["service"], event["ended"]) for event in ended(engine)] == [("pool", "disabled")]
        await (await engine.associated("SECOND")).release()

    run(directory, scene)


def test_a_reload_that_takes_the_route_and_the_pool_away_loses_nothing(directory: Path) -> None:
    async def scene(engine: Engine) -> None:
        line = await engine.associated("FIRST")
        front = {
            "protocol": "dicom",
            "listen": f"127.0.0.1:{engine.port}",
            "nodes": {"b": {"address": f"127.0.0.1:{engine.b.port}"}},
        }
        text = msgspec.json.encode({"site": "x", "services": {"front": front}}).decode()
        plan = compile_plan(load(text, "site.yaml", catalogue()).site, HostFacts())
        await engine.engine.apply(engine.engine.render(plan))
        await line.echo()
        await (await engine.associated("SECOND")).release()
        await engine.apply()
        await line.echo()
        assert sum(await engine.connections()) == 1, "the pool that came back goes on with what it held"
        await line.release()
        await eventually(lambda: len(ended(engine)) == 2, "two ends")
        assert [event["service"] for event in ended(engine)] == ["front", "pool"]

    run(directory, scene)


def ended(engine: Engine) -> list[dict[str, Any]]:
    return [event for event in engine.told if event["kind"] == "association.ended"]


def test_titles_that_callers_make_up_do_not_grow_without_end(directory: Path) -> None:
    async def scene() -> None:
        engine = Engine(directory).engine
        for number in range(0, 3 * MAX_LEARNED, 64):
            means = {f"WILD{each}": float(each) for each in range(number, number + 64)} | {"CT": 1e7}
            engine._heard(cast(Channel, None), Message(body=Learned(service="pool", means=means)), [])
        assert len(engine.learned["pool"]) == MAX_LEARNED
        assert engine.learned["pool"]["CT"] == 1e7
        assert f"WILD{3 * MAX_LEARNED - 1}" in engine.learned["pool"]
        assert "WILD0" not in engine.learned["pool"]

    uvloop.run(scene())


def test_a_gateway_of_another_version_is_told_nothing_of_the_plan(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would not know what TLS is, and would serve in plain a port that is to speak it."""

    async def scene(engine: Engine) -> None:
        (old,) = engine.pids()
        engine.engine.leave()
        monkeypatch.setattr(runner, "__version__", "99.0")
        engine.engine = engine.another()
        await engine.engine.adopt()
        assert engine.engine.adopted == 1
        told: list[tuple[str, ...]] = []
        for process in engine.engine._all():
            monkeypatch.setattr(process, "tell", _noting(process.tell, told))
        await engine.apply()
        assert told == [()]
        (replaced,) = [event for event in engine.events if isinstance(event, GatewayReplaced)]
        assert replaced.old_pid == old != replaced.new_pid
        assert "not 99.0" in replaced.reason
        await eventually(lambda: old not in engine.pids(), "the old one gone")

    run(directory, scene)


def _noting(tell: Callable[..., Awaitable[None]], told: list[tuple[str, ...]]) -> Callable[..., Awaitable[None]]:
    async def noting(order: Serve, sockets: list[socket.socket]) -> None:
        told.append(tuple(task.name for task in order.services))
        await tell(order, sockets)

    return noting
