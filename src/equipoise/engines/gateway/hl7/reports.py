"""What is told of receivers that fail: each time, but for a node that refuses message after message."""

from collections.abc import Callable
from typing import Protocol

from equipoise.engines.gateway.hl7.counting import Counting

_REFUSED_AGAIN_S = 1.0  # how often it is told that a node refuses connections


class Listener(Protocol):
    """Who is told."""

    now: Callable[[], float]

    def receiver_failed(self, node: str, why: str, reason: str, then: str | None) -> None:
        """Tell of a receiver's connection."""


class Reports:
    """The failures of one service's receivers."""

    def __init__(self, listener: Listener, counting: Counting) -> None:
        self._listener, self._counting = listener, counting
        self._refused_s: dict[str, float] = {}  # when it was last told of each node

    def failed(self, node: str, why: str, reason: str, then: str | None) -> None:
        """Count a failure, and tell of it; `then` is what became of the message under way."""
        self._counting.receivers_closed[why] += 1
        if why == "refused":
            now_s = self._listener.now()
            if now_s - self._refused_s.get(node, -_REFUSED_AGAIN_S) < _REFUSED_AGAIN_S:
                return
            self._refused_s[node] = now_s
        self._listener.receiver_failed(node, why, reason, then)
