"""Policy `least_work`: the node where a study costs the least waiting, for itself and for those already there.

What each association still has to move is known roughly, from what its calling AE moved before. A node shares its
speed, so what stands in the way of a new association is, of each open one, what that has left, and at most as much as
the new one brings: one study of 2 GB is little in the way of a radiograph, and ten radiographs are little in the way of
2 GB. The new one's own bytes and twice those in its way (it waits for them, and they for as much of it) are divided by
the weight, and among nodes of the same weight by the speed at which they were seen to take bytes; the least is picked.
Ties go to the node with fewer associations for its weight, then in turn. Where all senders do the same, or nothing is
known of them, connections decide, as in `least_connections`.

When it is better, and when not: docs/explanation/balancing.md.
"""

from collections.abc import Sequence

from equipoise.policy.base import Candidate, Client, PolicyKind
from equipoise.policy.turns import Turns


class LeastWork:
    """Takes turns among equals."""

    def __init__(self) -> None:
        self._turns = Turns()

    def pick(self, candidates: Sequence[Candidate], client: Client) -> str:
        """Return the node that would have the least to do for its weight with this association added."""
        chosen = min(
            candidates,
            key=lambda node: (
                node.work / node.weight,
                (node.connections + 1) / node.weight,
                self._turns.last(node.name),
            ),
        )
        return self._turns.take(chosen.name)


POLICY = PolicyKind(name="least_work", make=LeastWork, weighs_work=True)
