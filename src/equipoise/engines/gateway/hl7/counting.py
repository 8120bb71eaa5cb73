"""What is counted of a service's messages.  Nothing of what they say gets here but their types."""

from bisect import bisect_left
from collections import Counter

from equipoise.engines.base import LATENCY_BOUNDS_MS
from equipoise.engines.gateway.messages import MessageCounters

_MOST_TYPES = 200  # all that HL7 defines and a site uses; who makes up more is counted as "other"


class Counting:
    """One service's counters since the gateway started."""

    def __init__(self) -> None:
        self._by_type: dict[str, dict[str, int]] = {}
        self._latency_ms = [0] * (len(LATENCY_BOUNDS_MS) + 1)
        self._latency_sum_ms = 0.0
        self.receivers_closed: Counter[str] = Counter()
        self.resent = 0

    def ended(self, kind: str, answer: str) -> None:
        """Count a message that is done with."""
        answers = self._by_type.get(kind)
        if answers is None:
            if len(self._by_type) >= _MOST_TYPES:
                kind = "other"
            answers = self._by_type.setdefault(kind, {})
        answers[answer] = answers.get(answer, 0) + 1

    def took(self, seconds: float) -> None:
        """Count how long an answer took."""
        took_ms = seconds * 1000
        self._latency_sum_ms += took_ms
        self._latency_ms[bisect_left(LATENCY_BOUNDS_MS, took_ms)] += 1

    def shown(self, in_flight: int, held: int) -> MessageCounters:
        """Return everything that was counted."""
        return MessageCounters(
            by_type={kind: dict(answers) for kind, answers in self._by_type.items()},
            in_flight=in_flight,
            held=held,
            resent=self.resent,
            receivers_closed=dict(self.receivers_closed),
            latency_ms=tuple(self._latency_ms),
            latency_sum_ms=round(self._latency_sum_ms, 3),
        )
