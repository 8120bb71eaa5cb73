"""DIMSE command sets: the few elements that a balancer counts by.  Leaves out data sets, which it never decodes.

Source: DICOM PS3.7 section 6.3.1 (always Implicit VR Little Endian), annex E.1 (the elements and command fields).
"""

import struct
from dataclasses import dataclass

from equipoise.proto.dicom.pdu import AbortReason, Pdu, PduError, PduType

MAX_COMMAND_BYTES = 64 * 1024
NO_DATA_SET = 0x0101
_ELEMENT = struct.Struct("<HHI")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_RESPONSE = 0x8000
C_ECHO_RQ, C_CANCEL_RQ = 0x0030, 0x0FFF
C_ECHO_RSP = C_ECHO_RQ | _RESPONSE

_COMMANDS = {
    0x0001: "C-STORE",
    0x0010: "C-GET",
    0x0020: "C-FIND",
    0x0021: "C-MOVE",
    0x0030: "C-ECHO",
    0x0100: "N-EVENT-REPORT",
    0x0110: "N-GET",
    0x0120: "N-SET",
    0x0130: "N-ACTION",
    0x0140: "N-CREATE",
    0x0150: "N-DELETE",
    0x0FFF: "C-CANCEL",
}


@dataclass(frozen=True, slots=True)
class CommandSet:
    """What is counted of one message.

    Attributes:
        field: (0000,0100), with bit 15 set for a response.
        sop_class: (0000,0002), or (0000,0003) of an N- request; empty where neither is there.
        message_id: (0000,0110) of a request, (0000,0120) of a response or a C-CANCEL.
        has_data_set: Whether (0000,0800) announces one.
        status: (0000,0900) of a response.
    """

    field: int
    sop_class: str
    message_id: int
    has_data_set: bool
    status: int | None

    @property
    def is_response(self) -> bool:
        """Whether it answers a request."""
        return bool(self.field & _RESPONSE)

    @property
    def is_pending(self) -> bool:
        """Whether more responses to the same request follow: PS3.7 annex C.3."""
        return self.status is not None and self.status & 0xFFFE == 0xFF00

    @property
    def command(self) -> str:
        """The service's name, the same for request and response."""
        number = self.field & ~_RESPONSE
        return _COMMANDS.get(number, f"0x{number:04X}")


def parse_command(data: bytes | bytearray) -> CommandSet:
    """Read a whole command set.  Raises: PduError where it is malformed or lacks what every message has."""
    elements = _elements(data)
    field = _number(elements, 0x0100)
    data_set_type = _number(elements, 0x0800)
    if field is None or data_set_type is None:
        missing = "(0000,0100) Command Field" if field is None else "(0000,0800) Command Data Set Type"
        raise PduError(f"command set without {missing}", AbortReason.INVALID_VALUE)
    answers = field & _RESPONSE or field == C_CANCEL_RQ
    message_id = _number(elements, 0x0120 if answers else 0x0110)
    if message_id is None:
        raise PduError(f"command set 0x{field:04X} without a message id", AbortReason.INVALID_VALUE)
    status = _number(elements, 0x0900) if field & _RESPONSE else None
    if field & _RESPONSE and status is None:
        raise PduError(f"response 0x{field:04X} without (0000,0900) Status", AbortReason.INVALID_VALUE)
    sop_class = elements.get(0x0002) or elements.get(0x0003) or b""
    return CommandSet(
        field=field,
        sop_class=_uid(sop_class),
        message_id=message_id,
        has_data_set=data_set_type != NO_DATA_SET,
        status=status,
    )


def encode_echo_request(message_id: int) -> bytes:
    """Return the command set of a C-ECHO-RQ: PS3.7 table 9.3-12."""
    verification = b"1.2.840.10008.1.1\0"
    elements = [
        (0x0002, verification),
        (0x0100, _U16.pack(C_ECHO_RQ)),
        (0x0110, _U16.pack(message_id)),
        (0x0800, _U16.pack(NO_DATA_SET)),
    ]
    body = b"".join(_ELEMENT.pack(0, element, len(value)) + value for element, value in elements)
    return _ELEMENT.pack(0, 0, 4) + _U32.pack(len(body)) + body


def encode_command_pdu(context_id: int, command: bytes) -> bytes:
    """Return a P-DATA-TF with a whole command set as its only fragment; it must fit the receiver's maximum length."""
    fragment = bytes([context_id, 0x03]) + command  # PS3.8 annex E.2: of a command set, and its last
    return Pdu(PduType.DATA_TF, len(fragment).to_bytes(4, "big") + fragment).encode()


def _elements(data: bytes | bytearray) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at, size = 0, len(data)
    while at < size:
        if size - at < _ELEMENT.size:
            raise PduError(f"{size - at} bytes left over behind a command set", AbortReason.INVALID_VALUE)
        group, element, length = _ELEMENT.unpack_from(data, at)
        at += _ELEMENT.size
        if group != 0 or length > size - at:
            rule = "only group 0000 belongs there" if group else f"{length} bytes overrun it"
            raise PduError(f"command set element ({group:04X},{element:04X}): {rule}", AbortReason.INVALID_VALUE)
        found[element] = bytes(data[at : at + length])
        at += length
    return found


def _number(elements: dict[int, bytes], element: int) -> int | None:
    value = elements.get(element)
    if value is None:
        return None
    if len(value) != 2:
        raise PduError(
            f"command set element (0000,{element:04X}) of {len(value)} bytes, it has 2", AbortReason.INVALID_VALUE
        )
    return int(_U16.unpack(value)[0])


def _uid(value: bytes) -> str:
    """Return a UID's text; what is neither digit nor dot is left out, since it goes into events."""
    return "".join(chr(byte) for byte in value[:64] if byte == 0x2E or 0x30 <= byte <= 0x39)
