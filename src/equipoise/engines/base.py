"""The engine interface.  `render` is pure, so every engine has golden tests on any machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from equipoise.plan.model import Plan
from equipoise.plan.soft import SoftState
from equipoise.plan.states import NodeState, NodeStates

Artifact = TypeVar("Artifact")
MOST_SHARED = 65_536  # entries of a table that a peer is told of: a hospital's workstations many times over


@dataclass(frozen=True, slots=True)
class NodeCount:
    """What an engine counted at one node.  Bytes in came from clients, bytes out from the node.

    Attributes:
        rested: Why the engine gives it no new work for a while, after failures in its traffic; or None.
        refused: Why the engine gives it no new work by a check of its own; or None.
    """

    connections: int = 0
    associations: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    rested: str | None = None
    refused: str | None = None

    def __add__(self, other: "NodeCount") -> "NodeCount":
        return NodeCount(
            self.connections + other.connections,
            self.associations + other.associations,
            self.bytes_in + other.bytes_in,
            self.bytes_out + other.bytes_out,
            self.rested or other.rested,
            self.refused or other.refused,
        )


# Upper bounds of the classes that latencies are counted in, in milliseconds; one more class is for those above.
LATENCY_BOUNDS_MS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000)


@dataclass(frozen=True, slots=True)
class Messages:
    """What became of a service's HL7 messages since its engine started.

    Attributes:
        by_type: Message type (`ADT^A01`) to what was answered (`AA`, `none` where no answer was asked for, `closed`
            where the sender got none) to how many.
        in_flight: Under way to a receiver, or awaiting its answer.
        held: Awaiting a receiver that takes work.
        resent: Sent to a further receiver, after one had failed.
        receivers_closed: Why a receiver's connection was closed by us or lost, to how often.
        latency_ms: How many were answered within each class of LATENCY_BOUNDS_MS, from the message's last byte to the
            answer's.
        latency_sum_ms: All those times together.
    """

    by_type: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    in_flight: int = 0
    held: int = 0
    resent: int = 0
    receivers_closed: Mapping[str, int] = field(default_factory=dict)
    latency_ms: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS_MS) + 1)
    latency_sum_ms: float = 0.0

    def __add__(self, other: "Messages") -> "Messages":
        return Messages(
            by_type={
                kind: _summed(self.by_type.get(kind, {}), other.by_type.get(kind, {}))
                for kind in {*self.by_type, *other.by_type}
            },
            in_flight=self.in_flight + other.in_flight,
            held=self.held + other.held,
            resent=self.resent + other.resent,
            receivers_closed=_summed(self.receivers_closed, other.receivers_closed),
            latency_ms=tuple(mine + theirs for mine, theirs in zip(self.latency_ms, other.latency_ms, strict=True)),
            latency_sum_ms=self.latency_sum_ms + other.latency_sum_ms,
        )


def _summed(mine: Mapping[str, int], theirs: Mapping[str, int]) -> dict[str, int]:
    return {key: mine.get(key, 0) + theirs.get(key, 0) for key in {*mine, *theirs}}


@dataclass(frozen=True, slots=True)
class Observation:
    """An engine's counters: by "SERVICE/NODE", and the open connections of each service.

    Attributes:
        problems: What a service lacks to serve as the plan says.
        unserved: Why nobody carries anything of a service.
        messages: Of each service that carries HL7.
    """

    nodes: Mapping[str, NodeCount] = field(default_factory=dict)
    connections: Mapping[str, int] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    unserved: Mapping[str, str] = field(default_factory=dict)
    messages: Mapping[str, Messages] = field(default_factory=dict)

    def __add__(self, other: "Observation") -> "Observation":
        nodes = {
            key: self.nodes.get(key, NodeCount()) + other.nodes.get(key, NodeCount())
            for key in {*self.nodes, *other.nodes}
        }
        services = {*self.connections, *other.connections}
        return Observation(
            nodes,
            {name: self.connections.get(name, 0) + other.connections.get(name, 0) for name in services},
            {**other.problems, **self.problems},
            {**other.unserved, **self.unserved},
            {
                name: self.messages.get(name, Messages()) + other.messages.get(name, Messages())
                for name in {*self.messages, *other.messages}
            },
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an engine would not take a plan, and the keys of the document that lead to the value it minds."""

    message: str
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}: {self.message}" if self.path else self.message


class Engine(Protocol[Artifact]):
    """What carries traffic, in processes of its own that outlive the supervisor."""

    name: str

    # What it does

    def render(self, plan: Plan) -> Artifact:
        """Say what the plan means here.  Pure: the same plan gives the same bytes."""

    async def check(self, artifact: Artifact) -> list[Refusal]:
        """Return what would be refused.  Changes nothing."""

    async def apply(self, artifact: Artifact) -> None:
        """Make it so, all or nothing; a second time does nothing.  Raises: EngineError."""

    async def set_nodes(self, states: NodeStates) -> None:
        """Take these nodes in or out, now, within the plan that is applied.  Raises: EngineError."""

    async def observe(self) -> Observation:
        """Read counters and the real state."""

    # How it lives

    async def adopt(self) -> Mapping[str, NodeState]:
        """Take over what serves already; return the node states that it has.  Raises: EngineError."""

    @property
    def adopted(self) -> int:
        """How many processes were taken over."""

    def prepare(self, states: NodeStates) -> None:
        """Have these node states ready for the first plan, telling nobody yet."""

    async def undo_start(self) -> None:
        """End what was started, leave alone what was adopted."""

    async def watch(self) -> None:
        """Look whether what should run runs, and mend it.  Called every few seconds."""

    def leave(self) -> None:
        """Let go: the processes serve on, and wait for the next supervisor."""

    async def stop(self, drain_s: float) -> None:
        """Let open work go on for so long, end the rest, and every process."""

    def hurry(self) -> None:
        """Have a stop that is under way end at once."""

    # What a pair of machines needs

    async def fault(self) -> str | None:
        """Return why it cannot carry now what it should, so that a peer had better; None where it can."""

    def share(self, tell: Callable[[SoftState], None] | None) -> None:
        """Have `tell` called with what is learned of clients and flows, from now on; None: with nothing more."""

    async def soft_state(self) -> SoftState:
        """Return all that is known of clients and flows, at most `MOST_SHARED` of each table.  Raises: EngineError."""

    async def merge(self, state: SoftState) -> None:
        """Take over what a peer knows; what does not fit the plan is left out.  Raises: EngineError."""


class SharesNothing:
    """What an engine does for a pair that learns nothing from traffic."""

    def share(self, tell: Callable[[SoftState], None] | None) -> None:
        """Do nothing."""

    async def soft_state(self) -> SoftState:
        """Return nothing."""
        return {}

    async def merge(self, state: SoftState) -> None:
        """Do nothing."""
