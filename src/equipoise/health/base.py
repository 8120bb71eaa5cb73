"""What a health check is: settings and a conversation.  Dialling, TLS and the deadline are the runner's.

Most checks talk on one connection: `probe`.  One that reaches the node in another way, or asks several questions, is
given the question itself instead: `visit`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from equipoise.config.base import CheckParams
from equipoise.health.question import Question

_SHOWN_CHARACTERS = 160


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


def one_line(text: str, max_characters: int = _SHOWN_CHARACTERS) -> str:
    r"""Return a stranger's text as it may stand in a reason: printable, in one line, and not long.

    >>> one_line("up\x07 and\nwell")
    'up\\x07 and\\nwell'
    """
    cut = text[:max_characters]
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)
    return shown + "..." if len(text) > len(cut) else shown


@dataclass(frozen=True, slots=True)
class TlsSession:
    """What a TLS handshake came to.

    Attributes:
        version: As `TLSv1.3`.
        cipher: The name of the cipher suite.
        names: Whom the node's certificate is for, in one line.
        left_s: How long the certificate is still valid, in seconds; negative once it has ended.
    """

    version: str
    cipher: str
    names: str
    left_s: float


class Link(Protocol):
    """A connection to the node being checked.  Every wait ends at the runner's deadline."""

    @property
    def peer(self) -> str:
        """Whom it leads to, as ADDRESS:PORT."""

    @property
    def tls(self) -> TlsSession | None:
        """What TLS came to; None on a plain connection."""

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""

    async def receive(self) -> bytes:
        """Return what has come, as soon as there is something; empty once the peer has closed."""

    async def receive_exactly(self, size_bytes: int) -> bytes:
        """Return exactly so many bytes.  Raises: PeerError when the peer closes before."""

    async def receive_until(self, end: bytes, max_bytes: int) -> bytes:
        """Return what comes up to and with `end`.  Raises: PeerError when it is longer or the peer closes before."""


@dataclass(frozen=True, slots=True)
class Visit:
    """What a check is given that does not talk on one connection.

    Attributes:
        question: What is asked, and of whom.
        timeout_s: When the answer is due.  The check itself keeps to it.
        ask: Asks another question, with the time that it may take; the answer may be late.
            Raises: EquipoiseError where it could not be asked, which says nothing of the node.
    """

    question: Question
    timeout_s: float
    ask: Callable[[Question, float], Awaitable[Result]]


Probe: TypeAlias = Callable[[Link, Any], Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class Check:
    """A check as the runner, the configuration and `probe` find it; it has either `probe` or `visit`.

    Attributes:
        name: As written in `health.check`.
        params: The settings model; its own fields beside those of `CheckParams`.
        probe: The conversation: given a connected link and the settings, what was seen.  May raise PeerError.
        visit: What is done instead: given the question and the settings, what was seen.  Leaves nothing behind
            when it is cancelled.
    """

    name: str
    params: type[CheckParams]
    probe: Probe | None = None
    visit: Callable[[Visit, Any], Awaitable[Result]] | None = None
