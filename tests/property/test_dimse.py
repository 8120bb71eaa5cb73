from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from equipoise.proto.dicom.dimse import parse_command
from equipoise.proto.dicom.pdu import PduError
from tests.property.dicom_streams import command_set


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.booleans(), st.integers(0, 0xFFFF))
def test_what_is_written_reads_back(field: int, message_id: int, data_set: bool, status: int) -> None:
    answered = status if field & 0x8000 else None
    command = parse_command(command_set(field, message_id, data_set=data_set, status=answered))
    assert (command.field, command.message_id, command.has_data_set) == (field, message_id, data_set)
    assert command.status == answered
    assert command.is_response == bool(field & 0x8000)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_pdu_error(data: bytes) -> None:
    with suppress(PduError):
        parse_command(data)


@given(st.integers(0, 80), st.binary(max_size=12))
def test_a_damaged_command_set_raises_nothing_but_pdu_error(place: int, damage: bytes) -> None:
    good = command_set(0x8001, 1, data_set=False, status=0)
    with suppress(PduError):
        parse_command(good[:place] + damage + good[place + len(damage) :])
