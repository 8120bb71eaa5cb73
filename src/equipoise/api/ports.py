"""What the API asks of the supervisor.  It reads snapshots and edits inputs; it never reaches into an engine.

Source: DESIGN, "Data flow" and "Commands".
"""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from equipoise.cluster.wanted import WantedPair
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

    @property
    def revision(self) -> int | None:
        """Return the document's number in a pair, once it is in force; None where there is no pair."""

    @property
    def peer_said(self) -> str | None:
        """Return nothing where the peer has it too, else why it has not; None where there is no pair."""


class Pair(Protocol):
    """This machine's half of a pair.  Every method may raise EquipoiseError, with nothing changed."""

    async def status(self) -> dict[str, Any]:
        """Return the document of `cluster status --json`."""

    async def join(self, wanted: WantedPair, token: str | None) -> dict[str, Any]:
        """Invite a peer, or with its token join it.

        Return `state` and, where it is `invited`, `token`, `command` and `expires_s`; where it is `joined`, `peer`,
        `role` and `revision`.
        """

    async def leave(self) -> dict[str, Any]:
        """End the pair; return `peer`, and `peer_knows`: whether it could be told."""

    async def sync(self, take: str | None) -> dict[str, Any]:
        """Make the documents of both the same; `take` settles a conflict, by `ours` or by `theirs`.

        Return `result` (`same`, `sent`, `taken`, `conflict`), the revisions `ours` and `theirs`, and `difference`: the
        changes that lead from ours to theirs.
        """

    async def handover(self, groups: list[str], here: bool) -> dict[str, Any]:
        """Give addresses to the peer, or take them here; without `groups` all.

        Return `groups`, the address of the machine that has them now as `to`, and `within_ms`.
        """


class Supervisor(Protocol):
    """The one loop, as the API sees it."""

    @property
    def pair(self) -> Pair:
        """Return this machine's half of the pair, also where there is none yet."""

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
