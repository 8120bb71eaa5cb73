"""C-FIND requests, byte by byte: PS3.7 tables 9.3-3 and 9.3-6, PS3.5 section 7.1.3 and annex A.1."""

from equipoise.proto.dicom.dimse import C_CANCEL_RQ, parse_command
from equipoise.proto.dicom.find import (
    C_FIND_RQ,
    STUDY_ROOT_FIND,
    encode_cancel_request,
    encode_data_pdu,
    encode_find_request,
    study_identifier,
    worklist_identifier,
)


def test_a_request_reads_back() -> None:
    read = parse_command(encode_find_request(7, STUDY_ROOT_FIND))
    assert (read.field, read.message_id, read.sop_class, read.has_data_set) == (C_FIND_RQ, 7, STUDY_ROOT_FIND, True)
    cancel = parse_command(encode_cancel_request(7))
    assert (cancel.field, cancel.message_id, cancel.has_data_set) == (C_CANCEL_RQ, 7, False)


def test_a_cancel_byte_by_byte() -> None:
    assert encode_cancel_request(1) == b"".join(
        [
            b"\x00\x00\x00\x00\x04\x00\x00\x00\x1e\x00\x00\x00",  # (0000,0000) 30 bytes follow
            b"\x00\x00\x00\x01\x02\x00\x00\x00\xff\x0f",  # (0000,0100) C-CANCEL-RQ
            b"\x00\x00\x20\x01\x02\x00\x00\x00\x01\x00",  # (0000,0120) of message 1
            b"\x00\x00\x00\x08\x02\x00\x00\x00\x01\x01",  # (0000,0800) no data set
        ]
    )


def test_a_study_byte_by_byte() -> None:
    assert study_identifier("1.2.3") == b"".join(
        [
            b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY ",  # (0008,0052), padded with a space
            b"\x20\x00\x0d\x00\x06\x00\x00\x001.2.3\x00",  # (0020,000D), padded with NUL
        ]
    )


def test_a_worklist_byte_by_byte() -> None:
    assert worklist_identifier("A1", "CT1") == b"".join(
        [
            b"\x08\x00\x50\x00\x02\x00\x00\x00A1",  # (0008,0050)
            b"\x40\x00\x00\x01\x14\x00\x00\x00",  # (0040,0100), a sequence of 20 bytes
            b"\xfe\xff\x00\xe0\x0c\x00\x00\x00",  # with one item of 12
            b"\x40\x00\x01\x00\x04\x00\x00\x00CT1 ",  # (0040,0001)
        ]
    )


def test_a_data_set_travels_as_one_last_fragment() -> None:
    assert encode_data_pdu(1, b"abcd") == b"\x04\x00\x00\x00\x00\x0a" + b"\x00\x00\x00\x06\x01\x02" + b"abcd"
