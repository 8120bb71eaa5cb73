"""What the two machines of a pair say to each other: JSON, each message the body of a request or of its answer.

`VERSION` goes up when a message changes its meaning; machines of different versions share addresses, and nothing else
until both have the same.  Fields may be added with a default without a new version.  Times are said as "so long ago"
or "so much left", as clocks of two machines differ.
"""

import msgspec

from equipoise.plan.soft import SoftEntry
from equipoise.plan.states import Override

VERSION = 1


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """A document as it was at a time.

    Attributes:
        number: Goes up with each change, on whichever machine it is made.
        digest: Of the document's text.
    """

    number: int
    digest: str


class GroupSaid(msgspec.Struct, frozen=True, kw_only=True):
    """A group of addresses on one machine.

    Attributes:
        state: `master`, `backup`, `fault`, or `unknown` while keepalived does not run.
        for_s: How long it has been so.
        holds: Addresses of it that are on the machine now, whatever the state says.
    """

    name: str
    state: str
    for_s: float
    holds: tuple[str, ...] = ()


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """How things stand on one machine; each sends it to the other several times a second, and gets the other's back.

    Attributes:
        session: Of this supervisor; another one knows nothing of what the last was sent.
        ancestors: Digests of the revisions that came before, newest first.
        overrides: What stands for all overrides and their stamps; where it differs, they are exchanged.
        fault: Why this machine takes no addresses; None where it does.
        nodes_up: How many nodes answer its checks.
        stopping: Whether it is on its way out.
        clock_s: Its time of day, seconds since 1970, for people alone.
    """

    version: int
    software: str
    session: str
    role: str
    revision: Revision
    ancestors: tuple[str, ...]
    overrides: str
    groups: tuple[GroupSaid, ...]
    clock_s: float
    fault: str | None = None
    nodes_up: int = 0
    stopping: bool = False


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """The document of one machine, for the other.

    Attributes:
        ancestors: As in Hello.
    """

    revision: Revision
    ancestors: tuple[str, ...]
    text: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """It was done; `refused` says why it was not."""

    refused: str | None = None


class Stamp(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """When an override was given: by a count that both machines raise, and where they are equal, by who gave it."""

    count: int
    origin: str


class StampedOverride(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator wants of a node; an override that wants nothing says that an earlier one is over."""

    override: Override
    stamp: Stamp


class Overrides(msgspec.Struct, frozen=True, kw_only=True):
    """Overrides by "SERVICE/NODE"."""

    overrides: dict[str, StampedOverride]


class SoftPush(msgspec.Struct, frozen=True, kw_only=True):
    """Soft state that the sender learned.

    Attributes:
        session: The sender's, as in its Hello.
        number: Of this push; a gap means that one was lost.
        whole: Whether this begins with all that is known, rather than with what is new.
    """

    session: str
    number: int
    tables: dict[str, tuple[SoftEntry, ...]]
    whole: bool = False


class SoftAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken; `resync` asks for all of it."""

    resync: bool = False


class HandOver(msgspec.Struct, frozen=True, kw_only=True):
    """Give these groups to the sender; empty: all that are held."""

    groups: tuple[str, ...] = ()


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """The second machine presents itself, with the secret of the token.

    Attributes:
        certificate: Its certificate, PEM.
        address: That at which the first machine is to reach it.
    """

    secret: str
    certificate: str
    address: str
    role: str

    def __repr__(self) -> str:
        """Return what may be shown: not the secret."""
        return f"Join(address={self.address!r}, role={self.role!r})"


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """The first machine's answer; its certificate is known by the token.

    Attributes:
        address: That at which it is to be reached.
        role: The role of the machine that asked.
    """

    address: str
    role: str
