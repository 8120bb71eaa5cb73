"""One service's nodes inside a gateway: who may take work, who gets it, who is full.  Pure; time is passed in.

In this order: a client's own node (persistence), while it may take work; else the policy's choice among nodes that are
up, not rested, not full and, as long as there are others, no backups.
Counts are by association.  A gateway that drains tells its successor what it still holds (`elsewhere`), so that limits
and balancing count both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from equipoise.engines.gateway.member import Counters, Member
from equipoise.engines.gateway.passive import FailureKind, Passive, Rested
from equipoise.engines.gateway.speed import SAMPLE_S
from equipoise.engines.gateway.workload import FLOOR_BYTES, Load, Traffic
from equipoise.plan.model import Node, PassiveHealth, Persistence
from equipoise.plan.states import NodeState
from equipoise.policy.base import Client, PolicyKind
from equipoise.policy.persistence import PersistenceTable, persistence_key
from equipoise.policy.prediction import Predictions

_NEVER_RESTED = PassiveHealth(failures=0)


@dataclass(frozen=True, slots=True)
class Picked:
    """A place at a node; it must be given back with `release`.  `load` is what the pool weighs it by, if it does."""

    node: Node
    alternatives: int
    load: Load | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Full:
    """Every node that may take this work is at its limit: waiting may help.

    `node` is the one to wait for; None where any will do.
    """

    reason: str
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Nobody:
    """No node may take this work: waiting for a place does not help."""

    reason: str


class Pool:
    """The nodes of one service."""

    def __init__(
        self,
        kind: PolicyKind,
        persistence: Persistence,
        max_connections: int | None = None,
        slow_start_s: float = 0.0,
        passive: PassiveHealth = _NEVER_RESTED,
    ) -> None:
        self._policy = kind.make()
        self._weighs_work = kind.weighs_work
        self._pins = kind.pins
        self.spreads = kind.ramps and persistence.by == "none"  # where work could as well go to another node
        self._slow_start_s = slow_start_s if kind.ramps else 0.0
        self._max_connections = max_connections
        self._persistence = persistence
        self._passive = Passive(passive)
        self.table = PersistenceTable(persistence.ttl_s)
        self.predictions = Predictions()
        self.members: dict[str, Member] = {}  # in the configuration's order
        self._ramping: list[Member] = []
        self._speeds_seen_s = float("-inf")
        self._rested: set[str] = set()  # as of the last pick
        self._leaving: dict[str, Member] = {}  # no longer configured, associations still open
        self._elsewhere: dict[str, Mapping[str, int]] = {}  # by gateway: what it still holds of each node

    def configure(self, nodes: tuple[Node, ...], states: Mapping[str, NodeState], now_s: float) -> None:
        """Take these nodes, keeping what is known of those that stay.  Those that join others start slowly."""
        before, leaving = self.members, self._leaving | self.members
        self.members = {}
        for node in nodes:
            state = states.get(node.name) or NodeState("up", node.weight)
            member = leaving.pop(node.name, None) or Member(node, state)
            worked = member.takes_work and node.name in before
            member.configure(node, state)
            self.members[node.name] = member
            if before and not worked:
                self._returns(member, now_s)
        self._leaving = {name: member for name, member in leaving.items() if member.counters.connections}
        self._passive.keep_only(self.members)
        self._rested &= self.members.keys()
        self._ramping = [member for member in self.members.values() if member.ramp(now_s, self._slow_start_s)]
        self._count_elsewhere()

    def inherit(self, other: "Pool", now_s: float) -> None:
        """Take over what another pool of the same service holds and knows, before `configure`."""
        self.members, self._leaving = other.members, other._leaving
        self._elsewhere = other._elsewhere
        self.table.inherit(other.table, now_s)
        self.predictions = other.predictions
        self._passive.inherit(other._passive)
        self._rested = other._rested

    def set_state(self, name: str, state: NodeState, now_s: float) -> bool:
        """Take a node in or out; say whether anything changed."""
        member = self.members.get(name)
        if member is None or member.state == state:
            return False
        worked = member.takes_work
        member.configure(member.node, state)
        if not worked:
            self._returns(member, now_s)
        self._ramping = [member for member in self.members.values() if member.ramp(now_s, self._slow_start_s)]
        return True

    def pick(
        self,
        client: Client,
        tried: tuple[str, ...],
        now_s: float,
        traffic: Traffic | None = None,
        *,
        stays: bool = False,
    ) -> Picked | Full | Nobody:
        """Return a place at a node that is not in `tried`; it counts as open from now on.

        With `stays`, a client whose own node is full waits for it; else it goes elsewhere.
        """
        able = [member for member in self.members.values() if member.takes_work and member.name not in tried]
        if not able:
            return Nobody(self._why_nobody(tried))
        if self._max_connections is not None and self.open >= self._max_connections:
            return Full(self._why_service_is_full())
        group = self._group(able, now_s)
        free = [member for member in group if not member.full]
        if not free:
            return Full(self._why_full(group))
        key = persistence_key(self._persistence.by, client, self._persistence.mask, self._persistence.mask6)
        own = self._own(key, now_s)
        if stays and (awaited := self._awaited(group, own, client, now_s)) is not None:
            if awaited.full:
                return Full(f"{awaited.name} is at its max_connections", awaited.name)
            free = [awaited]
        chosen = own if own is not None and own in free else self._by_policy(free, client, now_s)
        if key is not None:
            self.table.keep(key, self._home(own, chosen, tried).name, now_s)
        return self._take_place(chosen, len(able) - 1, client, traffic)

    def take(self, name: str) -> Picked | Full | None:
        """Return a place at this very node; None where it should take no work, so that another is to be picked."""
        member = self.members.get(name)
        if member is None or not member.takes_work or name in self._rested:
            return None
        if self._max_connections is not None and self.open >= self._max_connections:
            return Full(self._why_service_is_full())
        if member.full:
            return Full(f"{name} is at its max_connections", name)
        member.counters.connections += 1
        member.counters.associations += 1
        return Picked(member.node, 0)

    def candidates(self, now_s: float) -> list[Member]:
        """Return the nodes that new work is spread over, full ones included."""
        return self._group([member for member in self.members.values() if member.takes_work], now_s)

    def release(self, picked: Picked) -> None:
        """Give a place back."""
        name = picked.node.name
        member = self.members.get(name) or self._leaving.get(name)
        if member is None:
            return
        if picked.load is not None:
            member.speedometer.saw(*picked.load.taken())
            member.workload.remove(picked.load)
        if member.counters.connections:
            member.counters.connections -= 1
        if name in self._leaving and not member.counters.connections:
            del self._leaving[name]

    def learn(self, calling_ae: str, moved_bytes: int) -> None:
        """Take in what an association has moved in all, where the policy goes by it."""
        if self._weighs_work:
            self.predictions.learn(calling_ae, moved_bytes)

    def failed(self, node_name: str, client: Client, kind: FailureKind, reason: str, now_s: float) -> Rested | None:
        """Count an association that failed at a node, once each; return the rest that begins with it, if one does."""
        member = self.members.get(node_name)
        if member is None:
            return None
        may_rest = member.takes_work and self._is_not_the_last(member, now_s)
        rested = self._passive.failed(node_name, client, kind, reason, now_s, may_rest=may_rest)
        if rested is not None:
            self._rested.add(node_name)
        return rested

    def succeeded(self, node_name: str, now_s: float, count: int = 1) -> None:
        """Count associations that went well, once each and not if they have failed."""
        if node_name in self.members:
            self._passive.succeeded(node_name, now_s, count)

    def rested(self, node_name: str, now_s: float) -> str | None:
        """Return why a node is rested and until when, in a sentence; None where it is not."""
        member = self.members.get(node_name)
        said = self._passive.said(node_name, now_s)
        if member is None or said is None:
            return None
        last = member.takes_work and not self._is_not_the_last(member, now_s)
        return f"{said}; still asked, for no other takes work" if last else said

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

    def _returns(self, member: Member, now_s: float) -> None:
        """Start a node slowly that did not work before; what its traffic said then does not hold any more."""
        if member.takes_work:
            self._passive.forget(member.name)
            self._rested.discard(member.name)
            member.ramp_from_s = now_s

    def _group(self, able: list[Member], now_s: float) -> list[Member]:
        """Leave out nodes that are rested, then backups, as long as somebody remains.

        So a healthy backup comes before a rested primary, and the last node is never left out.
        """
        self._ramping = [member for member in self._ramping if member.ramp(now_s, self._slow_start_s)]
        if self._rested:
            self._end_rests(now_s)
            able = [member for member in able if member.name not in self._rested] or able
        return [member for member in able if not member.is_backup] or able

    def _end_rests(self, now_s: float) -> None:
        """Take nodes in again whose rest is over: slowly, for all their connections have gone elsewhere meanwhile."""
        for name in [name for name in self._rested if not self._passive.is_rested(name, now_s)]:
            self._rested.discard(name)
            member = self.members[name]
            member.ramp_from_s = now_s
            if member.ramp(now_s, self._slow_start_s) and member not in self._ramping:
                self._ramping.append(member)

    def _is_not_the_last(self, member: Member, now_s: float) -> bool:
        others = (other for other in self.members.values() if other is not member and other.takes_work)
        return any(not self._passive.is_rested(other.name, now_s) for other in others)

    def _own(self, key: str | None, now_s: float) -> Member | None:
        """Return the client's own node; one that is drained or down loses the client, one full or rested does not."""
        name = None if key is None else self.table.node_of(key, now_s)
        if key is None or name is None:
            return None
        member = self.members.get(name)
        if member is None or not member.takes_work:
            self.table.forget(key)
            return None
        return member

    def _awaited(self, group: list[Member], own: Member | None, client: Client, now_s: float) -> Member | None:
        """Return the node that a client which stays would wait for; None where any free one will do."""
        if own is not None:
            return own if own in group else None
        return self._by_policy(group, client, now_s) if self._pins else None

    def _home(self, own: Member | None, chosen: Member, tried: tuple[str, ...]) -> Member:
        """Return where the client comes next time: one whose node is only full or rested goes back there."""
        stays = own is not None and (own.full or own.name in self._rested) and own.name not in tried
        return own if own is not None and stays else chosen

    def _by_policy(self, free: list[Member], client: Client, now_s: float) -> Member:
        if self._weighs_work:
            own = max(self.predictions.expected(client.calling_ae), FLOOR_BYTES)
            unknown = max(self.predictions.average, FLOOR_BYTES)
            if now_s - self._speeds_seen_s >= SAMPLE_S:
                self._look_at_speeds(now_s)
            for member in free:
                member.weigh(own, unknown, now_s)
        return self.members[self._policy.pick(free, client)]

    def _look_at_speeds(self, now_s: float) -> None:
        """Compare nodes of the same weight by how fast they take bytes: weights that differ are an operator's word."""
        self._speeds_seen_s = now_s
        fastest: dict[int, float] = {}
        for member in self.members.values():
            member.workload.tell_taken(member.speedometer)
            member.speedometer.take_sample(now_s)
            weight = member.node.weight
            fastest[weight] = max(member.speedometer.bytes_per_s, fastest.get(weight, 0.0))
        for member in self.members.values():
            member.speed = member.speedometer.share(fastest[member.node.weight], now_s)

    def _take_place(self, member: Member, alternatives: int, client: Client, traffic: Traffic | None) -> Picked:
        load = None
        if self._weighs_work:
            load = Load(self.predictions.expected(client.calling_ae), traffic)
            member.workload.add(load)
        member.counters.connections += 1
        member.counters.associations += 1
        return Picked(member.node, alternatives, load)

    def _why_service_is_full(self) -> str:
        return f"the service is at its max_connections, {self._max_connections}"

    def _why_full(self, group: list[Member]) -> str:
        full = ", ".join(member.name for member in group)
        rested = ", ".join(sorted(self._rested.difference(member.name for member in group)))
        return f"every node that is up is at its max_connections: {full}" + (f"; rested: {rested}" if rested else "")

    def _why_nobody(self, tried: tuple[str, ...]) -> str:
        """Return why each node takes no work, for the one who reads the event."""
        said = (f"{name} {'tried' if name in tried else member.why_not()}" for name, member in self.members.items())
        return "no node takes work: " + ", ".join(said)
