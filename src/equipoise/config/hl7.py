"""What is particular to HL7: what stays together, what happens when a receiver fails, and how messages are framed.

Source: HL7 version 2.5.1, chapter 2.9 (acknowledgements); "Transport Specification: MLLP, Release 1 and Release 2".
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from equipoise.config.base import Duration, DurationOrZero, Size, Strict
from equipoise.config.words import word

_MOST_BYTES = 31  # of a frame's start or end: what interface engines let their users write
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2} ?){1,31}")
HL7_KEYS = ("connection", "message", "sender", "patient")


def _bytes(text: str) -> str:
    if not _HEX.fullmatch(text):
        raise ValueError(f"{text!r} is not 1 to {_MOST_BYTES} bytes in hexadecimal; write them like '1c 0d'")
    return text.replace(" ", "").lower()


HexBytes = Annotated[
    str, AfterValidator(_bytes), WithJsonSchema({"type": "string", "pattern": f"^{_HEX.pattern}$", "title": "bytes"})
]


class Hl7(Strict):
    """What is particular to an HL7 service, whose messages are balanced one by one."""

    key: Annotated[str, *word(HL7_KEYS)] = "connection"
    """What stays together at one receiver while it takes work: the messages of a sender's `connection`; each `message`
    is free to go anywhere; those of a `sender` (MSH-3 and MSH-4); those of a `patient` (PID-3), of which one is under
    way at a time, and a merge (MRG) waits for both patients'."""
    hold: DurationOrZero = 3.0
    """How long a message is kept while no receiver takes work.  Senders wait 5 to 30 seconds for their answer."""
    on_no_node: Literal["close", "reject"] = "close"
    """What a sender gets when `hold` or `queue_wait` is over: its connection is closed, so that it sends again; or the
    answer AR (CR in enhanced mode), which says that its message was not taken."""
    receivers_deduplicate: bool = False
    """Whether the receivers know a message that they get twice.  Then one that was written and not acknowledged is sent
    to another; else the sender's connection is closed, and it decides."""
    try_next: bool = False
    """Whether a message that a receiver rejects (AR, CR) is offered to the others before the sender hears of it."""
    max_message: Annotated[Size, Field(ge=64 * 1024, le=1 << 30)] = 256 * 1024 * 1024
    """The longest message or answer that is passed on."""
    ack_timeout: Duration = 30.0
    """How long a receiver may take to acknowledge a message after its last byte."""
    connect_timeout: Duration = 2.0
    """How long one receiver may take to accept a connection before another is tried."""
    stall_timeout: Duration = 60.0
    """How long a peer may leave a message unfinished, or leave unread what is sent to it."""
    idle_timeout: DurationOrZero = 600.0
    """How long an unused connection to a receiver is kept; 0s for receivers that take one message a connection.  Those
    of senders may be silent as long as they like."""
    frame_start: HexBytes = "0b"
    """The bytes before a message, in hexadecimal."""
    frame_end: HexBytes = "1c0d"
    """The bytes behind a message, in hexadecimal."""
    mllp_release: Annotated[int, Field(ge=1, le=2)] = 1
    """With 2, every block is committed by one of its own (06 or 15) before the acknowledgement."""
