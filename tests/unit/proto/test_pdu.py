import pytest

from equipoise.proto.dicom.pdu import (
    RELEASE_RP,
    RELEASE_RQ,
    AbortReason,
    AbortSource,
    Pdu,
    PduError,
    PduReader,
    PduType,
    Reject,
    describe_abort,
    encode_abort,
)
from tests.unit.proto.captures import ECHOSCU_RQ

REJECT = bytes.fromhex(
    "03 00 00000004"  # A-ASSOCIATE-RJ, 4 bytes follow (PS3.8 table 9-21)
    "00"  # reserved
    "02"  # rejected-transient
    "03"  # by the provider, presentation related
    "01"  # temporary congestion
)
ABORT = bytes.fromhex(
    "07 00 00000004"  # A-ABORT, 4 bytes follow (PS3.8 table 9-26)
    "00 00"  # reserved
    "02"  # by the provider
    "06"  # invalid PDU parameter value
)


def read_one(wire: bytes, max_body_bytes: int = 1 << 17) -> Pdu:
    reader = PduReader(max_body_bytes)
    reader.feed(wire)
    pdu = reader.next_pdu()
    assert pdu is not None
    return pdu


def test_a_reject_from_the_standard_is_read_and_written() -> None:
    reject = read_one(REJECT).as_reject()
    assert reject == Reject(2, 3, 1)
    assert reject.transient
    assert reject.encode() == REJECT
    assert str(reject) == "rejected (2,3,1): transient, temporary congestion"


def test_a_permanent_reject_is_not_transient() -> None:
    assert not Reject(1, 1, 7).transient
    assert "called AE title not recognized" in str(Reject(1, 1, 7))


@pytest.mark.parametrize("body", [b"", bytes(3), bytes(5)])
def test_a_reject_of_another_length_is_refused(body: bytes) -> None:
    with pytest.raises(PduError, match="it has 4") as caught:
        Pdu(PduType.ASSOCIATE_RJ, body).as_reject()
    assert caught.value.reason is AbortReason.INVALID_VALUE


def test_an_abort_from_the_standard_is_written_and_said_in_words() -> None:
    assert encode_abort(AbortSource.PROVIDER, AbortReason.INVALID_VALUE) == ABORT
    assert describe_abort(read_one(ABORT).body) == "A-ABORT by the service provider, invalid value"
    assert describe_abort(bytes(4)) == "A-ABORT by the service user"
    assert describe_abort(bytes([0, 0, 2, 99])) == "A-ABORT by the service provider, reason 99"
    assert describe_abort(b"") == "A-ABORT of 0 bytes"


def test_release_pdus_are_those_of_the_standard() -> None:
    assert bytes.fromhex("05 00 00000004 00000000") == RELEASE_RQ
    assert bytes.fromhex("06 00 00000004 00000000") == RELEASE_RP


def test_a_captured_request_is_cut_from_what_follows_it() -> None:
    reader = PduReader(1 << 17)
    reader.feed(ECHOSCU_RQ + b"\x04\x00")
    pdu = reader.next_pdu()
    assert pdu == Pdu(PduType.ASSOCIATE_RQ, ECHOSCU_RQ[6:])
    assert reader.next_type() is PduType.DATA_TF
    assert reader.next_pdu() is None
    assert reader.take_rest() == b"\x04\x00"
    assert len(reader) == 0


@pytest.mark.parametrize("code", [0, 8, 0x47, 0xFF])  # 0x47: an HTTP GET that came to the wrong port
def test_a_wrong_type_is_refused_with_its_first_byte(code: int) -> None:
    reader = PduReader(64)
    reader.feed(bytes([code]))
    with pytest.raises(PduError, match=f"0x{code:02X}") as caught:
        reader.next_type()
    assert caught.value.reason is AbortReason.UNRECOGNIZED_PDU
    assert str(caught.value).endswith("so this is not DICOM") is (code != 0x47)


def test_four_gib_are_refused_before_a_byte_of_the_body_is_kept() -> None:
    reader = PduReader(1 << 17)
    reader.feed(bytes.fromhex("01 00 ffffffff"))
    with pytest.raises(PduError, match="A-ASSOCIATE-RQ of 4294967295 bytes, at most 131072") as caught:
        reader.next_pdu()
    assert caught.value.reason is AbortReason.INVALID_VALUE


def test_the_bound_itself_is_accepted() -> None:
    assert len(read_one(Pdu(PduType.ASSOCIATE_RQ, bytes(64)).encode(), 64).body) == 64
    with pytest.raises(PduError):
        read_one(Pdu(PduType.ASSOCIATE_RQ, bytes(65)).encode(), 64)
