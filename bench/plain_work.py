"""least_work as the design had it at first, to compare: all that is left at a node, not what is in the way of a study.

The sum over them of max(predicted - moved, 5 s x current rate, 64 KiB), the new one added, over the weight.
docs/adr/0009-what-least-work-weighs.md says why it was not kept.
"""

from equipoise.engines.gateway.member import Member
from equipoise.engines.gateway.pool import Full, Nobody, Picked, Pool
from equipoise.engines.gateway.workload import FLOOR_BYTES, Traffic
from equipoise.policy.base import Client

_AHEAD_S = 5.0
_SAMPLE_S = 0.5


class _Rated:
    """One association with its current rate."""

    def __init__(self, predicted: float, traffic: Traffic, began_s: float) -> None:
        self._predicted, self._traffic = predicted, traffic
        self._rate, self._moved, self._sampled_s = 0.0, 0, began_s

    def remaining(self, now_s: float) -> float:
        """Return the bytes still to come."""
        moved = self._traffic.bytes_in + self._traffic.bytes_out
        if now_s - self._sampled_s >= _SAMPLE_S:
            self._rate = (moved - self._moved) / (now_s - self._sampled_s)
            self._moved, self._sampled_s = moved, now_s
        return max(self._predicted - moved, self._rate * _AHEAD_S, FLOOR_BYTES)


class PlainWorkPool(Pool):
    """A pool that hands its policy plain sums."""

    def pick(
        self,
        client: Client,
        tried: tuple[str, ...],
        now_s: float,
        traffic: Traffic | None = None,
        *,
        stays: bool = False,
    ) -> Picked | Full | Nobody:
        """Pick as ever, and remember the association."""
        picked = super().pick(client, tried, now_s, traffic, stays=stays)
        if isinstance(picked, Picked) and picked.load is not None and traffic is not None:
            self._rated.setdefault(picked.node.name, {})[id(picked)] = _Rated(
                self.predictions.expected(client.calling_ae), traffic, now_s
            )
        return picked

    def release(self, picked: Picked) -> None:
        """Give a place back, and forget the association."""
        super().release(picked)
        self._rated.get(picked.node.name, {}).pop(id(picked), None)

    @property
    def _rated(self) -> dict[str, dict[int, _Rated]]:
        found: dict[str, dict[int, _Rated]] = self.__dict__.setdefault("rated", {})
        return found

    def _by_policy(self, free: list[Member], client: Client, now_s: float) -> Member:
        own = max(self.predictions.expected(client.calling_ae), FLOOR_BYTES)
        for member in free:
            open_here = self._rated.get(member.name, {}).values()
            member.work = sum(each.remaining(now_s) for each in open_here) + own
        return self.members[self._policy.pick(free, client)]
