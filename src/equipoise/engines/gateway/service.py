"""One service inside a gateway: its listeners, its pool, its queue, its associations."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network
from typing import cast

from equipoise.base.clock import Clock
from equipoise.base.tasks import Tasks
from equipoise.engines.gateway.driver import Association
from equipoise.engines.gateway.messages import NodeCounters, ServiceCounters, ServiceTask
from equipoise.engines.gateway.pool import Full, Nobody, Picked, Pool
from equipoise.engines.gateway.relay import Abort, Ended, Finish, NoNode
from equipoise.engines.gateway.relay_dicom import DicomRelay
from equipoise.engines.gateway.side import LINGER_S, Side
from equipoise.engines.gateway.sockets import BACKLOG
from equipoise.plan.model import Endpoint
from equipoise.plan.states import NodeState
from equipoise.policy.base import Client
from equipoise.policy.catalogue import policies
from equipoise.proto.dicom.pdu import REJECT_LIMIT
from equipoise.state.events import AssociationEnded, Event

_NO_ROOM = "the gateway's limit of open files is reached; raise it (LimitNOFILE), or find out who holds so many"
MAX_WAITING = 1024  # callers in one queue; each holds a connection and its request


@dataclass(slots=True)
class Room:
    """Clients' connections of the whole process."""

    limit: int
    held: int = 0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the process gives to its services.

    Attributes:
        room: The clients that the process holds, and how many it can (its file limit).
        changed: Called when a service's open counts have changed.
    """

    buffer: memoryview
    tasks: Tasks
    clock: Clock
    emit: Callable[[Event], None]
    room: Room
    changed: Callable[["Service"], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    association: Association
    client: Client
    tried: tuple[str, ...]
    timer: asyncio.TimerHandle


class Service:
    """One service.  It serves until it is told to leave, and is empty when its last association has ended."""

    def __init__(self, task: ServiceTask, states: Mapping[str, NodeState], around: Surroundings) -> None:
        self._around = around
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[Endpoint, asyncio.Server] = {}
        self._waiting: dict[Association, _Waiting] = {}  # first come, first served
        self._serving_waiting = self._serve_again = False
        self._associations: set[Association] = set()
        self._closing: set[Association] = set()
        self.buffer = around.buffer
        self.now = around.clock.monotonic
        self.pool = self._make_pool(task)
        self._take(task, states)

    @property
    def name(self) -> str:
        """The service's name."""
        return self.task.name

    @property
    def stall_timeout_s(self) -> float:
        """How long a peer may take nothing of what waits for it."""
        return self.task.dicom.stall_timeout_s

    @property
    def held(self) -> int:
        """Clients' connections held, those that are closing included."""
        return len(self._associations) + len(self._closing)

    @property
    def is_empty(self) -> bool:
        """Whether no connection is open any more."""
        return self.held == 0

    def configure(self, task: ServiceTask, states: Mapping[str, NodeState]) -> None:
        """Take a new task; what is open goes on."""
        before = self.task
        if (before.balance, before.persistence, before.max_connections) != (
            task.balance,
            task.persistence,
            task.max_connections,
        ):
            old, self.pool = self.pool, self._make_pool(task)
            self.pool.inherit(old, self._loop.time())
        self._take(task, states)
        self._serve_waiting()

    async def listen(self, sockets: Mapping[Endpoint, socket.socket]) -> None:
        """Accept on exactly these sockets, which stay the caller's."""
        for endpoint in set(self._listeners) - set(sockets):
            self._listeners.pop(endpoint).close()
        for endpoint in set(sockets) - set(self._listeners):
            self._listeners[endpoint] = await self._loop.create_server(
                partial(_Accepting, self, endpoint.port), sock=sockets[endpoint].dup(), backlog=BACKLOG
            )

    def leave(self) -> None:
        """Accept no more; what is open goes on to its end."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def set_state(self, node: str, state: NodeState) -> None:
        """Take a node in or out, now."""
        if not self.pool.set_state(node, state):
            return
        if state.state == "disabled":
            for association in [a for a in self._associations if a.picked and a.picked.node.name == node]:
                association.event(Finish(f"{node} was disabled"))
        self._serve_waiting()

    def abort_all(self, reason: str) -> None:
        """End what is open, politely."""
        for association in list(self._associations):
            association.event(Abort(reason))

    def hear_elsewhere(self, gateway: str, counts: Mapping[str, int]) -> None:
        """Note what another gateway still holds."""
        self.pool.set_elsewhere(gateway, counts)
        self._serve_waiting()

    def observe(self) -> ServiceCounters:
        """Return the counters."""
        nodes = {
            name: NodeCounters(
                connections=member.counters.connections,
                associations=member.counters.associations,
                bytes_in=member.counters.bytes_in,
                bytes_out=member.counters.bytes_out,
            )
            for name, member in self.pool.members.items()
        }
        return ServiceCounters(clients=len(self._associations), waiting=len(self._waiting), nodes=nodes)

    # What associations ask of it: see driver.Host

    def accepted(self, client: tuple[str, int], port: int) -> Association:
        """Return the association for a client that has just connected."""
        relay = DicomRelay(self.task.dicom, self._refused(client[0]), self.now())
        association = Association(self, relay, client, port)
        self._associations.add(association)
        self._around.room.held += 1
        return association

    def not_taken(self, ended: str, reason: str, client: str = "unknown") -> None:
        """Tell of a client that no association was made for."""
        self._around.emit(
            AssociationEnded(
                service=self.name,
                client=client,
                calling_ae="",
                called_ae="",
                node=None,
                tried=(),
                ended=ended,
                reason=reason,
                duration_s=0.0,
                setup_ms=None,
                bytes_in=0,
                bytes_out=0,
                messages=(),
            )
        )

    @property
    def has_room(self) -> bool:
        """Whether one more client can be held."""
        return self._around.room.held < self._around.room.limit

    def wants_node(self, association: Association, calling_ae: str, tried: tuple[str, ...]) -> None:
        """Pick a node, in turn with those who came before."""
        self._release(association)
        client = Client(association.client_host, calling_ae)
        if not self._waiting and self._give_node(association, client, tried) is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            association.event(NoNode(limit=True, reason=f"{MAX_WAITING} callers wait already"))
            return
        timer = self._loop.call_later(self.task.queue_wait_s, self._waited_enough, association)
        self._waiting[association] = _Waiting(association, client, tried, timer)

    def connect(self, association: Association, picked: Picked, side: Side) -> asyncio.Task[None]:
        """Begin to connect to the picked node."""
        return self._around.tasks.spawn("gateway.connect", self._connect(association, picked, side))

    def ended(self, association: Association, record: Ended) -> None:
        """Free the node, and tell what happened."""
        self._forget_waiting(association)
        self._release(association)
        self._associations.discard(association)
        self._closing.add(association)
        self._around.emit(
            AssociationEnded(
                service=self.name,
                client=str(Endpoint(association.client_host, association.client_port)),
                calling_ae=record.calling_ae,
                called_ae=record.called_ae,
                node=record.node,
                tried=record.tried,
                ended=record.ended,
                reason=record.reason,
                duration_s=round(self.now() - association.began_s, 6),
                setup_ms=record.setup_ms,
                bytes_in=association.bytes_in,
                bytes_out=association.bytes_out,
                messages=record.messages,
            )
        )
        self._serve_waiting()

    def gone(self, association: Association) -> None:
        """Forget an association whose connections are all closed."""
        self._closing.discard(association)
        self._around.room.held -= 1
        self._around.changed(self)

    # Inside

    def _make_pool(self, task: ServiceTask) -> Pool:
        return Pool(policies()[task.balance].make(), task.persistence, task.max_connections)

    def _take(self, task: ServiceTask, states: Mapping[str, NodeState]) -> None:
        self.task = task
        self._networks = [ip_network(text) for text in task.allow_from]
        self.pool.configure(task.nodes, states)

    def _refused(self, source: str) -> str | None:
        if not self._networks or any(ip_address(source) in network for network in self._networks):
            return None
        return f"source {source} is not in allow_from"

    def _release(self, association: Association) -> None:
        if association.picked is not None:
            self.pool.release(association.picked.node.name)
            association.picked = None
            self._around.changed(self)

    def _serve_waiting(self) -> None:
        """Give every caller that can have a node one.

        Giving may end an association, which frees a place and brings us here again: that is noted and not nested, for
        the queue is longer than Python's stack.
        """
        self._serve_again = True
        if self._serving_waiting:
            return
        self._serving_waiting = True
        try:
            while self._serve_again:
                self._serve_again = False
                self._serve_queue()
        finally:
            self._serving_waiting = False

    def _serve_queue(self) -> None:
        for waiting in list(self._waiting.values()):
            if waiting.association not in self._waiting:
                continue  # it ended while an earlier one was served
            full = self._give_node(waiting.association, waiting.client, waiting.tried)
            if full is not None and not waiting.tried:
                return  # every node is full, for those behind it, too

    def _give_node(self, association: Association, client: Client, tried: tuple[str, ...]) -> Full | None:
        """Answer an association that wants a node; return why it has to wait, where it has to."""
        outcome = self.pool.pick(client, tried, self._loop.time())
        if isinstance(outcome, Full):
            return outcome
        self._forget_waiting(association)
        if isinstance(outcome, Nobody):
            association.event(NoNode(limit=False, reason=outcome.reason))
        else:
            self._around.changed(self)
            association.node_picked(outcome, self.pool.counters(outcome.node.name))
        return None

    def _waited_enough(self, association: Association) -> None:
        waiting = self._waiting[association]
        full = self._give_node(association, waiting.client, waiting.tried)
        if full is None:
            return
        self._forget_waiting(association)
        association.event(NoNode(limit=True, reason=f"waited {self.task.queue_wait_s:g} s: {full.reason}"))

    def _forget_waiting(self, association: Association) -> None:
        waiting = self._waiting.pop(association, None)
        if waiting is not None:
            waiting.timer.cancel()

    async def _connect(self, association: Association, picked: Picked, side: Side) -> None:
        host, port = picked.node.host or "", picked.node.port or association.server_port
        source = (self.task.source_address, 0) if self.task.source_address else None
        try:
            await self._loop.create_connection(lambda: side, host, port, local_addr=source)
        except OSError as error:
            association.node_failed(f"{host} port {port}: {error.strerror or error}")
            return
        association.node_opened(side)


class _Accepting(asyncio.BufferedProtocol):
    """A client that is just connecting: hands its transport on to the association made for it."""

    def __init__(self, service: Service, port: int) -> None:
        self._service = service
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make the association, or say that there is no room for it."""
        stream = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses of asyncio's
        peer = stream.get_extra_info("peername")
        if peer is None:
            self._service.not_taken("no_request", "gone before it was asked who it is")
            stream.abort()
            return
        if not self._service.has_room:
            self._service.not_taken("no_room", _NO_ROOM, str(Endpoint(peer[0], peer[1])))
            stream.write(REJECT_LIMIT.encode())
            stream.write_eof()  # not close: that could destroy the answer on its way
            asyncio.get_running_loop().call_later(LINGER_S, stream.abort)
            return
        association = self._service.accepted((peer[0], peer[1]), self._port)
        stream.set_protocol(association.client_side)
        association.client_side.connection_made(stream)
        association.begin()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where bytes go that nobody will read."""
        return self._service.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Drop them."""
