"""What the API asks of the supervisor.  It reads snapshots and edits inputs; it never reaches into an engine.

Source: DESIGN, "Data flow" and "Commands".
"""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from equipoise.plan.diff import Change


class Preview(Protocol):
    """What a document would change, or has just changed."""

    @property
    def digest(self) -> str:
        """Return the digest of the document's plan."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """Return the differences from the plan that runs; empty where there are none."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what is allowed but probably not meant."""


class Supervisor(Protocol):
    """The one loop, as the API sees it."""

    def identity(self) -> dict[str, Any]:
        """Return `version`, `pid` and `site`."""

    async def status(self) -> dict[str, Any]:
        """Return the document of `status --json`, and for each service that is not up its `reason`."""

    async def preview(self, document: str) -> Preview:
        """Say what `document` would change, and change nothing.  Raises: ConfigError."""

    async def apply(self, document: str, *, force: bool) -> Preview:
        """Put `document` into force.  Raises: ConfigError or EngineError, with nothing changed."""

    async def override(self, pattern: str, action: str, weight: int | None) -> list[str]:
        """Drain, disable, enable or weigh nodes; return their SERVICE/NODE names.

        `pattern` is SERVICE/NODE, either part may be a glob.  Raises: EquipoiseError when nothing matches.
        """

    def recent_events(self, limit: int) -> list[dict[str, Any]]:
        """Return the last events, newest last."""

    def follow(self) -> AsyncIterator[dict[str, Any]]:
        """Return what happens from this call on, until the supervisor ends.

        From the call, not from the first wait: what is recent at the call and what follows then join without a gap.
        """

    async def replace_gateways(self) -> list[int]:
        """Start a new gateway for each, let the old ones drain; return the new processes' numbers."""
