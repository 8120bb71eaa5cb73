"""Peers of check `hl7_ack`, from the bytes up: MLLP frames, and HL7 2.5.1 section 2.15.8 (MSA)."""

import asyncio
from collections.abc import Callable, Mapping

from tests.unit.health.fake_peer import Script

LISTENS = True
START, END = b"\x0b", b"\x1c\r"
ACK_BLOCK, NAK_BLOCK = b"\x0b\x06\x1c\r", b"\x0b\x15\x1c\r"
Reply = Callable[[bytes], bytes]


def control_id(message: bytes) -> bytes:
    return message.split(b"\r")[0].split(message[3:4])[9]


def acknowledgement(message: bytes, code: bytes = b"AA", of: bytes | None = None) -> bytes:
    named = control_id(message) if of is None else of
    return b"MSH|^~\\&|PACS|NORTH|||20310304050608||ACK^N01|7|P|2.5.1\rMSA|" + code + b"|" + named + b"\r"


def replying(reply: Reply, *, closes: bool = False, end: bytes = END) -> Script:
    """Answer one message with these bytes, made of its content."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frame = await reader.readuntil(end)
        writer.write(reply(frame[1 : -len(end)]))
        if closes:
            writer.close()

    return script


def framing(content: Callable[[bytes], bytes]) -> Reply:
    return lambda message: START + content(message) + END


def answering(code: bytes = b"AA", of: bytes | None = None) -> Script:
    return replying(framing(lambda message: acknowledgement(message, code, of)))


def saying(data: bytes, *, closes: bool = False) -> Script:
    return replying(lambda _: data, closes=closes)


HEALTHY: Script = answering()
SICK: Mapping[str, Script] = {
    "acknowledged another message: MSA-2 is not the control ID that was sent": answering(of=b"4711"),
    "answered AA to no message: MSA-2, its control ID, is empty": answering(of=b""),
    "answered other, no code of table 0008; expected AA or AE or AR or CA or CE or CR, the node's log says why": (
        answering(b"OK")
    ),
    "answered a message of type ORU^R01, without MSA: it acknowledges nothing": saying(
        b"\x0bMSH|^~\\&|LAB||||20310304||ORU^R01|1|P|2.5\r\x1c\r"
    ),
    "refused the message by a commit block of MLLP release 2 (NAK); the node's log says why": saying(NAK_BLOCK),
    "closed the connection without an acknowledgement; the node's log says why": saying(b"", closes=True),
    "closed the connection in the middle of its answer, 22 bytes behind its start": saying(
        b"\x0bMSH|^~\\&|PACS|NORTH||", closes=True
    ),
    "closed the connection after 16 bytes that are no HL7; is this the port of a receiver?": saying(
        b"500 Go away now\n", closes=True
    ),
    "answered 100 bytes in no frame of HL7; is this the plain port of an HL7 receiver, and are frame_start and "
    "frame_end its own?": saying(b"." * 100),
    "an answer of more than 65536 bytes; an acknowledgement is short": saying(b"\x0bMSH|" + b"x" * 70_000),
    "answered what is not an HL7 message: it begins with letters, not with MSH; the node's log says why": saying(
        b"\x0bthank you\x1c\r"
    ),
    "answered what is not an HL7 message: it is UTF-16 or UTF-32, which MLLP cannot carry; the node's log "
    "says why": replying(framing(lambda message: acknowledgement(message).decode().encode("utf-16"))),
}
