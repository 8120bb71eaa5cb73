"""What the worker that serves was told of its nodes, and what is news to it."""

from collections.abc import Iterator, Sequence

from equipoise.engines.haproxy.artifact import Pool
from equipoise.engines.haproxy.states import commands, cuts
from equipoise.plan.states import NodeStates


class Telling:
    """Commands that a worker took, pool by pool; a worker that has just begun took none.

    Attributes:
        is_behind: Whether it may not know everything: what was told last was not taken.
    """

    def __init__(self) -> None:
        self._taken: dict[str, tuple[str, ...]] = {}
        self._states: NodeStates = {}
        self.is_behind = False

    def forget(self) -> None:
        """Have everything told anew: another worker serves, or one did not answer."""
        self._taken = {}
        self.is_behind = True

    def news(self, pools: Sequence[Pool], states: NodeStates, over: frozenset[str]) -> list[str]:
        """Return what is to be told.  Cutting what is open comes last, when nothing new comes any more."""
        return [*self._news(pools, states, over), *self._cuts(pools, states)]

    def cut(self, pools: Sequence[Pool], states: NodeStates) -> frozenset[str]:
        """Return the nodes whose open connections end: old workers must be told in another way."""
        return frozenset(command.split()[-1] for command in self._cuts(pools, states))

    def took(self, pools: Sequence[Pool], states: NodeStates, over: frozenset[str]) -> None:
        """Remember that all of it was taken."""
        self._taken = {pool.service: tuple(commands(pool, states, over)) for pool in pools}
        self._states = dict(states)
        self.is_behind = False

    def _cuts(self, pools: Sequence[Pool], states: NodeStates) -> list[str]:
        return [command for pool in pools for command in cuts(pool, self._states, states)]

    def _news(self, pools: Sequence[Pool], states: NodeStates, over: frozenset[str]) -> Iterator[str]:
        for pool in pools:
            taken = set(self._taken.get(pool.service, ()))
            yield from (command for command in commands(pool, states, over) if command not in taken)
