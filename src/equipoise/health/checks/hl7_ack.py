"""Check `hl7_ack`: send a message, pass when the receiver acknowledges that very message.

The message is real to the receiver: use one that its owner agreed to.  Without one, a network management query is sent,
and every answer to it passes: a receiver that says "not supported" is alive.  No reason tells a text of the receiver
(MSA-3, ERR), since it may repeat what a message said.
Leaves out deferred acknowledgements, which come on a connection of their own.
Source: HL7 version 2.5.1, section 2.15.8 (MSA), table 0008 (codes); "Transport Specification: MLLP, Release 2",
section 1.2.2.2 (commit blocks).
"""

import secrets
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from equipoise.base.clock import Clock, SystemClock
from equipoise.base.errors import PeerError
from equipoise.config.base import CheckParams
from equipoise.config.hl7 import HexBytes
from equipoise.config.words import one_or_more, word
from equipoise.health.base import Check, Link, Result
from equipoise.health.hl7 import QUERY, checked, filled_in
from equipoise.proto.hl7 import NotHl7Error, read_acknowledgement, read_header
from equipoise.proto.mllp import ACK, NAK, Frame, FrameReader, FrameTooLongError, Framing

_MAX_ANSWER_BYTES = 64 * 1024  # an acknowledgement has some 200 bytes, with ERR segments a few thousand
_MAX_BETWEEN_BYTES = 64  # in front of a frame: real receivers send a few NULs or line ends
_MEANINGS = {
    "AA": "accepted",
    "AE": "an error in the message",
    "AR": "rejected",
    "CA": "committed",
    "CE": "an error in the message, by the one that commits",
    "CR": "rejected, by the one that commits",
}
_ACCEPTED = ("AA", "CA")

Code = Annotated[str, *word(_MEANINGS)]
Hl7Text = Annotated[
    str,
    AfterValidator(checked),
    WithJsonSchema({"type": "string", "pattern": r"^\s*MSH", "title": "HL7 message, a segment in each line"}),
]


class Params(CheckParams):
    """The message, and the answers that are taken."""

    message: Hl7Text | None = None
    """What is sent, a segment in each line; MSH-7 (time) and MSH-10 (control ID) are filled in anew each time.  By
    default a network management query (NMQ^N01) of Equipoise's own, with nothing of a patient."""
    codes: Annotated[tuple[Code, ...], one_or_more(Code)] = ()
    """The codes in MSA-1 that pass.  Empty: `AA` and `CA` with a `message`, every code with the query."""
    frame_start: HexBytes = "0b"
    """The bytes before a message, in hexadecimal, as in `hl7`."""
    frame_end: HexBytes = "1c0d"
    """The bytes behind a message, in hexadecimal, as in `hl7`."""

    @property
    def passing(self) -> tuple[str, ...]:
        """Return the codes that pass."""
        return self.codes or (_ACCEPTED if self.message is not None else tuple(_MEANINGS))


async def probe(link: Link, params: Params) -> Result:
    """Hold the conversation.  Raises: PeerError."""
    return await _converse(link, params, secrets.token_hex(8), SystemClock())


async def _converse(link: Link, params: Params, control_id: str, clock: Clock) -> Result:
    framing = Framing.of(params.frame_start, params.frame_end)
    answers = _Answers(link, FrameReader(framing, _MAX_ANSWER_BYTES))
    await link.send(framing.wrap(filled_in(params.message or QUERY, control_id, clock.wall())))
    content = await answers.following()
    if content == ACK:
        content = await answers.following()
        await link.send(framing.wrap(ACK))  # what comes behind a commit block is committed, too
    if content == NAK:
        return Result.failed("refused the message by a commit block of MLLP release 2 (NAK); the node's log says why")
    return _judged(content, control_id, params)


class _Answers:
    """The contents of the frames that come, one by one."""

    def __init__(self, link: Link, reader: FrameReader) -> None:
        self._link = link
        self._reader = reader
        self._frames: list[Frame] = []

    async def following(self) -> bytes:
        """Return the next one.  Raises: PeerError where none comes."""
        while not self._frames:
            data = await self._link.receive()
            if not data:
                raise PeerError(_closed(self._reader))
            self._frames = _frames(self._reader, data)
            if self._reader.skipped > _MAX_BETWEEN_BYTES:
                raise PeerError(
                    f"answered {self._reader.skipped} bytes in no frame of HL7; is this the plain port of an HL7 "
                    "receiver, and are frame_start and frame_end its own?"
                )
        return self._frames.pop(0).content


def _frames(reader: FrameReader, data: bytes) -> list[Frame]:
    try:
        frames = reader.feed(data)
        return [*frames, reader.finish()] if reader.may_be_whole else frames  # some receivers forget the last CR
    except FrameTooLongError:
        raise PeerError(f"an answer of more than {_MAX_ANSWER_BYTES} bytes; an acknowledgement is short") from None


def _closed(reader: FrameReader) -> str:
    if reader.unfinished:
        return f"closed the connection in the middle of its answer, {reader.unfinished} bytes behind its start"
    if reader.skipped:
        return f"closed the connection after {reader.skipped} bytes that are no HL7; is this the port of a receiver?"
    return "closed the connection without an acknowledgement; the node's log says why"


def _judged(content: bytes, control_id: str, params: Params) -> Result:
    try:
        kind = read_header(content).kind
    except NotHl7Error as error:
        seen = str(error).partition(";")[0]  # what follows is for whom sends messages
        return Result.failed(f"answered what is {seen}; the node's log says why")
    answer = read_acknowledgement(content)
    if answer is None:
        return Result.failed(f"answered a message of type {kind}, without MSA: it acknowledges nothing")
    if not answer.control_id:
        return Result.failed(f"answered {answer.code} to no message: MSA-2, its control ID, is empty")
    if answer.control_id != control_id.encode():
        return Result.failed("acknowledged another message: MSA-2 is not the control ID that was sent")
    return _answered(answer.code, params)


def _answered(code: str, params: Params) -> Result:
    if code in params.passing:
        return Result.passed(f"acknowledged with {code}")
    meaning = _MEANINGS.get(code, "no code of table 0008")
    return Result.failed(f"answered {code}, {meaning}; expected {' or '.join(params.passing)}, the node's log says why")


CHECK = Check(name="hl7_ack", params=Params, probe=probe)
