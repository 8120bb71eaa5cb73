"""A simulated archive cluster that takes studies, for `bench.policies`: events in order, no network, clock or chance.

A node shares its speed evenly among its open associations, and none is faster than its sender: processor sharing with
a cap, as disks, databases and gigabit cards do.  Leaves out set-up, rejects, retries, persistence and how long a pick
takes.  The pool, its policies, predictions and workloads are the gateway's own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf

from equipoise.engines.gateway.pool import Picked, Pool
from equipoise.policy.base import Client


@dataclass(frozen=True, slots=True)
class Study:
    """What one association brings."""

    arrives_s: float
    client: Client
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A study that is stored, and how long that took from its arrival."""

    study: Study
    took_s: float


@dataclass(slots=True)
class Flow:
    """One association at a node; its bytes are read as the gateway reads them."""

    study: Study
    node: "NodeModel | None" = None
    began_at: float = 0.0  # of the node's progress
    began_busy_s: float = 0.0
    picked: Picked | None = None
    bytes_out: int = 0

    @property
    def bytes_in(self) -> int:
        """What has moved; never more than there is."""
        if self.node is None:
            return 0
        return min(int(self.node.progress - self.began_at), self.study.size_bytes)

    def taken(self) -> tuple[int, float]:
        """Return what the node has taken, and for how long bytes were on their way."""
        return (0, 0.0) if self.node is None else (self.bytes_in, self.node.busy_s - self.began_busy_s)


@dataclass(slots=True)
class NodeModel:
    """A node.

    Attributes:
        sender_bytes_per_s: The most that one association moves.
        progress: What an association would have moved that had been open all the time: in a second all move the same.
        busy_s: How long an association would have had bytes on their way that had been open all the time.
    """

    bytes_per_s: float
    sender_bytes_per_s: float
    progress: float = 0.0
    busy_s: float = 0.0
    _now_s: float = 0.0
    _open: list[tuple[float, int, Flow]] = field(default_factory=list)

    @property
    def _each_bytes_per_s(self) -> float:
        return min(self.sender_bytes_per_s, self.bytes_per_s / len(self._open))

    def advance(self, now_s: float) -> None:
        """Move what moves until `now_s`; nothing may end before it."""
        if self._open:
            moved = self._each_bytes_per_s * (now_s - self._now_s)
            self.progress += moved
            # The kernel's count: all the time where the node is the limit, else only while bytes travel at its speed.
            self.busy_s += min(moved * len(self._open) / self.bytes_per_s, now_s - self._now_s)
        self._now_s = now_s

    def begin(self, flow: Flow, number: int) -> None:
        """Open an association."""
        heappush(self._open, (self.progress + flow.study.size_bytes, number, flow))

    def next_end_s(self) -> float:
        """Return when the first of the open associations ends, if none is added."""
        if not self._open:
            return inf
        return self._now_s + max(self._open[0][0] - self.progress, 0.0) / self._each_bytes_per_s

    def end_first(self) -> Flow:
        """Close the association that ends first."""
        return heappop(self._open)[2]


Teach = Callable[[Pool, Study], None]


def store_all(pool: Pool, nodes: Mapping[str, NodeModel], studies: Sequence[Study], teach: Teach) -> list[Stored]:
    """Return the studies in the order in which they were stored; `teach` is told of each."""
    stored: list[Stored] = []
    coming = iter(enumerate(studies))
    following = next(coming, None)
    while following is not None or len(stored) < len(studies):
        first = min(nodes.values(), key=NodeModel.next_end_s)
        ends_s = first.next_end_s()
        now_s = min(ends_s, following[1].arrives_s if following is not None else inf)
        for node in nodes.values():
            node.advance(now_s)
        if following is not None and following[1].arrives_s < ends_s:
            _begin(pool, nodes, *following)
            following = next(coming, None)
        else:
            stored.append(_end(pool, first.end_first(), now_s, teach))
    return stored


def _begin(pool: Pool, nodes: Mapping[str, NodeModel], number: int, study: Study) -> None:
    flow = Flow(study)
    picked = pool.pick(study.client, (), study.arrives_s, flow)
    if not isinstance(picked, Picked):
        raise AssertionError(f"no node has limits here, and yet: {picked.reason}")
    node = nodes[picked.node.name]
    flow.picked, flow.node = picked, node
    flow.began_at, flow.began_busy_s = node.progress, node.busy_s
    node.begin(flow, number)


def _end(pool: Pool, flow: Flow, now_s: float, teach: Teach) -> Stored:
    if flow.picked is not None:
        pool.release(flow.picked)
    teach(pool, flow.study)
    return Stored(flow.study, now_s - flow.study.arrives_s)
