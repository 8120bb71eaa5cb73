"""Policy `first_up`: the first node of the configuration that may take work; the others are its reserve, in order."""

from collections.abc import Sequence

from equipoise.policy.base import Candidate, Client, PolicyKind


class FirstUp:
    """Remembers nothing."""

    def pick(self, candidates: Sequence[Candidate], client: Client) -> str:
        """Return the first."""
        return candidates[0].name


POLICY = PolicyKind(name="first_up", make=FirstUp, ramps=False)
