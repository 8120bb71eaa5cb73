"""Policy `least_connections`: the node with the fewest open connections for its weight, in turn among equals."""

from collections.abc import Sequence

from equipoise.policy.base import Candidate, Client, PolicyKind
from equipoise.policy.turns import Turns


class LeastConnections:
    """Takes turns among equals."""

    def __init__(self) -> None:
        self._turns = Turns()

    def pick(self, candidates: Sequence[Candidate], client: Client) -> str:
        """Return the node that would carry the least for its weight with this connection added."""
        chosen = min(
            candidates,
            key=lambda node: ((node.connections + 1) / node.weight, self._turns.last(node.name)),
        )
        return self._turns.take(chosen.name)


POLICY = PolicyKind(name="least_connections", make=LeastConnections, counts=True)
