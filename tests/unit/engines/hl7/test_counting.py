"""What is counted of messages."""

from equipoise.engines.base import LATENCY_BOUNDS_MS
from equipoise.engines.gateway.hl7.counting import Counting


def test_messages_are_counted_by_type_and_answer() -> None:
    counting = Counting()
    for kind, answer in [("ADT^A01", "AA"), ("ADT^A01", "AA"), ("ADT^A01", "AE"), ("ORU^R01", "closed")]:
        counting.ended(kind, answer)
    shown = counting.shown(in_flight=1, held=2)
    assert shown.by_type == {"ADT^A01": {"AA": 2, "AE": 1}, "ORU^R01": {"closed": 1}}
    assert (shown.in_flight, shown.held) == (1, 2)


def test_types_that_somebody_makes_up_do_not_fill_memory() -> None:
    counting = Counting()
    for number in range(1000):
        counting.ended(f"Z{number // 26:02d}^{number:03d}", "AA")
    counting.ended("Z00^000", "AA")
    by_type = counting.shown(0, 0).by_type
    assert len(by_type) == 201
    assert by_type["other"] == {"AA": 800}
    assert by_type["Z00^000"] == {"AA": 2}


def test_latency_falls_between_its_bounds() -> None:
    counting = Counting()
    counting.took(LATENCY_BOUNDS_MS[0] / 1000)
    counting.took(LATENCY_BOUNDS_MS[-1] / 1000 + 1)
    shown = counting.shown(0, 0)
    assert shown.latency_ms[0] == shown.latency_ms[-1] == 1
    assert len(shown.latency_ms) == len(LATENCY_BOUNDS_MS) + 1
    assert shown.latency_sum_ms == round(LATENCY_BOUNDS_MS[0] + LATENCY_BOUNDS_MS[-1] + 1000, 3)


def test_what_was_shown_does_not_change_any_more() -> None:
    counting = Counting()
    counting.ended("ADT^A01", "AA")
    counting.receivers_closed["lost"] += 1
    shown = counting.shown(0, 0)
    counting.ended("ADT^A01", "AA")
    counting.receivers_closed["lost"] += 1
    assert (shown.by_type, shown.receivers_closed) == ({"ADT^A01": {"AA": 1}}, {"lost": 1})
