import pytest

from equipoise.engines.gateway.tally import MAX_KINDS, MAX_UNANSWERED, Tally
from equipoise.proto.dicom.dimse import CommandSet
from equipoise.proto.dicom.pdu import AbortReason, PduError

CT = "1.2.840.10008.5.1.4.1.1.2"


def request(message_id: int, field: int = 0x0001, sop_class: str = CT) -> CommandSet:
    return CommandSet(field, sop_class, message_id, has_data_set=True, status=None)


def response(message_id: int, status: int = 0, field: int = 0x8001, sop_class: str = CT) -> CommandSet:
    return CommandSet(field, sop_class, message_id, has_data_set=False, status=status)


def test_response_times_have_a_mean_and_a_maximum() -> None:
    tally = Tally()
    for number, took_s in enumerate((0.1, 0.2, 0.6)):
        tally.saw(request(number), from_client=True, now_s=10 * number)
        tally.saw(response(number), from_client=False, now_s=10 * number + took_s)
    (row,) = tally.counts()
    assert (row.command, row.sop_class, row.status, row.count) == ("C-STORE", CT, "0000", 3)
    assert (row.response_ms_mean, row.response_ms_max) == (300.0, 600.0)
    assert tally.unanswered == 0


def test_only_the_final_response_answers() -> None:
    tally = Tally()
    tally.saw(request(1, 0x0020), from_client=True, now_s=0)
    for _ in range(5):
        tally.saw(response(1, 0xFF00, 0x8020), from_client=False, now_s=1)
    assert tally.unanswered == 1
    tally.saw(CommandSet(0x0FFF, "", 1, has_data_set=False, status=None), from_client=True, now_s=2)
    assert tally.unanswered == 1
    tally.saw(response(1, 0xFE00, 0x8020), from_client=False, now_s=3)
    assert tally.unanswered == 0
    assert [(row.command, row.status) for row in tally.counts()] == [("C-FIND", "FE00")]


def test_both_sides_may_use_the_same_message_id() -> None:
    tally = Tally()
    tally.saw(request(1, 0x0010), from_client=True, now_s=0)
    tally.saw(request(1), from_client=False, now_s=0)
    tally.saw(response(1), from_client=True, now_s=1)
    assert tally.unanswered == 1
    tally.saw(response(1, field=0x8010), from_client=False, now_s=2)
    assert sorted(row.command for row in tally.counts()) == ["C-GET", "C-STORE"]


def test_a_response_without_a_sop_class_counts_by_that_of_its_request() -> None:
    tally = Tally()
    tally.saw(request(1), from_client=True, now_s=0)
    tally.saw(response(1, sop_class=""), from_client=False, now_s=1)
    assert tally.counts()[0].sop_class == CT


def test_requests_without_a_response_are_counted_too() -> None:
    tally = Tally()
    tally.saw(request(1), from_client=True, now_s=0)
    tally.saw(request(2), from_client=True, now_s=0)
    (row,) = tally.counts()
    assert (row.command, row.status, row.count, row.response_ms_mean) == ("C-STORE", None, 2, None)


def test_a_response_to_nothing_does_no_harm() -> None:
    tally = Tally()
    tally.saw(response(1, 0x0110), from_client=False, now_s=0)
    assert [(row.status, row.count) for row in tally.counts()] == [("0110", 1)]


def test_requests_without_a_response_have_a_bound() -> None:
    tally = Tally()
    for number in range(MAX_UNANSWERED):
        tally.saw(request(number), from_client=True, now_s=0)
    with pytest.raises(PduError, match="operations window") as caught:
        tally.saw(request(999), from_client=True, now_s=0)
    assert caught.value.reason is AbortReason.UNEXPECTED_PDU


def test_one_side_cannot_use_up_the_bound_of_the_other() -> None:
    tally = Tally()
    for number in range(MAX_UNANSWERED):
        tally.saw(request(number), from_client=False, now_s=0)
    tally.saw(request(1), from_client=True, now_s=0)


def test_what_a_peer_makes_up_is_counted_as_other_past_a_bound() -> None:
    tally = Tally()
    for status in range(5 * MAX_KINDS):
        tally.saw(request(1), from_client=True, now_s=0)
        tally.saw(response(1, status), from_client=False, now_s=0)
    rows = tally.counts()
    assert len(rows) == MAX_KINDS + 1
    assert rows[-1].command == "other"
    assert sum(row.count for row in rows) == 5 * MAX_KINDS
