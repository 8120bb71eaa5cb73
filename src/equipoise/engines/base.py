"""The engine interface.  `render` is pure, so every engine has golden tests on any machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from equipoise.plan.model import Plan
from equipoise.plan.states import NodeStates

Artifact = TypeVar("Artifact")


@dataclass(frozen=True, slots=True)
class NodeCount:
    """What an engine counted at one node.  Bytes in came from clients, bytes out from the node.

    `rested` says why the engine gives it no new work for a while, or is None.
    """

    connections: int = 0
    associations: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    rested: str | None = None

    def __add__(self, other: "NodeCount") -> "NodeCount":
        return NodeCount(
            self.connections + other.connections,
            self.associations + other.associations,
            self.bytes_in + other.bytes_in,
            self.bytes_out + other.bytes_out,
            self.rested or other.rested,
        )


@dataclass(frozen=True, slots=True)
class Observation:
    """An engine's counters: by "SERVICE/NODE", and the open connections of each service.

    `problems` says of a service what it lacks to serve as the plan says.
    """

    nodes: Mapping[str, NodeCount] = field(default_factory=dict)
    connections: Mapping[str, int] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

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
        )


class Engine(Protocol[Artifact]):
    """What carries traffic."""

    name: str

    def render(self, plan: Plan) -> Artifact:
        """Say what the plan means here.  Pure: the same plan gives the same bytes."""

    async def check(self, artifact: Artifact) -> list[str]:
        """Return what would be refused.  Changes nothing."""

    async def apply(self, artifact: Artifact) -> None:
        """Make it so, all or nothing; a second time does nothing.  Raises: EngineError."""

    async def set_nodes(self, states: NodeStates) -> None:
        """Take these nodes in or out, now, within the plan that is applied.  Raises: EngineError."""

    async def observe(self) -> Observation:
        """Read counters and the real state."""
