"""What the worker that serves was told of its nodes, what is news to it, and when a drain is to be told as over.

Source: HAProxy management guide 2.6, section 9.3 (`shutdown sessions server`); the other commands: `states.py`.
"""

from collections.abc import Collection, Iterator, Sequence

from equipoise.base.clock import Clock
from equipoise.engines.haproxy.artifact import Pool
from equipoise.engines.haproxy.states import commands, cuts
from equipoise.plan.states import NodeStates


class Telling:
    """Commands that a worker took, pool by pool; a worker that has just begun took none.

    Attributes:
        is_behind: Whether it, or the file that the next one reads, may not know everything.
    """

    def __init__(self) -> None:
        self._taken: dict[str, tuple[str, ...]] = {}
        self._states: NodeStates = {}
        self.is_behind = False

    def forget(self) -> None:
        """Have everything told anew: another worker serves, or what this one takes is not known yet."""
        self._taken = {}
        self.is_behind = True

    def news(self, pools: Sequence[Pool], states: NodeStates, over: frozenset[str]) -> list[str]:
        """Return what is to be told.  Cutting what is open comes last, when nothing new comes any more."""
        cut = (f"shutdown sessions server {key}" for key in self.cut(pools, states))
        return [*self._news(pools, states, over), *cut]

    def cut(self, pools: Sequence[Pool], states: NodeStates) -> list[str]:
        """Return by "SERVICE/NODE" whose open connections end: old workers must be told in another way."""
        return [key for pool in pools for key in cuts(pool, self._states, states)]

    def took(self, pools: Sequence[Pool], states: NodeStates, over: frozenset[str]) -> None:
        """Remember that all of it was taken, and written down."""
        self._taken = {pool.service: commands(pool, states, over) for pool in pools}
        self._states = dict(states)
        self.is_behind = False

    def _news(self, pools: Sequence[Pool], states: NodeStates, over: frozenset[str]) -> Iterator[str]:
        for pool in pools:
            taken = set(self._taken.get(pool.service, ()))
            yield from (command for command in commands(pool, states, over) if command not in taken)


class Drains:
    """How long each node has been in drain: HAProxy goes on sending it the clients that keep it, until that is over.

    A node that comes back and drains again begins anew.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_s: dict[str, float] = {}
        self._finished: frozenset[str] = frozenset()

    def adopt(self, finished: Collection[str]) -> None:
        """Take nodes that HAProxy serves no more: where they are in drain, that was over before we came."""
        self._finished = frozenset(finished)

    def see(self, states: NodeStates) -> None:
        """Take what states nodes are in now."""
        draining = [key for key, state in states.items() if state.state == "drain"]
        self._since_s = {
            key: self._since_s.get(key, float("-inf") if key in self._finished else self._clock.monotonic())
            for key in draining
        }
        self._finished = self._finished & set(draining)

    def over(self, timeout_s: float) -> frozenset[str]:
        """Return the nodes whose drain is over."""
        end_s = self._clock.monotonic() - timeout_s
        return frozenset(key for key, since_s in self._since_s.items() if since_s <= end_s)

    def next_end_s(self, timeout_s: float) -> float | None:
        """Return in how many seconds the next drain is over; None where none is to come."""
        now_s = self._clock.monotonic()
        left = [since_s + timeout_s - now_s for since_s in self._since_s.values()]
        return min((left_s for left_s in left if left_s > 0), default=None)
