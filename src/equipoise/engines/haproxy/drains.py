"""How long each node has been in drain: HAProxy goes on sending it the clients that keep it, until that is over."""

from collections.abc import Collection

from equipoise.base.clock import Clock
from equipoise.plan.states import NodeStates


class Drains:
    """The nodes in drain, and since when.  A node that comes back and drains again begins anew."""

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
