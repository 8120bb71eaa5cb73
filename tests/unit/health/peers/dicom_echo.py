"""Peers of check `dicom_echo`, from the bytes up: PS3.8 section 9.3, PS3.7 table 9.3-13."""

import asyncio
import struct
from collections.abc import Mapping

from tests.unit.health.fake_peer import Script

LISTENS = True
VERIFICATION = b"1.2.840.10008.1.1\0"
IMPLICIT = b"1.2.840.10008.1.2"
RELEASE_RP = bytes([6, 0, 0, 0, 0, 4, 0, 0, 0, 0])


def rejection(result: int, source: int, reason: int) -> bytes:
    return bytes([3, 0, 0, 0, 0, 4, 0, result, source, reason])


def abortion(source: int, reason: int) -> bytes:
    return bytes([7, 0, 0, 0, 0, 4, 0, 0, source, reason])


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def acceptance(request: bytes, result: int = 0, context: int = 1) -> bytes:
    """Answer to a request, with one context: PS3.8 table 9-17."""
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    items += item(0x21, bytes([context, 0, result, 0]) + item(0x40, IMPLICIT))
    items += item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
    body = request[6:74] + items
    return struct.pack(">BxI", 2, len(body)) + body


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def echo_response(status: int, message_id: int = 1, field: int = 0x8030) -> bytes:
    elements = element(0x0002, VERIFICATION) + element(0x0100, u16(field)) + element(0x0120, u16(message_id))
    elements += element(0x0800, u16(0x0101)) + element(0x0900, u16(status))
    return element(0x0000, struct.pack("<I", len(elements))) + elements


def data(fragment: bytes, control: int = 3, context: int = 1) -> bytes:
    body = struct.pack(">IBB", len(fragment) + 2, context, control) + fragment
    return struct.pack(">BxI", 4, len(body)) + body


async def next_pdu(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(6)
    return header + await reader.readexactly(int.from_bytes(header[2:], "big"))


def answering(
    *,
    accept_result: int = 0,
    accept_context: int = 1,
    echo: bytes = data(echo_response(0)),
    release: bytes = RELEASE_RP,
) -> Script:
    """Answer A-ASSOCIATE-RQ, C-ECHO-RQ and A-RELEASE-RQ in their turn, then close."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(acceptance(await next_pdu(reader), accept_result, accept_context))
        answers = {4: echo, 5: release}
        while (pdu := await next_pdu(reader))[0] in answers:
            writer.write(answers[pdu[0]])

    return script


def saying(answer: bytes) -> Script:
    """Answer the association request with these bytes."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await next_pdu(reader)
        writer.write(answer)

    return script


HEALTHY: Script = answering()
SICK: Mapping[str, Script] = {
    "rejected (1,1,3): permanent, calling AE title not recognized; register EQUIPOISE at the PACS or set "
    "health.calling_ae": saying(rejection(1, 1, 3)),
    "rejected (1,1,7): permanent, called AE title not recognized; the node does not answer to ANY-SCP, or not "
    "when EQUIPOISE calls; set health.called_ae": saying(rejection(1, 1, 7)),
    "rejected (1,1,1): permanent, no reason given; the node's log says why; it may be busy, or not know EQUIPOISE or "
    "ANY-SCP": saying(rejection(1, 1, 1)),
    "rejected (2,3,1): transient, temporary congestion; the node is busy, or its limit of associations is "
    "reached": saying(rejection(2, 3, 1)),
    "A-ASSOCIATE-RQ answered with A-ABORT by the service provider, not specified; the node's log says why": saying(
        abortion(2, 0)
    ),
    "associated, but Verification was not accepted: abstract syntax not supported; use check tcp for this "
    "node": answering(accept_result=3),
    "associated, but Verification was not accepted: the answer leaves the proposed context out; use check tcp for this "
    "node": answering(accept_context=3),
    "C-ECHO answered 0122, SOP class not supported; expected 0000, the node's log says why": answering(
        echo=data(echo_response(0x0122))
    ),
    "C-ECHO-RQ answered with A-ABORT by the service user; the node's log says why": answering(echo=abortion(0, 0)),
    "C-ECHO-RQ 1 answered with a C-ECHO response, message id 9": answering(echo=data(echo_response(0, message_id=9))),
    "broken answer to A-ASSOCIATE-RQ: A-ASSOCIATE-AC of 4294967295 bytes, at most 16384 accepted; is this the node's "
    "plain DICOM port?": saying(bytes([2, 0, 255, 255, 255, 255])),
    "broken answer to A-ASSOCIATE-RQ: P-DATA-TF must not come here; is this the node's plain DICOM port?": saying(
        data(echo_response(0))
    ),
    "broken answer to C-ECHO-RQ: presentation context 5 was not accepted; is this the node's plain DICOM "
    "port?": answering(echo=data(echo_response(0), context=5)),
}
