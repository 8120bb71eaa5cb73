"""A node of a pool and what it carries: what policies choose among."""

from dataclasses import dataclass

from equipoise.engines.gateway.speed import Speedometer
from equipoise.engines.gateway.workload import Workload
from equipoise.plan.model import Node
from equipoise.plan.states import NodeState
from equipoise.policy.ramp import ramped


@dataclass(slots=True)
class Counters:
    """What one node carried since this gateway started.  Bytes in are the client's, bytes out the node's."""

    connections: int = 0
    associations: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Member:
    """One node.

    Attributes:
        elsewhere: Associations held by gateways that drain.
        weight: What policies go by: the node's, less while it ramps.
        work: As in `policy.base.Candidate`; the pool sets it before it asks a policy.
        speed: How fast it takes bytes, as a share of the fastest node of its weight.
        ramp_from_s: When the node began to take work again, while it ramps.
    """

    __slots__ = (
        "counters",
        "elsewhere",
        "is_backup",
        "name",
        "node",
        "ramp_from_s",
        "speed",
        "speedometer",
        "state",
        "takes_work",
        "weight",
        "work",
        "workload",
    )

    def __init__(self, node: Node, state: NodeState) -> None:
        self.speedometer = Speedometer()
        self.speed = 1.0
        self.counters = Counters()
        self.workload = Workload()
        self.elsewhere = 0
        self.work = 0.0
        self.ramp_from_s: float | None = None
        self.configure(node, state)

    def configure(self, node: Node, state: NodeState) -> None:
        """Take the node's settings and state.  What `pick` asks for each node is worked out here, not there."""
        self.name, self.node, self.state = node.name, node, state
        self.weight = float(state.weight)
        self.takes_work = state.takes_work and node.host is not None
        self.is_backup = node.backup

    @property
    def connections(self) -> int:
        """Associations open at the node, whoever holds them."""
        return self.counters.connections + self.elsewhere

    @property
    def full(self) -> bool:
        """Whether the node is at its own limit."""
        return self.node.max_connections is not None and self.connections >= self.node.max_connections

    def ramp(self, now_s: float, slow_start_s: float) -> bool:
        """Set the weight by the time since `ramp_from_s`; say whether it is still less than the node's own."""
        passed_s = slow_start_s if self.ramp_from_s is None else now_s - self.ramp_from_s
        if passed_s >= slow_start_s:
            self.ramp_from_s = None
            self.weight = float(self.state.weight)
            return False
        self.weight = ramped(self.state.weight, passed_s, slow_start_s)
        return True

    def weigh(self, own_bytes: float, unknown_bytes: float, now_s: float) -> None:
        """Set the work that an association of `own_bytes` would make here, as it would be for the fastest node.

        It waits for itself and for what is in its way; and each of those in its way waits for just as much of it.
        An association that no load stands for has `unknown_bytes` left.
        """
        in_the_way = self.workload.in_the_way(own_bytes, now_s)
        others = self.counters.connections + self.elsewhere - len(self.workload)
        if others > 0:
            in_the_way += others * min(unknown_bytes, own_bytes)
        self.work = (own_bytes + 2 * in_the_way) / self.speed

    def why_not(self) -> str:
        """Return why the node takes no work, for people."""
        if self.node.host is None:
            return "has a name that does not resolve"
        return "has weight 0" if self.state.state == "up" else f"is {self.state.state}"
