import struct
import tracemalloc

import pytest

from equipoise.proto.dicom.dimse import MAX_COMMAND_BYTES, CommandSet
from equipoise.proto.dicom.pdu import RELEASE_RP, RELEASE_RQ, AbortReason, Pdu, PduError, PduType
from equipoise.proto.dicom.walker import LENGTH_SLACK_BYTES, Control, Walker
from tests.property.dicom_streams import command_set, p_data, pdv
from tests.unit.proto.captures import ECHOSCU_RQ

INVALID, UNEXPECTED, UNRECOGNIZED = (
    AbortReason.INVALID_VALUE,
    AbortReason.UNEXPECTED_PDU,
    AbortReason.UNRECOGNIZED_PDU,
)
ACCEPTED = 1 << 1 | 1 << 3
STORE = command_set(0x0001, 7, data_set=True)
ECHO = command_set(0x0030, 1, data_set=False)
STORE_MESSAGE = bytes.fromhex(
    "04 00 0000004a"  # P-DATA-TF, 74 bytes follow
    "00000046 01 03"  # fragment of 70 bytes in context 1: of a command set (bit 0), the last (bit 1)
    "0000 0000 04000000 38000000"  # (0000,0000) group length 56
    "0000 0200 12000000 312e322e3834302e31303030382e312e3100"  # (0000,0002) 1.2.840.10008.1.1
    "0000 0001 02000000 0100"  # (0000,0100) C-STORE-RQ
    "0000 1001 02000000 0700"  # (0000,0110) message ID 7
    "0000 0008 02000000 0100"  # (0000,0800) a data set follows
    "04 00 00000010"  # P-DATA-TF, 16 bytes
    "00000004 01 00 abcd"  # fragment of 4 bytes: data, more follow
    "00000004 01 02 ef00"  # the last
)


def walker(max_length: int = 16384) -> Walker:
    return Walker(max_length, ACCEPTED)


def reason_of(wire: bytes, max_length: int = 16384) -> tuple[AbortReason, str]:
    one = walker(max_length)
    with pytest.raises(PduError) as caught:
        one.walk(memoryview(wire))
    return caught.value.reason, str(caught.value)


def test_a_message_in_two_pdus_is_followed_to_its_end() -> None:
    one = walker()
    notes = one.walk(memoryview(STORE_MESSAGE))
    assert notes == [CommandSet(0x0001, "1.2.840.10008.1.1", 7, has_data_set=True, status=None)]
    assert one.at_rest
    assert one.pdus == 2


def test_a_command_set_with_bytes_left_over_is_refused() -> None:
    assert reason_of(p_data(pdv(1, 3, ECHO + bytes(2))))[0] is INVALID


def test_between_command_and_data_set_the_message_is_open() -> None:
    one = walker()
    one.walk(memoryview(p_data(pdv(1, 3, STORE))))
    assert not one.in_pdu
    assert not one.at_rest
    one.walk(memoryview(p_data(pdv(1, 0, bytes(1000))) * 50))
    assert not one.at_rest
    one.walk(memoryview(p_data(pdv(1, 2, b""))))
    assert one.at_rest


def test_release_and_abort_are_noted_with_their_bodies() -> None:
    one = walker()
    assert one.walk(memoryview(RELEASE_RQ + RELEASE_RP)) == [
        Control(PduType.RELEASE_RQ, bytes(4)),
        Control(PduType.RELEASE_RP, bytes(4)),
    ]
    abort = Pdu(PduType.ABORT, bytes([0, 0, 2, 6])).encode()
    assert one.walk(memoryview(abort)) == [Control(PduType.ABORT, bytes([0, 0, 2, 6]))]


@pytest.mark.parametrize("over", [0, 1, LENGTH_SLACK_BYTES])
def test_a_few_bytes_over_the_agreed_length_do_no_harm(over: int) -> None:
    one = walker(max_length=1000)
    wire = p_data(pdv(1, 3, STORE)) + p_data(pdv(1, 0, bytes(994 + over))) * 2 + p_data(pdv(1, 2, b""))
    one.walk(memoryview(wire))
    assert one.at_rest


