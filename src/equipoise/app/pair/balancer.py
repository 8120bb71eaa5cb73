"""What the half of a pair needs of the supervisor that it belongs to."""

from typing import Protocol

from equipoise.app.offline import Preview
from equipoise.plan.model import Plan
from equipoise.state.events import Event


class Balancer(Protocol):
    """One instance of the balancer: its plan and its document, and how to change them."""

    @property
    def plan(self) -> Plan:
        """Return the plan in force."""

    @property
    def document(self) -> str:
        """Return the text of the document in force."""

    def alone(self) -> Plan:
        """Return the plan that would be in force if this machine were not one of a pair."""

    async def preview(self, document: str) -> Preview:
        """Say what `document` would change.  Raises: ConfigError."""

    async def would_change(self, document: str) -> None:
        """See whether `document` could be put into force here, and change nothing.  Raises: EquipoiseError."""

    async def change(self, document: str, *, force: bool) -> Preview:
        """Put `document` into force here, in the place of the old one.  Raises: EquipoiseError, nothing changed."""

    async def read_again(self) -> None:
        """Put the same document into force with what this machine's files say now.  Raises: EquipoiseError."""

    async def tell_states(self) -> None:
        """Have every engine know the node states as they are now.  Raises: EngineError."""

    def emit(self, event: Event) -> None:
        """Tell the journal."""


def peer_of(balancer: Balancer) -> str:
    """Return the address of the peer; empty where there is none."""
    cluster = balancer.plan.cluster
    return cluster.peer if cluster is not None else ""
