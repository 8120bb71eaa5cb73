"""Services of one gateway on real sockets, in this process: nodes that answer, clients that do as they are told."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import uvloop

from equipoise.base.clock import SystemClock
from equipoise.base.tasks import Tasks
from equipoise.engines.gateway.dicom_service import DicomService
from equipoise.engines.gateway.messages import ServiceTask
from equipoise.engines.gateway.room import Room
from equipoise.engines.gateway.security import Security, secured
from equipoise.engines.gateway.service import Surroundings
from equipoise.plan.model import Dicom, Endpoint, Node, Persistence
from equipoise.proto.dicom.pdu import RELEASE_RP, RELEASE_RQ, PduType
from equipoise.state.events import AssociationEnded, Event
from tests.playbook.scene import ECHO_RQ, ECHO_RSP
from tests.unit.proto.captures import ECHOSCU_RQ, STORESCP_AC

PATIENCE_S = 20.0  # this machine may be busy
SETTINGS = Dicom(
    called_ae_allow=(),
    calling_ae_allow=(),
    node_called_ae=None,
    connect_timeout_s=5.0,
    setup_timeout_s=20.0,
    artim_s=10.0,
    idle_timeout_s=3600.0,
    stall_timeout_s=60.0,
    max_associate_bytes=1 << 17,
)


async def eventually(look: Callable[[], object], what: str = "it") -> None:
    """Wait until `look` finds something."""
    deadline_s = asyncio.get_running_loop().time() + PATIENCE_S
    while not look():
        assert asyncio.get_running_loop().time() < deadline_s, f"{what} did not come about"
        await asyncio.sleep(0.005)


class Line:
    """One end of a connection that carries PDUs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.address = str(Endpoint(*writer.get_extra_info("sockname")[:2]))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def pdu(self) -> bytes:
        """Return the next PDU, whole; nothing where the connection ends."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                header = await self.reader.readexactly(6)
                return header + await self.reader.readexactly(int.from_bytes(header[2:], "big"))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return b""

    async def associate(self, request: bytes = ECHOSCU_RQ) -> "Line":
        """Ask, and be accepted."""
        self.send(request)
        answer = await self.pdu()
        assert answer[:1] == bytes([PduType.ASSOCIATE_AC]), answer
        return self

    async def echo(self) -> None:
        """Send a C-ECHO and hear its answer."""
        self.send(ECHO_RQ)
        assert await self.pdu() == ECHO_RSP

    async def release(self) -> None:
        """End the association, properly."""
        self.send(RELEASE_RQ)
        assert await self.pdu() == RELEASE_RP
        self.close()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


async def dial(port: int, *, source: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Line:
    """Return a client that has connected."""
    name = "localhost" if tls is not None else None
    return Line(
        *await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0), ssl=tls, server_hostname=name)
    )


class Archive:
    """A node that accepts, answers C-ECHO and releases; `heard` are the PDUs that came, `open_now` its connections."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.heard: list[bytes] = []
        self.open_now = 0
        self.answer = STORESCP_AC
        self.echoes = True
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(self._sock.getsockname()[1])

    async def start(self) -> "Archive":
        self._server = await asyncio.start_server(self._serve, sock=self._sock, ssl=self._tls)
        return self

    def close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer)
        self.open_now += 1
        while pdu := await self._next(line):
            self.heard.append(pdu)
            match pdu[0]:
                case PduType.ASSOCIATE_RQ if self.answer:
                    line.send(self.answer)
                case PduType.DATA_TF if self.echoes:
                    line.send(ECHO_RSP)
                case PduType.RELEASE_RQ:
                    line.send(RELEASE_RP)
                case PduType.ABORT:
                    break
        self.open_now -= 1
        line.close()

    async def _next(self, line: Line) -> bytes:
        try:
            header = await line.reader.readexactly(6)
            return header + await line.reader.readexactly(int.from_bytes(header[2:], "big"))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return b""


def nodes(ports: Mapping[str, int], **settings: Any) -> tuple[Node, ...]:
    """Return nodes on this machine, by name."""
    return tuple(
        replace(Node(name, f"127.0.0.1:{port}", "127.0.0.1", port, 100, None, backup=False), **settings)
        for name, port in ports.items()
    )


