"""What a balancer reads of an HL7 version 2 message, by position, and the one answer that it may give itself.

Leaves out everything else: no segment is checked, no character decoded, a batch is one opaque thing.  Any separators,
and CR, LF or CRLF between segments.  Whom it is about: `hl7_patients.py`, offered here too.
Source: HL7 version 2.5.1, sections 2.9.2 and 2.9.3 (acknowledgements, original and enhanced mode), 2.10.3 (batches),
2.15.8 (MSA), 2.15.9 (MSH); tables 0008 (codes), 0155 (when an acknowledgement is wanted).
"""

import string

import msgspec

from equipoise.proto.hl7_encoding import (
    BATCH_STARTS,
    HEAD_BYTES,
    NotHl7Error,
    Separators,
    begin,
    first_line,
    line_end,
    separators,
)
from equipoise.proto.hl7_patients import Patients, read_patients

__all__ = [
    "Acknowledgement",
    "Header",
    "NotHl7Error",
    "Patients",
    "read_acknowledgement",
    "read_header",
    "read_patients",
    "reject",
]

_CODES = {code.encode(): code for code in ("AA", "AE", "AR", "CA", "CE", "CR")}  # table 0008
_OTHER = "other"
_CAPITALS = string.ascii_uppercase.encode()
_NULL = b'""'  # section 2.5.3.3
_LAST_FIELD = 16
_FEWEST_FIELDS = 10  # up to MSH-10: they are required, though it may be empty
_LAST_OF_REJECT = 18
_MOST_ID_BYTES = 20  # MSH-10
_MOST_TEXT_BYTES = 80  # MSA-3
_ID_BYTES = string.ascii_letters.encode() + string.digits.encode() + b"-._"  # kept of their control ID in ours
_DROPPED_OF_ID = bytes(set(range(256)) - set(_ID_BYTES))


# Structs, not dataclasses: each is made for every message, four times as fast.
class Header(msgspec.Struct, frozen=True, gc=False):
    """What a message says of itself.

    Attributes:
        kind: MSH-9 as `ADT^A01`, `ACK`, `ADT^other`, `other` or `batch`; nothing else a sender writes gets in, so that
            it is fit for metrics and logs.
        control_id: MSH-10, without spaces around it; empty where there is none.
        sending: MSH-3 and MSH-4; of a batch FHS-3 and FHS-4, or BHS-3 and BHS-4.
        accept: MSH-15, when an accept acknowledgement is wanted.
        application: MSH-16, when an application acknowledgement is wanted.
        is_batch: Begins with FHS or BHS.
    """

    kind: str
    control_id: bytes
    sending: tuple[bytes, bytes]
    accept: bytes
    application: bytes
    is_batch: bool

    @property
    def original(self) -> bool:
        """Whether original mode holds: one acknowledgement, the application's.  Section 2.9.2."""
        return not self.accept and not self.application


class Acknowledgement(msgspec.Struct, frozen=True, gc=False):
    """MSA-1, one of table 0008 or `other`, and MSA-2 without spaces around it."""

    code: str
    control_id: bytes


def read_header(content: bytes) -> Header:
    """Return what stands in the first line; the first 64 KiB of the message suffice.

    Raises: NotHl7Error.
    """
    content = begin(content)
    fields = first_line(content, _LAST_FIELD)
    known = len(fields)
    sending = (fields[2] if known > 2 else b"", fields[3] if known > 3 else b"")
    if content.startswith(BATCH_STARTS):
        return Header("batch", b"", sending, b"", b"", True)
    if known < _FEWEST_FIELDS:
        raise NotHl7Error("not an HL7 message: MSH is cut short, it ends before its control ID (MSH-10)")
    return Header(
        _kind(fields[8], fields[1][:1]),
        fields[9].strip(b" "),
        sending,
        _condition(fields[14]) if known > 14 else b"",
        _condition(fields[15]) if known > 15 else b"",
        False,
    )


def _condition(field: bytes) -> bytes:
    return b"" if field == _NULL else field.strip(b" ")


