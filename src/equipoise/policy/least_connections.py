"""Policy `least_connections`: the node with the fewest open connections for its weight, in turn among equals."""

from collections.abc import Sequence

from equipoise.policy.base import Candidate, Client, PolicyKind


class LeastConnections:
    """Remembers in which order nodes were last picked, to take turns among equals."""

    def __init__(self) -> None:
        self._turn = 0
        self._last_turn: dict[str, int] = {}

    def pick(self, candidates: Sequence[Candidate], client: Client) -> str:
        """Return the node that would carry the least for its weight with this connection added."""
        chosen = min(
            candidates,
            key=lambda node: ((node.connections + 1) / node.weight, self._last_turn.get(node.name, 0)),
        ).name
        self._turn += 1
        self._last_turn[chosen] = self._turn
        return chosen


POLICY = PolicyKind(name="least_connections", make=LeastConnections)
