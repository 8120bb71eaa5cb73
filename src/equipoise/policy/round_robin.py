"""Policy `round_robin`: each node in turn, as often as its weight says, evenly spread.

Source: smooth weighted round robin as nginx made it known: every node gains its weight, the richest is picked and
pays the total.
"""

from collections.abc import Sequence

from equipoise.policy.base import Candidate, Client, PolicyKind


class RoundRobin:
    """Remembers what each node is owed."""

    def __init__(self) -> None:
        self._owed: dict[str, float] = {}

    def pick(self, candidates: Sequence[Candidate], client: Client) -> str:
        """Return the node that is owed most; the first of several."""
        owed = {candidate.name: self._owed.get(candidate.name, 0) + candidate.weight for candidate in candidates}
        chosen = max(owed, key=owed.__getitem__)
        owed[chosen] -= sum(candidate.weight for candidate in candidates)
        self._owed = owed  # what a node was owed before it left is forgotten: it must not come back to a burst
        return chosen


POLICY = PolicyKind(name="round_robin", make=RoundRobin)
