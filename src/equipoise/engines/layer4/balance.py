"""Who takes work at one service of layer 4, and the slots that follow.  Pure; time and counts are passed in."""

from collections.abc import Mapping
from dataclasses import replace

from equipoise.engines.layer4.artifact import Member, Pool
from equipoise.engines.layer4.slots import Share, filled
from equipoise.engines.layer4.transaction import Filling, filling
from equipoise.plan.states import NodeState
from equipoise.policy.ramp import ramped


class Balance:
    """One pool under one plan.

    Args:
        pool: The pool.
        states: What was known of its nodes before.
        since_s: Since when nodes take work that start slowly.
    """

    def __init__(
        self, pool: Pool, states: Mapping[str, NodeState] | None = None, since_s: Mapping[str, float] | None = None
    ) -> None:
        self.pool = pool
        self._states = dict(states or {})
        self._since_s = dict(since_s or {})

    @classmethod
    def after(cls, before: "Balance | None", pool: Pool, now_s: float) -> "Balance":
        """Return the balance of a pool whose plan has changed: nodes that join others start slowly."""
        if before is None:
            return cls(pool)
        known = {member.name for member in before.pool.members}
        new = {member.name: now_s for member in pool.members if member.name not in known}
        return cls(pool, before._states, before._since_s | new)

    def see(self, states: Mapping[str, NodeState], now_s: float) -> bool:
        """Take the state of each node, and say whether anything changed; one that takes work again starts slowly."""
        if states == self._states:
            return False
        for name, state in states.items():
            before = self._states.get(name)
            if before is not None and state.takes_work and not before.takes_work:
                self._since_s[name] = now_s
        self._states = dict(states)
        return True

    @property
    def is_moving(self) -> bool:
        """Whether the slots change by themselves: they follow connections, limits, or nodes that start slowly."""
        pool = self.pool
        return (
            pool.kind.counts
            or any(member.max_connections for member in pool.members)
            or any(self._has_to_ramp(member) for member in pool.members)
        )

    def filling(self, connections: Mapping[str, int], first: int, now_s: float) -> Filling:
        """Return what the kernel is to hold.

        Args:
            connections: Live ones of each node.
            first: The slot that the next flow takes.
            now_s: The time.
        """
        takers = self._takers()
        shares = [
            Share(member.name, self._weight(member, now_s), connections.get(member.name, 0))
            for member in self._with_room(takers, connections)
        ]
        slots = filled(self.pool.kind, shares, self.pool.slots, first)
        self._since_s = {name: since_s for name, since_s in self._since_s.items() if self._is_young(since_s, now_s)}
        return filling(self.pool, self._states, slots, (member.name for member in takers))

    def _able(self) -> list[Member]:
        return [member for member in self.pool.members if member.serves and self._state(member).takes_work]

    def _takers(self) -> list[Member]:
        """Return the nodes that may take work: no backups as long as there are others."""
        able = self._able()
        return [member for member in able if not member.backup] or able

    def _with_room(self, takers: list[Member], connections: Mapping[str, int]) -> list[Member]:
        """Leave out nodes at their limit; backups stand in for all others, and where all are full, each is asked."""

        def has_room(member: Member) -> bool:
            return member.max_connections is None or connections.get(member.name, 0) < member.max_connections

        return list(filter(has_room, takers)) or list(filter(has_room, self._able())) or takers

    def _state(self, member: Member) -> NodeState:
        return self._states.get(member.name, NodeState("up", member.weight))

    def _weight(self, member: Member, now_s: float) -> float:
        weight = float(self._state(member).weight)
        if not self._has_to_ramp(member):
            return weight
        return ramped(weight, now_s - self._since_s[member.name], self.pool.slow_start_s)

    def _has_to_ramp(self, member: Member) -> bool:
        """Say whether it started slowly, and slots that give it its whole weight were not made since."""
        return self.pool.kind.ramps and member.name in self._since_s

    def _is_young(self, since_s: float, now_s: float) -> bool:
        return now_s - since_s < self.pool.slow_start_s


def refusing(filling: Filling) -> Filling:
    """Return a filling in which nobody takes new work, for a stop."""
    return replace(filling, slots=(), takes=frozenset(), able=frozenset())
