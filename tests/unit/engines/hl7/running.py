"""HL7 services on real sockets, in this process: senders and receivers that do as they are told."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import uvloop

from equipoise.base.clock import SystemClock
from equipoise.base.tasks import Tasks
from equipoise.engines.gateway.hl7.service import Hl7Service
from equipoise.engines.gateway.messages import ServiceTask
from equipoise.engines.gateway.room import Room
from equipoise.engines.gateway.security import Security, secured
from equipoise.engines.gateway.service import Surroundings
from equipoise.engines.gateway.side import READ_BUFFER_BYTES
from equipoise.plan.model import Endpoint, Node
from equipoise.proto.hl7 import read_header
from equipoise.proto.mllp import FrameReader, Framing
from equipoise.state.events import Event, SenderEnded
from tests.unit.engines.hl7.scene import DICOM, SETTINGS, acknowledgement, task
from tests.unit.engines.running import PATIENCE_S, eventually

__all__ = ["DICOM", "PATIENCE_S", "Receiver", "Running", "Wire", "dial", "eventually", "play"]
MOST_BYTES = 256 * 1024 * 1024


class Wire:
    """One end of a connection that carries frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._frames = FrameReader(Framing(), MOST_BYTES)
        self._got: list[bytes] = []

    def send(self, *contents: bytes) -> None:
        self.writer.write(b"".join(map(Framing().wrap, contents)))

    async def frame(self) -> bytes | None:
        """Return the next frame's content; None where the connection ends."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._got:
                try:
                    data = await self.reader.read(1 << 18)
                except (ConnectionError, ssl.SSLError):
                    return None
                if not data:
                    return None
                self._got += [frame.content for frame in self._frames.feed(data)]
        return self._got.pop(0)

    def close(self) -> None:
        self.writer.close()


async def dial(port: int, tls: ssl.SSLContext | None = None, *, window: int | None = None) -> Wire:
    """Return a sender that has connected; `window` is its receive buffer."""
    sock = socket.socket()
    if window is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    name = "localhost" if tls is not None else None
    return Wire(*await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=name, limit=1 << 16))


Says = Callable[[Wire, bytes], Awaitable[None]]


async def accepts(wire: Wire, content: bytes) -> None:
    """Acknowledge what wants it."""
    header = read_header(content)
    if header.accept != b"NE":
        wire.send(acknowledgement(header.control_id.decode()))


class Receiver:
    """A node; `taken` are the messages that it got, `wires` its connections."""

    def __init__(self, says: Says = accepts, tls: ssl.SSLContext | None = None) -> None:
        self._says, self._tls = says, tls
        self.taken: list[bytes] = []
        self.wires: list[Wire] = []
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = int(self._sock.getsockname()[1])

    async def start(self) -> "Receiver":
        self._server = await asyncio.start_server(self._serve, sock=self._sock, ssl=self._tls)
        return self

    def close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        self.wires.append(wire)
        while (content := await self._next(wire)) is not None:
            self.taken.append(content)
            await self._says(wire, content)
        wire.close()

    async def _next(self, wire: Wire) -> bytes | None:
        try:
            return await wire.frame()
        except TimeoutError:
            return None


class Running:
    """One service of a process; `failures` are bugs that ended in a task or the event loop."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.failures: list[object] = []
        self.room = Room(1000)
        self.tasks = Tasks(lambda name, error: self.failures.append((name, error)))
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.failures.append(context))
        self._around = Surroundings(
            buffer=memoryview(bytearray(READ_BUFFER_BYTES)),
            tasks=self.tasks,
            clock=SystemClock(),
            emit=self.events.append,
            room=self.room,
            changed=lambda service: None,
            service=lambda name: None,
        )
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._sock.setblocking(False)
        self.place = Endpoint(*self._sock.getsockname()[:2])
        self._receivers: list[Receiver] = []

    async def serve(self, *receivers: Receiver, tls: Any = None, node_tls: Any = None, **hl7: Any) -> int:
        """Serve these receivers; return the port."""
        for receiver in receivers:
            self._receivers.append(await receiver.start())
        nodes = tuple(
            Node(name, f"127.0.0.1:{receiver.port}", "127.0.0.1", receiver.port, 100, None, backup=False)
            for name, receiver in zip("abc", receivers, strict=False)
        )
        made = task(nodes, "first_up", queue_wait_s=5, limit=None, hl7=replace(SETTINGS, **hl7))
        self.task: ServiceTask = type(made)(
            **{field: getattr(made, field) for field in made.__struct_fields__ if field not in _OWN},
            listen=(self.place,),
            tls=tls,
            node_tls=node_tls,
        )
        security = secured(self.task, Security(), None)
        assert security.problem is None
        self.service = Hl7Service(self.task, {}, self._around, security)
        await self.service.listen({self.place: self._sock})
        return self.place.port

    def ended(self) -> list[SenderEnded]:
        """Return how senders' connections ended so far."""
        return [event for event in self.events if isinstance(event, SenderEnded)]

    async def one_ended(self) -> SenderEnded:
        await eventually(self.ended, "an end")
        return self.ended()[0]

    async def settled(self) -> None:
        """Wait until everything is given back, and hold that nothing broke inside."""
        service = self.service
        await eventually(
            lambda: self.failures or (self.room.held == 0 and service.is_empty and not service.dispatch.waiting),
            f"{self.room} given back",
        )
        assert self.failures == []
        assert service.pool.open == 0
        service.leave()
        await eventually(lambda: not service.dispatch.delivery.connections.links, "receivers' connections closed")
        await eventually(lambda: len(self.tasks) == 0, "all tasks at their end")
        assert (service.large._reading, len(service.large._waiting)) == (set(), 0)
        assert self.failures == []

    def close(self) -> None:
        self.service.leave()
        self._sock.close()
        for receiver in self._receivers:
            receiver.close()


_OWN = ("listen", "tls", "node_tls")


def play(scene: Callable[[Running], Awaitable[None]]) -> None:
    """Run a scene; at its end everything must be given back."""

    async def run() -> None:
        running = Running()
        try:
            async with asyncio.timeout(60):
                await scene(running)
                await running.settled()
        finally:
            running.close()

    uvloop.run(run())
