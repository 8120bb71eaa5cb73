"""One service's nodes inside a gateway: who may take work, who gets it, who is full.  Pure; time is passed in.

Counts are by association.  A gateway that drains tells its successor what it still holds (`elsewhere`), so that limits
and balancing count both.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from equipoise.plan.model import Node, Persistence
from equipoise.plan.states import NodeState
from equipoise.policy.base import Client, Policy
from equipoise.policy.persistence import PersistenceTable, persistence_key


@dataclass(slots=True)
class Counters:
    """What one node carried since this gateway started.  Bytes in are the client's, bytes out the node's."""

    connections: int = 0
    associations: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class Picked:
    """A place at a node; it must be given back with `release`."""

    node: Node
    alternatives: int


@dataclass(frozen=True, slots=True)
class Full:
    """Every node that may take work is at its limit: waiting may help."""

    reason: str


@dataclass(frozen=True, slots=True)
class Nobody:
    """No node may take this work: waiting for a place does not help."""

    reason: str


class Member:
    """A node of the pool and what it carries: what policies choose among."""

    __slots__ = ("counters", "elsewhere", "name", "node", "state", "takes_work", "weight")

    def __init__(self, node: Node, state: NodeState) -> None:
        self.counters = Counters()
        self.elsewhere = 0  # held by gateways that drain
        self.configure(node, state)

    def configure(self, node: Node, state: NodeState) -> None:
        """Take the node's settings and state.  What `pick` asks for each node is worked out here, not there."""
        self.name, self.node, self.state = node.name, node, state
        self.weight = state.weight
        self.takes_work = state.takes_work and node.host is not None

    @property
    def connections(self) -> int:
        """Associations open at the node, whoever holds them."""
        return self.counters.connections + self.elsewhere

    @property
    def full(self) -> bool:
        """Whether the node is at its own limit."""
        return self.node.max_connections is not None and self.connections >= self.node.max_connections


class Pool:
    """The nodes of one service."""

    def __init__(self, policy: Policy, persistence: Persistence, max_connections: int | None = None) -> None:
        self._policy = policy
        self._max_connections = max_connections
        self._persistence = persistence
        self.table = PersistenceTable(persistence.ttl_s)
        self.members: dict[str, Member] = {}  # in the configuration's order
        self._leaving: dict[str, Member] = {}  # no longer configured, associations still open
        self._elsewhere: dict[str, Mapping[str, int]] = {}  # by gateway: what it still holds of each node

    def configure(self, nodes: tuple[Node, ...], states: Mapping[str, NodeState]) -> None:
        """Take these nodes, keeping the counts of those that stay."""
        before = self._leaving | self.members
        self.members = {}
        for node in nodes:
            member = before.pop(node.name, None)
            state = states.get(node.name) or NodeState("up", node.weight)
            if member is None:
                member = Member(node, state)
            member.configure(node, state)
            self.members[node.name] = member
        self._leaving = {name: member for name, member in before.items() if member.counters.connections}
        self._count_elsewhere()

    def inherit(self, other: "Pool", now_s: float) -> None:
        """Take over what another pool of the same service holds, before `configure`."""
        self._leaving = other._leaving | other.members
        self._elsewhere = other._elsewhere
        self.table.merge(other.table.entries(now_s), now_s)

    def set_state(self, name: str, state: NodeState) -> bool:
        """Take a node in or out; say whether anything changed."""
        member = self.members.get(name)
        if member is None or member.state == state:
            return False
        member.configure(member.node, state)
        return True

    def pick(self, client: Client, tried: tuple[str, ...], now_s: float) -> Picked | Full | Nobody:
        """Return a place at a node that is not in `tried`; it counts as open from now on."""
        able = [member for member in self.members.values() if member.takes_work and member.name not in tried]
        group = [member for member in able if not member.node.backup] or able
        if not group:
            return Nobody(self._why_nobody(tried))
        if self._max_connections is not None and self.open >= self._max_connections:
            return Full(f"the service is at its max_connections, {self._max_connections}")
        free = [member for member in group if not member.full]
        if not free:
            return Full(f"every node that is up is at its max_connections: {', '.join(m.name for m in group)}")
        key = persistence_key(self._persistence.by, client, self._persistence.mask, self._persistence.mask6)
        own = self._own(key, now_s)
        chosen = next((member for member in free if member is own), None) or self._by_policy(free, client)
        if key is not None:
            returns = own if own is not None and own.full and own.name not in tried else chosen
            self.table.keep(key, returns.name, now_s)
        chosen.counters.connections += 1
        chosen.counters.associations += 1
        return Picked(chosen.node, alternatives=len(able) - 1)

    def release(self, name: str) -> None:
        """Give a place back."""
        member = self.members.get(name) or self._leaving.get(name)
        if member is not None and member.counters.connections:
            member.counters.connections -= 1
        if name in self._leaving and not self._leaving[name].counters.connections:
            del self._leaving[name]

    def counters(self, name: str) -> Counters:
        """Return a node's counters, also of one that is leaving.  Raises: KeyError."""
        return (self.members.get(name) or self._leaving[name]).counters

    @property
    def open(self) -> int:
        """Associations open in the whole service, whoever holds them; also at nodes that have left."""
        own = sum(member.counters.connections for member in (*self.members.values(), *self._leaving.values()))
        return own + sum(sum(counts.values()) for counts in self._elsewhere.values())

    def set_elsewhere(self, gateway: str, counts: Mapping[str, int]) -> None:
        """Note what a gateway that drains still holds; an empty mapping means nothing any more."""
        self._elsewhere.pop(gateway, None)
        if any(counts.values()):
            self._elsewhere[gateway] = counts
        self._count_elsewhere()

    def _count_elsewhere(self) -> None:
        for name, member in self.members.items():
            member.elsewhere = sum(counts.get(name, 0) for counts in self._elsewhere.values())

    def _own(self, key: str | None, now_s: float) -> Member | None:
        """Return the client's own node; one that is drained or down loses the client, one that is full does not."""
        name = None if key is None else self.table.node_of(key, now_s)
        if key is None or name is None:
            return None
        member = self.members.get(name)
        if member is None or not member.takes_work:
            self.table.forget(key)
            return None
        return member

    def _by_policy(self, free: list[Member], client: Client) -> Member:
        return self.members[self._policy.pick(free, client)]

    def _why_nobody(self, tried: tuple[str, ...]) -> str:
        """Return why each node takes no work, for the one who reads the event."""
        said = (f"{name} {'tried' if name in tried else _why_not(member)}" for name, member in self.members.items())
        return "no node takes work: " + ", ".join(said)


def _why_not(member: Member) -> str:
    if member.node.host is None:
        return "has a name that does not resolve"
    return "has weight 0" if member.state.state == "up" else f"is {member.state.state}"
