"""How senders' connections are spread over nodes, where the messages of a connection stay together.

A connection keeps its node as long as that takes work.  HL7 connections live for days, so when nodes return they move
there between two messages: to a node that has fewer of them by weight, also with this one.  Where the policy itself
always leads to the same node, it is asked anew instead.
"""

from collections import Counter

from equipoise.engines.gateway.hl7.exchange import Sender
from equipoise.engines.gateway.pool import Pool

LOOK_EVERY_S = 1.0  # each connection; in between its node is not weighed against others


class Spread:
    """The connections of one service, by the node that they have."""

    def __init__(self) -> None:
        self._settled: Counter[str] = Counter()

    def settle(self, sender: Sender, node: str | None) -> None:
        """Give a connection a node, or none."""
        if sender.home is not None:
            self._settled[sender.home] -= 1
        sender.home = node
        if node is not None:
            self._settled[node] += 1

    def forget(self, sender: Sender) -> None:
        """Hear that a connection is closed."""
        self.settle(sender, None)

    def look(self, sender: Sender, pool: Pool, now_s: float) -> None:
        """Move a connection whose node has more than its share, or should take no work."""
        sender.looked_s = now_s
        if sender.home is None:
            return
        able = pool.candidates(now_s)
        home = next((member for member in able if member.name == sender.home), None)
        if home is None or not pool.spreads:
            self.settle(sender, None)
            return
        best = min(able, key=lambda member: (self._settled[member.name] + 1) / member.weight)
        if (self._settled[best.name] + 1) / best.weight < self._settled[home.name] / home.weight:
            self.settle(sender, best.name)
