"""One service inside a gateway, whatever it speaks: its nodes, where its clients arrive, what the process asks of it.

Each protocol adds what its clients do: `dicom_service` associations, `hl7.service` messages.
"""

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from equipoise.base.clock import Clock
from equipoise.base.tasks import Tasks
from equipoise.engines.gateway.arrival import Arrival
from equipoise.engines.gateway.calling import Caller
from equipoise.engines.gateway.entrance import Guest
from equipoise.engines.gateway.messages import NodeCounters, ServiceCounters, ServiceTask
from equipoise.engines.gateway.passive import FailureKind
from equipoise.engines.gateway.pool import Pool
from equipoise.engines.gateway.reception import Reception
from equipoise.engines.gateway.room import Room
from equipoise.engines.gateway.security import Security
from equipoise.plan.model import Endpoint
from equipoise.plan.states import NodeState
from equipoise.policy.base import Client
from equipoise.policy.catalogue import policies
from equipoise.state.events import Event, NodeRested


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


class Service(ABC):
    """One service.  It serves until it is told to leave, and is empty when its last client has gone."""

    farewell = b""

    def __init__(
        self, task: ServiceTask, states: Mapping[str, NodeState], around: Surroundings, security: Security
    ) -> None:
        self._around = around
        self.buffer, self.room, self.tasks = around.buffer, around.room, around.tasks
        self.now = around.clock.monotonic
        self.task = task
        self.pool = self.new_pool(task)
        self._reception = Reception(self, task, security.to_clients)
        self._take(task, states, security)

    @property
    def name(self) -> str:
        """The service's name."""
        return self.task.name

    @property
    @abstractmethod
    def patience_s(self) -> float:
        """How long a client may take before it is let in."""

    @property
    @abstractmethod
    def held(self) -> int:
        """Clients' connections held, those that are entering or closing included."""

    @property
    def is_empty(self) -> bool:
        """Whether no connection is open any more."""
        return self.held == 0

    # What the process asks of it

    def configure(
        self, task: ServiceTask, states: Mapping[str, NodeState], security: Security, doors: Mapping[str, ServiceTask]
    ) -> None:
        """Take a new task; what is open goes on.  `doors` are the tasks that its routes may lead to."""
        if self.pooled(self.task) != self.pooled(task):
            old, self.pool = self.pool, self.new_pool(task)
            self.pool.inherit(old, self.now())
        self._take(task, states, security)

    async def listen(self, sockets: Mapping[Endpoint, socket.socket]) -> None:
        """Accept on exactly these sockets, which stay the caller's."""
        await self._reception.listen(sockets)

    def leave(self) -> None:
        """Accept no more; what is open goes on to its end."""
        self._reception.leave()

    @abstractmethod
    def set_state(self, node: str, state: NodeState) -> None:
        """Take a node in or out, now."""

    @abstractmethod
    def abort_all(self, reason: str) -> None:
        """End what is open, politely."""

    def hear_elsewhere(self, gateway: str, counts: Mapping[str, int]) -> None:
        """Note what another gateway still holds."""
        self.pool.set_elsewhere(gateway, counts)

    @abstractmethod
    def observe(self) -> ServiceCounters:
        """Return the counters."""

    # What its reception asks of it: see reception.Host

    @abstractmethod
    def begin(self, arrival: Arrival) -> Guest:
        """Return what a client becomes that is let in."""

    def came_to_nothing(self) -> None:
        """Hear that a connection that had a place is gone without having been let in."""
        self._around.changed(self)

    @abstractmethod
    def not_taken(self, ended: str, reason: str, client: str = "unknown") -> None:
        """Tell of a client that was not let in."""

    # For those that make a service of it

    def new_pool(self, task: ServiceTask) -> Pool:
        """Return an empty pool for this task."""
        kind = policies()[task.balance]
        return Pool(kind, task.persistence, task.max_connections, task.slow_start_s, task.passive_health)

    def pooled(self, task: ServiceTask) -> tuple[object, ...]:
        """Return what a pool is made by: where it changes, another one takes over."""
        return task.balance, task.persistence, task.max_connections, task.slow_start_s, task.passive_health

    def node_counters(self, name: str) -> NodeCounters:
        """Return what this gateway counted at one node."""
        counters = self.pool.members[name].counters
        return NodeCounters(
            connections=counters.connections,
            associations=counters.associations,
            bytes_in=counters.bytes_in,
            bytes_out=counters.bytes_out,
            rested=self.pool.rested(name, self.now()),
        )

    def hold_against(self, node: str, client: Client, kind: FailureKind, reason: str) -> None:
        """Count a failure at a node, which may be rested for it."""
        rested = self.pool.failed(node, client, kind, reason, self.now())
        if rested is not None:
            self._around.emit(
                NodeRested(
                    service=self.name, node=node, failures=rested.failures, reason=rested.reason, rest_s=rested.rest_s
                )
            )

    def _take(self, task: ServiceTask, states: Mapping[str, NodeState], security: Security) -> None:
        self.task = task
        self.security = security
        self._reception.configure(task, security.to_clients)
        self._caller = Caller(task, security.to_nodes)
        self.pool.configure(task.nodes, states, self.now())
