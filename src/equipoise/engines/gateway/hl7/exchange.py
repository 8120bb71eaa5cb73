"""One message on its way from a sender to a receiver and back: what is known of it, and what an answer means.

Leaves out which receiver that is (`dispatch.py`) and who carries it (`delivery.py`).

Source: HL7 version 2.5.1, sections 2.9.2 (original mode), 2.9.3 (enhanced mode), table 0155 (MSH-15 and MSH-16).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from equipoise.engines.gateway.arrival import Arrival
from equipoise.engines.gateway.pool import Picked
from equipoise.policy.base import Client
from equipoise.proto.hl7 import Header, read_acknowledgement
from equipoise.proto.mllp import ACK, NAK, Frame

if TYPE_CHECKING:
    from equipoise.engines.gateway.hl7.link import Link

_SOMETIMES = frozenset({b"AL", b"ER", b"SU"})  # table 0155: always, when something is wrong, when nothing is


class Stage(Enum):
    """How far a message is."""

    TURN = auto()  # it waits for earlier messages of its patient
    NODE = auto()  # it waits for a node that takes work, or has room
    CONNECTION = auto()  # a connection to its node is being opened
    WRITING = auto()  # some of it may have reached its node
    ANSWER = auto()  # its node has all of it
    CONFIRMATION = auto()  # its sender is to commit the answer (MLLP release 2)
    OVER = auto()


class Awaits(Enum):
    """Whether a message gets an answer on the connection that it went by."""

    ANSWER = auto()
    PERHAPS = auto()  # an application acknowledgement, which may also come on a connection of the receiver's own
    NOTHING = auto()  # none, or one only where something is wrong


class Sender(Protocol):
    """What a message needs of the connection that it came by.

    Attributes:
        name: Its address and port.
        client: Who it is, for picking a node.
        arrival: Where it came to.
        home: The node that its messages go to, where they stay together.
        is_gone: Whether it can be told nothing any more.
        looked_s: When its node was last weighed against others.
        owes: Answers that it may yet acknowledge, by control ID, to what passes that on.
    """

    name: str
    client: Client
    arrival: Arrival
    home: str | None
    looked_s: float
    is_gone: bool
    owes: dict[bytes, Callable[[Frame], None]]

    def answer(self, frame: Frame) -> None:
        """Send an answer."""

    def finished(self, kind: str, answer: str) -> None:
        """Hear that the message is done with, so that the next one may come; `answer` is what is counted."""

    def look_again(self) -> None:
        """Hear that the next message need not wait for this one any more, or that something small may."""

    def close(self, ended: str, reason: str) -> None:
        """Close, so that the sender decides what becomes of its message."""


class Exchange:
    """One message under way.

    Attributes:
        tried: Nodes that have failed it, or rejected it.
        held: Whether it waits because no node takes work, rather than for room.
        wanted: The node that it waits for; None where any will do.
        since_s: When it was whole.
        deadline_s: When its stage has taken too long.
        committed: Whether its node has committed its block (MLLP release 2).
        is_commitment_told: Whether its sender was told so, of whichever node.
        code: What its answer is counted as, while the sender has not committed it.
        rejection: The last answer of a node that rejected it, while others are asked.
        link: The connection that carries it, or that is being opened for it.
        held_until_s: When it is no longer held, from the first time that no node took work; 0 before that.
        room_until_s: When it waits no longer for room, likewise.
        why: Why it waits.
        offered_s: When it was last offered to all nodes anew.
    """

    __slots__ = (
        "client",
        "code",
        "committed",
        "deadline_s",
        "frame",
        "header",
        "held",
        "held_until_s",
        "is_commitment_told",
        "link",
        "offered_s",
        "picked",
        "rejection",
        "rejection_code",
        "room_until_s",
        "sender",
        "since_s",
        "stage",
        "tried",
        "wanted",
        "why",
    )

    def __init__(self, sender: Sender, frame: Frame, header: Header, client: Client, now_s: float) -> None:
        self.sender = sender
        self.frame = frame
        self.header = header
        self.client = client
        self.since_s = now_s
        self.deadline_s = now_s
        self.stage = Stage.NODE
        self.picked: Picked | None = None
        self.tried: tuple[str, ...] = ()
        self.held = False
        self.wanted: str | None = None
        self.committed = self.is_commitment_told = False
        self.code = self.why = ""
        self.rejection: Frame | None = None
        self.rejection_code = ""
        self.link: Link | None = None
        self.held_until_s = self.room_until_s = 0.0
        self.offered_s = now_s

    @property
    def said(self) -> str:
        """What it is called in reasons: its type and control ID, which name no patient."""
        return f"{self.header.kind} {printable(self.header.control_id, 40)}".rstrip()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said to a message: `code` is what is counted.

    Attributes:
        is_last: Whether the receiver has said what it was asked for.
        is_rejection: Whether the message was not taken, so that another receiver may be asked.
        is_negative: Whether it was not accepted.
    """

    code: str
    is_last: bool = True
    is_rejection: bool = False
    is_negative: bool = False


_ANSWERS = {  # table 0008
    "AA": Answer("AA"),
    "CA": Answer("CA"),
    "AE": Answer("AE", is_negative=True),
    "CE": Answer("CE", is_negative=True),
    "AR": Answer("AR", is_rejection=True, is_negative=True),
    "CR": Answer("CR", is_rejection=True, is_negative=True),
}


def printable(field: bytes, most: int) -> str:
    """Return the first `most` bytes of what a peer wrote, fit to be shown."""
    return "".join(each if each.isprintable() else "?" for each in field[:most].decode("latin-1"))


def awaits(header: Header) -> Awaits:
    """Say whether a message gets an answer: table 0155, AL always, NE never, ER and SU only sometimes."""
    if header.accept == b"AL":
        return Awaits.ANSWER
    if header.accept == header.application == b"":  # so it is for a batch, which has neither
        return Awaits.NOTHING if _acknowledges(header) else Awaits.ANSWER
    if header.application == b"AL":
        return Awaits.PERHAPS
    return Awaits.NOTHING


def _acknowledges(header: Header) -> bool:
    """Say whether a message is itself an acknowledgement, sent by a connection of its own: most get no answer."""
    return header.kind.startswith("ACK")


def may_bring_more(header: Header, code: str) -> bool:
    """Say whether the receiver may answer again, behind this code, or for the first time where that is empty.

    An application acknowledgement is its last word; one that it has committed nothing is, too.
    """
    if not code:
        return header.application in _SOMETIMES or header.accept in _SOMETIMES or _acknowledges(header)
    return code == "CA" and header.application in _SOMETIMES


def judge(exchange: Exchange, frame: Frame, release: int) -> Answer | None:
    """Return what a frame means as an answer to this message; None where it answers another one, or nothing."""
    head = frame.head
    if release == 2 and head in (ACK, NAK):
        if exchange.committed:
            return None
        if head == NAK:
            return Answer("NAK", is_negative=True)
        return Answer("committed", is_last=awaits(exchange.header) is Awaits.NOTHING)
    acknowledgement = read_acknowledgement(head)
    if exchange.header.is_batch:
        return replace(_known(acknowledgement.code), is_rejection=False) if acknowledgement else Answer("answered")
    if acknowledgement is None or acknowledgement.control_id != exchange.header.control_id:
        return None
    return _known(acknowledgement.code)


def _known(code: str) -> Answer:
    return _ANSWERS.get(code) or Answer(code, is_negative=True)
