"""What one machine of a pair can ask of the other: path, messages, bounds.  Both sides read it.

The path has the version of the messages, so that machines of different ones say so, whatever else they send.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from equipoise.cluster.messages import (
    VERSION,
    Answer,
    Document,
    HandOver,
    Hello,
    Join,
    Joined,
    Overrides,
    SoftAnswer,
    SoftPush,
)
from equipoise.config.tree import MAX_DOCUMENT_BYTES

# A document in JSON: a line end or a quotation mark takes two bytes, anything that is escaped in full three for each.
MAX_MESSAGE_BYTES = 3 * MAX_DOCUMENT_BYTES + 64 * 1024
MAX_SOFT_BYTES = 8 * 1024 * 1024  # some 100 000 entries
MAX_JOIN_BYTES = 64 * 1024
SHORT_S = 10.0
CHANGE_S = 120.0  # every engine is asked, and perhaps started, before the answer
HELLO_S = 2.0

_Asked = TypeVar("_Asked", bound=msgspec.Struct)
_Answered = TypeVar("_Answered", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Call(Generic[_Asked, _Answered]):
    """One thing that can be asked.

    Attributes:
        timeout_s: From the first byte of the connection to the last one of the answer.
        max_bytes: Of what is asked, and of the answer.
    """

    name: str
    asked: type[_Asked]
    answered: type[_Answered]
    timeout_s: float = SHORT_S
    max_bytes: int = MAX_MESSAGE_BYTES

    @property
    def path(self) -> str:
        """Return where it is served."""
        return f"{PATH}/{self.name}"


class Fetch(msgspec.Struct, frozen=True, kw_only=True):
    """The sender wants the document of the other machine."""


class Leave(msgspec.Struct, frozen=True, kw_only=True):
    """The sender is no longer one of the pair."""


PATH = f"/pair/v{VERSION}"
HELLO = Call("hello", Hello, Hello, HELLO_S)
WOULD_TAKE = Call("would-take", Document, Answer, CHANGE_S)
TAKE = Call("take", Document, Answer, CHANGE_S)
FETCH = Call("document", Fetch, Document)
TAKE_OVERRIDES = Call("overrides", Overrides, Overrides)
TAKE_SOFT = Call("soft", SoftPush, SoftAnswer, max_bytes=MAX_SOFT_BYTES)
HAND_OVER = Call("hand-over", HandOver, Answer)
LEAVE = Call("leave", Leave, Answer)
JOIN = Call("join", Join, Joined, max_bytes=MAX_JOIN_BYTES)


def other_version(said: str | int) -> str:
    """Return what to tell a person where the two speak differently."""
    return (
        f"the one machine speaks version {VERSION} of what a pair says, the other {said}; they share addresses and "
        "nothing else until both run the same Equipoise: update the older one"
    )
