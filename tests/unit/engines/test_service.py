"""One service of a gateway on real sockets: its queue, when there are many in it."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import uvloop

from equipoise.base.clock import SystemClock
from equipoise.base.tasks import Tasks
from equipoise.engines.gateway.dicom_service import DicomService
from equipoise.engines.gateway.messages import ServiceTask
from equipoise.engines.gateway.room import Room
from equipoise.engines.gateway.security import Security
from equipoise.engines.gateway.service import Surroundings
from equipoise.plan.model import Endpoint, Node, Persistence
from equipoise.plan.states import NodeState
from equipoise.proto.dicom.pdu import REJECT_CONGESTION, REJECT_LIMIT
from equipoise.state.events import AssociationEnded, Event
from tests.unit.engines.running import SETTINGS
from tests.unit.proto.captures import ECHOSCU_RQ

WAITING = 600  # far more than Python's stack would carry if each one's end served the next


class Bench:
    """A service with one node that takes one association and answers nothing."""

    def __init__(self, queue_wait_s: float) -> None:
        self.events: list[Event] = []
        self.failures: list[object] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.node = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        endpoint = Endpoint("127.0.0.1", self.port)
        host, port = self.node.getsockname()
        task = ServiceTask(
            name="s",
            listen=(endpoint,),
            balance="least_connections",
            persistence=Persistence("none", 1800.0, 32, 64),
            nodes=(Node("a", "a", host, port, 100, 1, False),),
            allow_from=(),
            max_connections=None,
            queue_wait_s=queue_wait_s,
            source_address=None,
            dicom=replace(SETTINGS, setup_timeout_s=60.0, artim_s=30.0),
        )
        around = Surroundings(
            buffer=memoryview(bytearray(1 << 16)),
            tasks=Tasks(lambda name, error: self.failures.append((name, error))),
            clock=SystemClock(),
            emit=self.events.append,
            room=Room(10_000),
            changed=lambda service: None,
            service=lambda name: None,
        )
        self.service = DicomService(task, {}, around, Security())
        self.service.configure(task, {}, Security(), {})
        self.sockets = {endpoint: self.listener}

    async def callers(self, count: int) -> list[asyncio.StreamReader]:
        """Let so many ask for an association; return where their answers come once all have asked."""
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.failures.append(context))
        await self.service.listen(self.sockets)
        self.writers, readers = [], []
        for number in range(count):
            source = (f"127.0.0.{1 + number % 4}", 0)  # of one address no more than 256 may wait
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=source)
            writer.write(ECHOSCU_RQ)
            self.writers.append(writer)
            readers.append(reader)
        for _ in range(3000):
            if self.service.observe().waiting + len(self.ended()) >= count - 1:
                return readers
            await asyncio.sleep(0.01)
        raise AssertionError("not all of them wait or have waited")

    def ended(self) -> list[str]:
        """Return how associations ended so far."""
        return [event.ended for event in self.events if isinstance(event, AssociationEnded)]

    def close(self) -> None:
        """Close everything."""
        self.service.leave()
        for writer in self.writers:
            writer.close()
        self.listener.close()
        self.node.close()


def run(scene: Callable[[Bench], Awaitable[None]], queue_wait_s: float = 60.0) -> None:
    async def play() -> None:
        bench = Bench(queue_wait_s)
        try:
            await asyncio.wait_for(scene(bench), 60)
        finally:
            bench.close()
        assert bench.failures == []

    uvloop.run(play())


def test_all_who_wait_are_answered_when_the_last_node_goes_down() -> None:
    async def scene(bench: Bench) -> None:
        readers = await bench.callers(WAITING)
        bench.service.set_state("a", NodeState("down", 100))
        for reader in readers[1:]:
            assert await reader.readexactly(10) == REJECT_CONGESTION.encode()
        assert bench.service.observe().waiting == 0
        assert bench.ended() == ["no_node"] * (WAITING - 1)

    run(scene)


@pytest.mark.parametrize("count", [2, 40])
def test_who_waited_long_enough_is_told_that_we_are_full(count: int) -> None:
    async def scene(bench: Bench) -> None:
        readers = await bench.callers(count)
        for reader in readers[1:]:
            assert await reader.readexactly(10) == REJECT_LIMIT.encode()
        assert bench.service.observe().nodes["a"].associations == 1

    run(scene, queue_wait_s=0.3)
