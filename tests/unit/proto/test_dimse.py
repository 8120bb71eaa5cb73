import pytest

from equipoise.proto.dicom.dimse import CommandSet, encode_echo_request, parse_command
from equipoise.proto.dicom.pdu import AbortReason, PduError

ECHO_RQ = bytes.fromhex(
    "0000 0000 04000000 38000000"  # (0000,0000) group length, 4 bytes: 56 follow
    "0000 0200 12000000 312e322e3834302e31303030382e312e3100"  # (0000,0002) affected SOP class, padded with NUL
    "0000 0001 02000000 3000"  # (0000,0100) command field 0x0030, C-ECHO-RQ
    "0000 1001 02000000 0100"  # (0000,0110) message ID 1
    "0000 0008 02000000 0101"  # (0000,0800) command data set type 0x0101: none
)
STORE_RSP = bytes.fromhex(
    "0000 0200 02000000 3100"  # (0000,0002) "1" for short
    "0000 0001 02000000 0180"  # (0000,0100) 0x8001, C-STORE-RSP
    "0000 2001 02000000 0700"  # (0000,0120) message ID being responded to: 7
    "0000 0008 02000000 0101"  # no data set
    "0000 0009 02000000 00a7"  # (0000,0900) status 0xA700, out of resources
)
CANCEL_RQ = bytes.fromhex(
    "0000 0001 02000000 ff0f"  # (0000,0100) 0x0FFF, C-CANCEL-RQ
    "0000 2001 02000000 0300"  # it names the request by (0000,0120), as a response does: PS3.7 table 9.3-13
    "0000 0008 02000000 0101"
)
N_ACTION_RQ = bytes.fromhex(
    "0000 0300 04000000 312e3200"  # (0000,0003) requested SOP class
    "0000 0001 02000000 3001"  # 0x0130, N-ACTION-RQ
    "0000 1001 02000000 0500"
    "0000 0008 02000000 0000"  # any other value than 0x0101: a data set follows
)


def test_an_echo_request_is_read_and_written() -> None:
    assert encode_echo_request(1) == ECHO_RQ
    command = parse_command(ECHO_RQ)
    assert command == CommandSet(0x0030, "1.2.840.10008.1.1", 1, has_data_set=False, status=None)
    assert command.command == "C-ECHO"
    assert not command.is_response


def test_a_response_is_read() -> None:
    command = parse_command(STORE_RSP)
    assert (command.command, command.is_response, command.message_id, command.status) == ("C-STORE", True, 7, 0xA700)
    assert not command.is_pending


def test_a_cancel_names_the_request_that_it_ends() -> None:
    command = parse_command(CANCEL_RQ)
    assert (command.command, command.message_id, command.is_response) == ("C-CANCEL", 3, False)


def test_an_n_request_has_a_requested_sop_class_and_may_have_a_data_set() -> None:
    command = parse_command(N_ACTION_RQ)
    assert (command.command, command.sop_class, command.has_data_set) == ("N-ACTION", "1.2", True)


@pytest.mark.parametrize(("status", "pending"), [(0xFF00, True), (0xFF01, True), (0x0000, False), (0xFE00, False)])
def test_pending_means_that_more_responses_follow(status: int, pending: bool) -> None:
    assert CommandSet(0x8020, "", 1, has_data_set=False, status=status).is_pending is pending


def test_a_command_field_of_nobody_has_its_number_as_name() -> None:
    assert CommandSet(0x8222, "", 1, has_data_set=False, status=0).command == "0x0222"


def test_a_sop_class_is_shown_without_what_a_terminal_could_obey() -> None:
    assert parse_command(STORE_RSP[:8] + b"1\x1b" + STORE_RSP[10:]).sop_class == "1"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "without (0000,0100)"),
        (ECHO_RQ[:-10], "without (0000,0800)"),
        (ECHO_RQ[:48] + ECHO_RQ[58:], "without a message id"),
        (STORE_RSP[:-10], "without (0000,0900)"),
        (ECHO_RQ[:-1], "overrun"),
        (ECHO_RQ + b"\0\0\0", "3 bytes left over"),
        (b"\x08\x00" + ECHO_RQ[2:], "(0008,0000): only group 0000"),
        (ECHO_RQ[:4] + b"\xff\xff\xff\xff" + ECHO_RQ[8:], "4294967295 bytes overrun"),
        (STORE_RSP[:14] + b"\x04\0\0\0" + b"\x01\x80\0\0" + STORE_RSP[20:], "(0000,0100) of 4 bytes"),
    ],
)
def test_a_malformed_command_set_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(PduError) as caught:
        parse_command(data)
    assert said in str(caught.value)
    assert caught.value.reason is AbortReason.INVALID_VALUE