@pytest.mark.parametrize("length", [1001 + LENGTH_SLACK_BYTES, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_longer_pdu_is_refused_by_its_header_on_both_paths(length: int) -> None:
    begun = p_data(pdv(1, 3, STORE))
    reason, said = reason_of(begun + struct.pack(">BxI", 4, length), max_length=1000)
    assert reason is INVALID
    assert f"P-DATA-TF of {length} bytes, 1000 were agreed" in said
    hot = p_data(pdv(1, 0, bytes(995 + LENGTH_SLACK_BYTES)))
    assert reason_of(begun + hot, max_length=1000)[0] is INVALID


@pytest.mark.parametrize("code", [0x00, 0x08, 0xFF])
def test_an_unknown_type_is_answered_with_its_first_byte(code: int) -> None:
    assert reason_of(bytes([code]))[0] is UNRECOGNIZED
    assert reason_of(p_data(pdv(1, 3, STORE)) + bytes([code]))[0] is UNRECOGNIZED


@pytest.mark.parametrize("kind", [PduType.ASSOCIATE_RQ, PduType.ASSOCIATE_AC, PduType.ASSOCIATE_RJ])
def test_an_associate_pdu_within_an_association_is_unexpected(kind: PduType) -> None:
    assert reason_of(bytes([kind]) + ECHOSCU_RQ[1:]) == (UNEXPECTED, f"{kind.label} within an association")


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (struct.pack(">BxI", 4, 0), INVALID),
        (struct.pack(">BxI", 4, 5), INVALID),
        (struct.pack(">BxI", 5, 0), INVALID),
        (struct.pack(">BxI", 5, 5), INVALID),
        (struct.pack(">BxI", 7, 0xFFFFFFFF), INVALID),
        (p_data(struct.pack(">IBB", 1, 1, 3)), INVALID),
        (p_data(struct.pack(">IBB", 0, 1, 3)), INVALID),
        (p_data(struct.pack(">IBB", 3, 1, 3)), INVALID),
        (p_data(struct.pack(">IBB", 0xFFFFFFFF, 1, 3)), INVALID),
        (p_data(pdv(1, 1, ECHO), b"\0\0\0\0\0"), INVALID),
        (p_data(pdv(2, 3, ECHO)), INVALID),
        (p_data(pdv(5, 3, ECHO)), INVALID),
        (p_data(pdv(0, 3, ECHO)), INVALID),
        (p_data(pdv(1, 3, b"")), INVALID),
        (p_data(pdv(1, 2, b"data")), UNEXPECTED),
        (p_data(pdv(1, 3, ECHO), pdv(1, 2, b"data")), UNEXPECTED),
        (p_data(pdv(1, 3, STORE), pdv(1, 3, ECHO)), UNEXPECTED),
        (p_data(pdv(1, 3, STORE)) + p_data(pdv(1, 0, bytes(99))) + p_data(pdv(1, 3, ECHO)), UNEXPECTED),
        (p_data(pdv(1, 3, STORE)) + p_data(pdv(3, 2, b"data")), UNEXPECTED),
        (p_data(pdv(1, 1, ECHO[:20])) + p_data(pdv(3, 3, ECHO)), UNEXPECTED),
        (p_data(pdv(1, 1, ECHO[:20])) + p_data(pdv(1, 2, ECHO)), UNEXPECTED),
    ],
)
def test_what_breaks_the_protocol_is_refused_with_its_reason(wire: bytes, reason: AbortReason) -> None:
    found, said = reason_of(wire)
    assert found is reason
    assert said


def test_a_command_set_has_a_bound_however_it_is_cut() -> None:
    piece = p_data(pdv(1, 1, bytes(8000)))
    reason, said = reason_of(piece * 9)
    assert (reason, said) == (INVALID, f"command set of more than {MAX_COMMAND_BYTES} bytes")


def test_a_command_set_without_end_costs_no_memory() -> None:
    one, empty = walker(), memoryview(p_data(pdv(1, 1, b"")) * 1000)
    tracemalloc.start()
    for _ in range(20):
        assert not one.walk(empty)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 16


def test_nothing_of_a_data_set_is_kept() -> None:
    one = walker(1 << 20)
    one.walk(memoryview(p_data(pdv(1, 3, STORE))))
    whole = p_data(pdv(1, 0, bytes((1 << 20) - 6)))
    head, rest = memoryview(whole)[:100_000], memoryview(whole)[100_000:]
    tracemalloc.start()
    for _ in range(10):
        one.walk(head)
        one.walk(rest)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 14
