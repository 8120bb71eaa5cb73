"""One service inside a gateway: its pool, its queue, its associations; where clients arrive is its reception.

Where its routes lead on, an association moves to the service whose pool it is for, and is that one's from then on.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from equipoise.base.clock import Clock
from equipoise.base.tasks import Tasks
from equipoise.engines.gateway.admission import Door
from equipoise.engines.gateway.arrival import Arrival
from equipoise.engines.gateway.calling import Caller, CallError
from equipoise.engines.gateway.driver import Association
from equipoise.engines.gateway.messages import NodeCounters, ServiceCounters, ServiceTask
from equipoise.engines.gateway.passive import FailureKind
from equipoise.engines.gateway.pool import Full, Nobody, Picked, Pool
from equipoise.engines.gateway.reception import Reception
from equipoise.engines.gateway.relay import Abort, Ended, Finish, NoNode
from equipoise.engines.gateway.relay_dicom import DicomRelay
from equipoise.engines.gateway.room import Room
from equipoise.engines.gateway.security import Security
from equipoise.engines.gateway.side import Side
from equipoise.engines.gateway.waiting import Queue
from equipoise.plan.model import Endpoint
from equipoise.plan.states import NodeState
from equipoise.policy.base import Client
from equipoise.policy.catalogue import policies
from equipoise.proto.dicom.pdu import REJECT_LIMIT
from equipoise.state.events import AssociationEnded, Event, NodeRested


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the process gives to its services.

    Attributes:
        room: The clients that the process holds, and how many it can (its file limit).
        changed: Called when a service's open counts have changed.
        service: Finds a service of this process by name; one that is leaving, too.
    """

    buffer: memoryview
    tasks: Tasks
    clock: Clock
    emit: Callable[[Event], None]
    room: Room
    changed: Callable[["Service"], None]
    service: Callable[[str], "Service | None"]


