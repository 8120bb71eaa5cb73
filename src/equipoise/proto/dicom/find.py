"""C-FIND requests of our own, as a health check sends them: command sets, and the identifiers behind them.

Leaves out reading identifiers: what a node found is of no interest, and never decoded.
Source: PS3.7 sections 9.3.2.1 and 9.3.2.3 (C-FIND-RQ, C-CANCEL-FIND-RQ), annex E.1; PS3.5 section 7.1.3 (Implicit VR
Little Endian), 7.5 (sequences), 6.2 (padding); PS3.4 annex C.6.2 (study root) and K.6.1 (worklist).
"""

import struct
from collections.abc import Iterable

from equipoise.proto.dicom.dimse import C_CANCEL_RQ, NO_DATA_SET
from equipoise.proto.dicom.pdu import Pdu, PduType

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
WORKLIST_FIND = "1.2.840.10008.5.1.4.31"
C_FIND_RQ, C_FIND_RSP = 0x0020, 0x8020

_ELEMENT = struct.Struct("<HHI")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_ITEM = 0xFFFE, 0xE000
_MEDIUM_PRIORITY = 0x0000
_A_DATA_SET = 0x0001  # anything but NO_DATA_SET
_LAST_DATA = 0x02  # PS3.8 annex E.2: of a data set, and its last

Element = tuple[int, int, bytes]


def encode_find_request(message_id: int, sop_class: str) -> bytes:
    """Return the command set of a C-FIND-RQ, which an identifier follows."""
    return _command(
        (0x0002, _even(sop_class.encode(), b"\0")),
        (0x0100, _U16.pack(C_FIND_RQ)),
        (0x0110, _U16.pack(message_id)),
        (0x0700, _U16.pack(_MEDIUM_PRIORITY)),
        (0x0800, _U16.pack(_A_DATA_SET)),
    )


def encode_cancel_request(message_id: int) -> bytes:
    """Return the command set of a C-CANCEL-RQ for the request of that number."""
    return _command((0x0100, _U16.pack(C_CANCEL_RQ)), (0x0120, _U16.pack(message_id)), (0x0800, _U16.pack(NO_DATA_SET)))


def study_identifier(study_uid: str) -> bytes:
    """Return the identifier that asks for one study: level and unique key."""
    return _encode([(0x0008, 0x0052, _text("STUDY")), (0x0020, 0x000D, _even(study_uid.encode(), b"\0"))])


def worklist_identifier(accession: str, station_ae: str) -> bytes:
    """Return the identifier that asks for the steps of one order at one station."""
    step = _encode([(0x0040, 0x0001, _text(station_ae))])
    sequence = _ELEMENT.pack(*_ITEM, len(step)) + step
    return _encode([(0x0008, 0x0050, _text(accession)), (0x0040, 0x0100, sequence)])


def encode_data_pdu(context_id: int, data_set: bytes) -> bytes:
    """Return a P-DATA-TF with a whole data set as its only fragment; it must fit the receiver's maximum length."""
    fragment = bytes([context_id, _LAST_DATA]) + data_set
    return Pdu(PduType.DATA_TF, len(fragment).to_bytes(4, "big") + fragment).encode()


def _command(*elements: tuple[int, bytes]) -> bytes:
    body = _encode((0x0000, number, value) for number, value in elements)
    return _encode([(0x0000, 0x0000, _U32.pack(len(body)))]) + body


def _encode(elements: Iterable[Element]) -> bytes:
    return b"".join(_ELEMENT.pack(group, number, len(value)) + value for group, number, value in elements)


def _text(value: str) -> bytes:
    return _even(value.encode("ascii"), b" ")


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding * (len(value) % 2)
