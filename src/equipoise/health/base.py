"""What a health check is: settings and a conversation.  Dialling, TLS and the deadline are the runner's."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from equipoise.config.base import CheckParams


@dataclass(frozen=True, slots=True)
class Result:
    """What one check saw, in one line for a person."""

    ok: bool
    reason: str

    @classmethod
    def passed(cls, reason: str) -> "Result":
        """Return a pass; `reason` says what was seen."""
        return cls(True, reason)

    @classmethod
    def failed(cls, reason: str) -> "Result":
        """Return a failure; `reason` says what was seen and what to do about it."""
        return cls(False, reason)


class Link(Protocol):
    """A connection to the node being checked.  Every wait ends at the runner's deadline."""

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""

    async def receive_exactly(self, size_bytes: int) -> bytes:
        """Return exactly so many bytes.  Raises: PeerError when the peer closes before."""

    async def receive_until(self, end: bytes, max_bytes: int) -> bytes:
        """Return what comes up to and with `end`.  Raises: PeerError when it is longer or the peer closes before."""


@dataclass(frozen=True, slots=True)
class Check:
    """A check as the runner, the configuration and `probe` find it.

    Attributes:
        name: As written in `health.check`.
        params: The settings model; its own fields beside those of `CheckParams`.
        probe: The conversation: given a connected link and the settings, what was seen.  May raise PeerError.
    """

    name: str
    params: type[CheckParams]
    probe: Callable[[Link, Any], Awaitable[Result]]
