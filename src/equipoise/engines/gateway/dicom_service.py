"""A DICOM service inside a gateway: its queue and its associations; where clients arrive is its reception.

Where its routes lead on, an association moves to the service whose pool it is for, and is that one's from then on.
"""

import asyncio
from collections.abc import Mapping

from equipoise.engines.gateway.admission import Door
from equipoise.engines.gateway.arrival import Arrival
from equipoise.engines.gateway.calling import CallError
from equipoise.engines.gateway.driver import Association
from equipoise.engines.gateway.messages import ServiceCounters, ServiceTask
from equipoise.engines.gateway.passive import FailureKind
from equipoise.engines.gateway.pool import Full, Nobody, Picked
from equipoise.engines.gateway.relay import Abort, Ended, Finish, NoNode
from equipoise.engines.gateway.relay_dicom import DicomRelay
from equipoise.engines.gateway.security import Security
from equipoise.engines.gateway.service import Service, Surroundings
from equipoise.engines.gateway.side import Side
from equipoise.engines.gateway.waiting import Queue
from equipoise.plan.model import Endpoint
from equipoise.plan.states import NodeState
from equipoise.policy.base import Client
from equipoise.proto.dicom.pdu import REJECT_LIMIT
from equipoise.state.events import AssociationEnded


class DicomService(Service):
    """One DICOM service."""

    farewell = REJECT_LIMIT.encode()

    def __init__(
        self, task: ServiceTask, states: Mapping[str, NodeState], around: Surroundings, security: Security
    ) -> None:
        self._queue = Queue(self._give_node)
        self._associations: set[Association] = set()
        self._closing: set[Association] = set()
        super().__init__(task, states, around, security)

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

    def configure(
        self, task: ServiceTask, states: Mapping[str, NodeState], security: Security, doors: Mapping[str, ServiceTask]
    ) -> None:
        """Take a new task; what is open goes on.  `doors` are the tasks that its routes may lead to."""
        super().configure(task, states, security, doors)
        self._door = Door.of(task, doors)
        self._queue.serve()

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
        super().hear_elsewhere(gateway, counts)
        self._queue.serve()

    def observe(self) -> ServiceCounters:
        """Return the counters."""
        nodes = {name: self.node_counters(name) for name in self.pool.members}
        return ServiceCounters(
            clients=len(self._associations), waiting=len(self._queue), nodes=nodes, problem=self.security.problem
        )

    # What its reception asks of it: see reception.Host

    def begin(self, arrival: Arrival) -> Association:
        """Return the association for a client that is let in."""
        association = Association(self, DicomRelay(self._door, arrival.client[0], self.now()), arrival)
        self._associations.add(association)
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
        self.hold_against(association.picked.node.name, client, FailureKind(kind), reason)

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

    def _move(self, association: Association, pool: str, calling_ae: str, tried: tuple[str, ...]) -> None:
        """Hand an association over to the service that a route leads to."""
        target = self._around.service(pool)
        if not isinstance(target, DicomService):
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
