"""Strategies: one direction of an association as any peer may write it."""

import struct
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import strategies as st

from equipoise.proto.dicom.pdu import RELEASE_RP, RELEASE_RQ, Pdu, PduType

CONTEXTS = (1, 3, 255)
ACCEPTED = sum(1 << context for context in CONTEXTS)
MAX_LENGTH = 512
SOP_CLASSES = ("1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2")


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


def command_set(
    field: int, message_id: int, *, data_set: bool, status: int | None = None, sop_class: str = SOP_CLASSES[0]
) -> bytes:
    """Return a command set as PS3.7 annex E writes it, group length first."""
    answers = field & 0x8000 or field == 0x0FFF
    body = element(0x0002, sop_class.encode() + b"\0" * (len(sop_class) % 2))
    body += element(0x0100, struct.pack("<H", field))
    body += element(0x0120 if answers else 0x0110, struct.pack("<H", message_id))
    body += element(0x0800, struct.pack("<H", 1 if data_set else 0x0101))
    if status is not None:
        body += element(0x0900, struct.pack("<H", status))
    return element(0x0000, struct.pack("<I", len(body))) + body


def pdv(context: int, control: int, fragment: bytes) -> bytes:
    return struct.pack(">IBB", len(fragment) + 2, context, control) + fragment


def p_data(*pdvs: bytes) -> bytes:
    return Pdu(PduType.DATA_TF, b"".join(pdvs)).encode()


def p_data_of(context: int, command: bytes, data: bytes | None = None, fragment_bytes: int = 4096) -> bytes:
    """Return a message, each fragment in a P-DATA-TF of its own."""
    wire = b"".join(p_data(one) for one in _fragments(context, 1, command, [fragment_bytes] * 99))
    if data is not None:
        wire += b"".join(p_data(one) for one in _fragments(context, 0, data, [fragment_bytes] * len(data)))
    return wire


def _fragments(context: int, kind: int, value: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        if len(value) <= size:
            break
        pieces.append(value[:size])
        value = value[size:]
    pieces.append(value)
    return [pdv(context, kind | (2 if place == len(pieces) - 1 else 0), p) for place, p in enumerate(pieces)]


@dataclass(frozen=True, slots=True)
class Sent:
    """One message: what it means, and its fragments."""

    field: int
    message_id: int
    status: int | None
    sop_class: str
    has_data_set: bool
    pdvs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """What one side writes."""

    messages: tuple[Sent, ...]
    pdus: tuple[bytes, ...]
    control: PduType | None

    @property
    def wire(self) -> bytes:
        return b"".join(self.pdus)


_SIZES = st.lists(st.integers(0, 200), max_size=8)


@st.composite
def sent_messages(draw: st.DrawFn) -> Sent:
    field = draw(st.sampled_from([0x0001, 0x8001, 0x0020, 0x8020, 0x0030, 0x8030, 0x0FFF, 0x8100, 0x7ABC]))
    message_id = draw(st.integers(0, 0xFFFF))
    status = draw(st.sampled_from([0, 0xFF00, 0xFF01, 0xA700])) if field & 0x8000 else None
    data = draw(st.none() | st.binary(max_size=1500))
    context, sop_class = draw(st.sampled_from(CONTEXTS)), draw(st.sampled_from(SOP_CLASSES))
    command = command_set(field, message_id, data_set=data is not None, status=status, sop_class=sop_class)
    pdvs = _fragments(context, 1, command, draw(_SIZES))
    if data is not None:
        pdvs += _fragments(context, 0, data, draw(_SIZES) + [200] * (len(data) // 200 + 1))
    return Sent(field, message_id, status, sop_class, data is not None, tuple(pdvs))


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Draw messages whose fragments stand in PDUs of one or several, and a release or an abort at the end."""
    messages = draw(st.lists(sent_messages(), max_size=4))
    pdus: list[bytes] = []
    for message in messages:
        together: list[bytes] = []
        for one in message.pdvs:
            if together and (sum(map(len, together)) + len(one) > MAX_LENGTH or draw(st.booleans())):
                pdus.append(p_data(*together))
                together = []
            together.append(one)
        pdus.append(p_data(*together))
    control = draw(st.sampled_from([None, PduType.RELEASE_RQ, PduType.RELEASE_RP, PduType.ABORT]))
    if control is not None:
        endings = {PduType.RELEASE_RQ: RELEASE_RQ, PduType.RELEASE_RP: RELEASE_RP}
        pdus.append(endings.get(control, bytes.fromhex("07 00 00000004 00000206")))
    return Stream(tuple(messages), tuple(pdus), control)


def pieces_of(wire: bytes, cuts: list[int]) -> list[bytes]:
    """Cut `wire` at these places."""
    places = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    return [wire[start:end] for start, end in pairwise(places)]