def _kind(field: bytes, component: bytes) -> str:
    """Return message code and trigger event: those of tables 0076 and 0003, three characters each, and any like them.

    A longer or free form would let a number or a name through that stands in the wrong field.
    """
    parts = field.split(component, 2)
    code = parts[0]
    if not _is_code(code):
        return _OTHER
    if len(parts) == 1 or not parts[1]:
        return code.decode()
    is_event = _is_code(parts[1]) and parts[1][2:].isdigit()  # A01, Q22, ZV1
    return f"{code.decode()}^{parts[1].decode() if is_event else _OTHER}"


def _is_code(part: bytes) -> bool:
    return len(part) == 3 and part.isalnum() and part.isupper() and part[:1] in _CAPITALS


def read_acknowledgement(content: bytes) -> Acknowledgement | None:
    """Return what the first MSA says; None where there is none within 64 KiB, or no HL7 at all."""
    try:
        content = begin(content)
    except NotHl7Error:
        return None
    separator = content[3:4]
    at = content.find(b"\rMSA" + separator, 0, HEAD_BYTES)
    if at < 0:
        at = content.find(b"\nMSA" + separator, 0, HEAD_BYTES)
    if at < 0 or not separator:
        return None
    end = line_end(content, at + 1)
    fields = content[at + 5 : at + HEAD_BYTES if end < 0 else end].split(separator, 2)
    code = _CODES.get(fields[0]) or _CODES.get(fields[0].strip(b" "), _OTHER)
    return Acknowledgement(code, fields[1].strip(b" ") if len(fields) > 1 else b"")


def reject(content: bytes, reason: str, at: str) -> bytes:
    """Return the answer that this message was not taken: AR, or CR in enhanced mode.

    Args:
        content: The message, or its first 64 KiB.
        reason: For a person at the sender; loses what is no ASCII or a separator, and what is beyond 80 characters.
        at: The time as HL7 writes it, `20310304050607`.

    Raises: NotHl7Error.
    """
    header, content = read_header(content), begin(content)
    by = separators(content)
    theirs = [*first_line(content, _LAST_OF_REJECT), *[b""] * _LAST_OF_REJECT][:_LAST_OF_REJECT]
    if header.is_batch:  # the same place means other things from FHS-7 on
        theirs[6:] = [b""] * (_LAST_OF_REJECT - 6)
    _, encoding, application, facility, their_application, their_facility, _, _, kind, control_id, *_ = theirs
    identity = (their_application, their_facility, application, facility, at.encode("ascii", "replace"), b"")
    own_id = b"EQP" + control_id.translate(None, _DROPPED_OF_ID)[3 - _MOST_ID_BYTES :]
    version = (theirs[10] or b"P", theirs[11] or b"2.5.1")
    rest = (b"", b"", b"", b"", b"", theirs[17]) if theirs[17] else ()  # MSH-18: what we give back is in its characters
    msh = by.field.join((b"MSH", encoding, *identity, _answer_type(kind, by), own_id, *version, *rest))
    msa = by.field.join((b"MSA", b"AR" if header.original else b"CR", control_id, _text(reason, by)))
    return msh + b"\r" + msa + b"\r"


def _answer_type(kind: bytes, by: Separators) -> bytes:
    """Return MSH-9 of an answer: `ACK^event^ACK`, or `ACK` where the message names no event.  Section 2.9.2.2."""
    parts = kind.split(by.component, 2)
    return by.component.join((b"ACK", parts[1], b"ACK")) if len(parts) > 1 and parts[1] else b"ACK"


def _text(reason: str, by: Separators) -> bytes:
    """Return the reason in printable ASCII, with a space in place of each separator."""
    special = b"".join(by)
    ascii_bytes = reason.encode("ascii", "replace")[:_MOST_TEXT_BYTES]
    return bytes(byte if 0x20 <= byte < 0x7F and byte not in special else 0x20 for byte in ascii_bytes).strip()