def task(name: str, *, dicom: Mapping[str, Any] | None = None, **settings: Any) -> ServiceTask:
    """Return what a gateway knows of a service; `dicom` are changes to its timers."""
    usual: dict[str, Any] = {
        "listen": (),
        "balance": "first_up",
        "persistence": Persistence("none", 1800.0, 32, 64),
        "nodes": (),
        "allow_from": (),
        "max_connections": None,
        "queue_wait_s": 5.0,
        "source_address": None,
    }
    return ServiceTask(name=name, dicom=replace(SETTINGS, **(dicom or {})), **{**usual, **settings})


class Running:
    """The services of a process; `failures` are bugs that ended in a task or the event loop."""

    def __init__(self, room: int = 10_000) -> None:
        self.events: list[Event] = []
        self.failures: list[object] = []
        self.problems: list[str] = []  # what was wrong with certificates
        self.services: dict[str, DicomService] = {}
        self.leaving: dict[str, DicomService] = {}
        self.room = Room(room)
        self._sockets: dict[Endpoint, socket.socket] = {}
        self.tasks = Tasks(lambda name, error: self.failures.append((name, error)))
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.failures.append(context))
        self._around = Surroundings(
            buffer=memoryview(bytearray(1 << 16)),
            tasks=self.tasks,
            clock=SystemClock(),
            emit=self.events.append,
            room=self.room,
            changed=lambda service: None,
            service=lambda name: self.services.get(name) or self.leaving.get(name),
        )

    def endpoint(self) -> Endpoint:
        """Return where a service may listen."""
        sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
        sock.setblocking(False)
        endpoint = Endpoint(*sock.getsockname()[:2])
        self._sockets[endpoint] = sock
        return endpoint

    async def serve(self, *tasks: ServiceTask) -> None:
        """Serve exactly these, as the process does."""
        named = {each.name: each for each in tasks}
        for each in tasks:
            before = self.services.get(each.name)
            held, told = (before.security, before.task) if before is not None else (Security(), None)
            security = secured(each, held, told)
            problem = security.problem
            self.problems += [problem] if problem is not None else []
            service = before or DicomService(each, {}, self._around, security)
            self.services[each.name] = service
            service.configure(each, {}, security, named)
        for each in tasks:
            await self.services[each.name].listen({place: self._sockets[place] for place in each.listen})
        for name in [name for name in self.services if name not in named]:
            self.leaving[name] = self.services.pop(name)
            self.leaving[name].leave()

    def ended(self) -> list[AssociationEnded]:
        """Return how associations ended so far."""
        return [event for event in self.events if isinstance(event, AssociationEnded)]

    async def all_ended(self, count: int) -> list[AssociationEnded]:
        """Wait until so many associations have ended, and no more, and return their events."""
        await eventually(lambda: len(self.ended()) >= count, f"{count} ends, not {self.ended()}")
        found = self.ended()
        assert len(found) == count, found
        return found

    async def settled(self) -> None:
        """Wait until everything is given back, and hold that nothing broke inside."""
        everything = [*self.services.values(), *self.leaving.values()]
        await eventually(
            lambda: self.failures or (self.room.held == 0 and all(each.is_empty for each in everything)),
            f"{self.room} and {[(each.name, each.held) for each in everything]} given back",
        )
        for service in everything:
            observed = service.observe()
            assert (observed.clients, observed.waiting) == (0, 0)
            assert {count.connections for count in observed.nodes.values()} <= {0}
        assert self.failures == []
        await eventually(lambda: len(self.tasks) == 0, "all tasks at their end")

    def close(self) -> None:
        for service in [*self.services.values(), *self.leaving.values()]:
            service.leave()
        for sock in self._sockets.values():
            sock.close()


def play(scene: Callable[[Running], Awaitable[None]], room: int = 10_000) -> None:
    """Run a scene; at its end everything must be given back."""

    async def run() -> None:
        running = Running(room)
        try:
            async with asyncio.timeout(60):
                await scene(running)
                await running.settled()
        finally:
            running.close()

    uvloop.run(run())


async def one_service(running: Running, ports: Mapping[str, int], **settings: Any) -> int:
    """Serve one service `s` on these nodes; return its port."""
    place = running.endpoint()
    await running.serve(task("s", listen=(place,), nodes=nodes(ports), **settings))
    return place.port


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Cut bytes at these places."""
    places = [0, *cuts, len(data)]
    return [data[start:end] for start, end in pairwise(places)]