class Service:
    """One service.  It serves until it is told to leave, and is empty when its last association has ended."""

    def __init__(
        self, task: ServiceTask, states: Mapping[str, NodeState], around: Surroundings, security: Security
    ) -> None:
        self._around = around
        self._queue = Queue(self._give_node)
        self._associations: set[Association] = set()
        self._closing: set[Association] = set()
        self.buffer, self.room, self.tasks = around.buffer, around.room, around.tasks
        self.farewell = REJECT_LIMIT.encode()
        self.now = around.clock.monotonic
        self.pool = _pool(task)
        self._reception = Reception(self, task, security.to_clients)
        self._take(task, states, security)

    @property
    def name(self) -> str:
        """The service's name."""
        return self.task.name

    @property
    def patience_s(self) -> float:
        """How long a client may take before its association."""
        return self.task.dicom.artim_s

    @property
    def stall_timeout_s(self) -> float:
        """How long a peer may take nothing of what waits for it."""
        return self.task.dicom.stall_timeout_s

    @property
    def held(self) -> int:
        """Clients' connections held, those that are entering or closing included."""
        return len(self._reception) + len(self._associations) + len(self._closing)

    @property
    def is_empty(self) -> bool:
        """Whether no connection is open any more."""
        return self.held == 0

    def configure(
        self, task: ServiceTask, states: Mapping[str, NodeState], security: Security, doors: Mapping[str, ServiceTask]
    ) -> None:
        """Take a new task; what is open goes on.  `doors` are the tasks that its routes may lead to."""
        if _pooled(self.task) != _pooled(task):
            old, self.pool = self.pool, _pool(task)
            self.pool.inherit(old, self.now())
        self._take(task, states, security)
        self._door = Door.of(task, doors)
        self._queue.serve()

    async def listen(self, sockets: Mapping[Endpoint, socket.socket]) -> None:
        """Accept on exactly these sockets, which stay the caller's."""
        await self._reception.listen(sockets)

    def leave(self) -> None:
        """Accept no more; what is open goes on to its end."""
        self._reception.leave()

    def set_state(self, node: str, state: NodeState) -> None:
        """Take a node in or out, now."""
        if not self.pool.set_state(node, state, self.now()):
            return
        if state.state == "disabled":
            for association in [a for a in self._associations if a.picked and a.picked.node.name == node]:
                association.event(Finish(f"{node} was disabled"))
        self._queue.serve()

    def abort_all(self, reason: str) -> None:
        """End what is open, politely."""
        self._reception.abort_all(reason)
        for association in list(self._associations):
            association.event(Abort(reason))

    def hear_elsewhere(self, gateway: str, counts: Mapping[str, int]) -> None:
        """Note what another gateway still holds."""
        self.pool.set_elsewhere(gateway, counts)
        self._queue.serve()

    def observe(self) -> ServiceCounters:
        """Return the counters."""
        nodes = {
            name: NodeCounters(
                connections=member.counters.connections,
                associations=member.counters.associations,
                bytes_in=member.counters.bytes_in,
                bytes_out=member.counters.bytes_out,
                rested=self.pool.rested(name, self.now()),
            )
            for name, member in self.pool.members.items()
        }
        return ServiceCounters(
            clients=len(self._associations), waiting=len(self._queue), nodes=nodes, problem=self.security.problem
        )

    # What its reception asks of it: see reception.Host

    def begin(self, arrival: Arrival) -> Association:
        """Return the association for a client that is let in."""
        association = Association(self, DicomRelay(self._door, arrival.client[0], self.now()), arrival)
        self._associations.add(association)
        return association

    def came_to_nothing(self) -> None:
        """Hear that a connection that had a place is gone without an association."""
        self._around.changed(self)

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

    # What associations ask of it: see driver.Host

    def wants_node(self, association: Association, pool: str, calling_ae: str, tried: tuple[str, ...]) -> None:
        """Pick a node, in turn with those who came before; where another service's pool is asked for, that one does."""
        if pool != self.name:
            self._move(association, pool, calling_ae, tried)
            return
        self._release(association)
        client = Client(association.arrival.client[0], calling_ae)
        self._queue.ask(association, client, tried, self.task.queue_wait_s)

    def connect(self, association: Association, picked: Picked, side: Side) -> asyncio.Task[None]:
        """Begin to connect to the picked node."""
        return self._around.tasks.spawn("gateway.connect", self._connect(association, picked, side))

    def blame(self, association: Association, kind: str, reason: str) -> None:
        """Hold a failure against the picked node, which may be rested for it."""
        if association.picked is None:
            return
        client = Client(association.arrival.client[0], association.calling_ae)
        name = association.picked.node.name
        rested = self.pool.failed(name, client, FailureKind(kind), reason, self.now())
        if rested is not None:
            self._around.emit(
                NodeRested(
                    service=self.name,
                    node=name,
                    failures=rested.failures,
                    reason=rested.reason,
                    rest_s=rested.rest_s,
                )
            )

    def ended(self, association: Association, record: Ended) -> None:
        """Free the node, and tell what happened."""
        self._queue.forget(association)
        if record.setup_ms is not None:
            self._learn(association, record)
        self._release(association)
        self._associations.discard(association)
        self._closing.add(association)
        self._around.emit(_event(self.name, association, record, self.now()))
        self._queue.serve()

    def gone(self, association: Association) -> None:
        """Forget an association whose connections are all closed."""
        self._closing.discard(association)
        self.room.held -= 1
        if association.uncount is not None:
            association.uncount()
        self._around.changed(self)

    # Inside

    def _take(self, task: ServiceTask, states: Mapping[str, NodeState], security: Security) -> None:
        self.task = task
        self.security = security
        self._reception.configure(task, security.to_clients)
        self._caller = Caller(task, security.to_nodes)
        self.pool.configure(task.nodes, states, self.now())

    def _move(self, association: Association, pool: str, calling_ae: str, tried: tuple[str, ...]) -> None:
        """Hand an association over to the service that a route leads to."""
        target = self._around.service(pool)
        if target is None:
            association.event(NoNode(limit=False, reason=f"the service {pool} has been taken out"))
            return
        self._associations.discard(association)
        target._associations.add(association)
        association.host, association.routed_from = target, self.name
        self._around.changed(self)
        target.wants_node(association, pool, calling_ae, tried)

    def _learn(self, association: Association, record: Ended) -> None:
        """Remember how much this sender moved, and that the node did well."""
        self.pool.learn(record.calling_ae, association.bytes_in + association.bytes_out)
        if association.picked is not None and not association.blamed:
            self.pool.succeeded(association.picked.node.name, self.now())

    def _release(self, association: Association) -> None:
        if association.picked is not None:
            self.pool.release(association.picked)
            association.picked = None
            self._around.changed(self)

    def _give_node(self, association: Association, client: Client, tried: tuple[str, ...]) -> Full | None:
        """Answer an association that wants a node; return why it has to wait, where it has to."""
        outcome = self.pool.pick(client, tried, self.now(), association)
        if isinstance(outcome, Full):
            return outcome
        self._queue.forget(association)
        if isinstance(outcome, Nobody):
            association.event(NoNode(limit=False, reason=outcome.reason))
        else:
            self._around.changed(self)
            association.node_picked(outcome, self.pool.counters(outcome.node.name))
        return None

    async def _connect(self, association: Association, picked: Picked, side: Side) -> None:
        try:
            await self._caller.call(picked.node, association.arrival, side)
        except CallError as error:
            association.node_failed(str(error), ours=error.ours)
            return
        association.node_opened(side)


def _pooled(task: ServiceTask) -> tuple[object, ...]:
    return task.balance, task.persistence, task.max_connections, task.slow_start_s, task.passive_health


def _pool(task: ServiceTask) -> Pool:
    kind = policies()[task.balance]
    return Pool(kind, task.persistence, task.max_connections, task.slow_start_s, task.passive_health)


def _event(service: str, association: Association, record: Ended, now_s: float) -> AssociationEnded:
    arrival = association.arrival
    return AssociationEnded(
        service=service,
        client=str(Endpoint(*arrival.client)),
        calling_ae=record.calling_ae,
        called_ae=record.called_ae,
        node=record.node,
        tried=record.tried,
        ended=record.ended,
        reason=record.reason,
        duration_s=round(now_s - association.began_s, 6),
        setup_ms=record.setup_ms,
        bytes_in=association.bytes_in,
        bytes_out=association.bytes_out,
        messages=record.messages,
        routed_from=association.routed_from,
        tls=arrival.tls,
        certificate=arrival.certificate,
    )
