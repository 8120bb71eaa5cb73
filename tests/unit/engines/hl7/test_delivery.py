"""A message at its node: each way in which a receiver can fail, and what its sender hears."""

import pytest

from equipoise.engines.gateway.hl7.stream import Sent
from equipoise.engines.gateway.passive import FailureKind
from equipoise.plan.states import StateName
from tests.unit.engines.hl7.scene import (
    FRAMING,
    FakeLink,
    FakeSender,
    Site,
    Told,
    acknowledgement,
    batch,
    message,
)

DEDUPLICATE = {"receivers_deduplicate": True}
TRY_NEXT = {"try_next": True}
OUT: tuple[StateName, ...] = ("drain", "down", "disabled")


def answered(sender: FakeSender, code: str = "AA", control_id: str = "1") -> bool:
    """Say whether this is all that a sender has heard."""
    return sender.answers == [acknowledgement(control_id, code)] and sender.closed is None


def test_a_message_goes_and_its_answer_comes_back() -> None:
    site = Site()
    sender, link = site.asking()
    assert (link.node, link.sent) == ("a", [message()])
    link.acknowledges()
    assert answered(sender)
    assert sender.done == ["AA"]
    assert site.delivery.counting.shown(0, 0).by_type == {"ADT^A01": {"AA": 1}}
    site.settled()


def test_a_connection_is_kept_for_the_next_message() -> None:
    site = Site()
    _, link = site.asking()
    link.acknowledges()
    _, again = site.asking(message("2"))
    assert again is link
    assert link.sent == [message("1"), message("2")]


@pytest.mark.parametrize("code", ["AA", "AE", "AR", "CE", "CR", "CA"])
def test_every_code_passes_as_it_is(code: str) -> None:
    site = Site()
    sender, link = site.asking()
    link.acknowledges("1", code)
    assert answered(sender, code)
    assert sender.done == [code]
    site.settled()


# Not a byte has left


def test_a_kept_connection_that_is_dead_costs_a_fresh_one_to_the_same_node() -> None:
    site = Site()
    _, kept = site.asking()
    kept.acknowledges()
    kept.takes = Sent.NOTHING
    sender = site.sender()
    sender.says(message("2"))
    assert kept.is_closing
    assert site.last is not kept
    site.last.opens().acknowledges("2")
    assert site.last.node == "a"
    assert answered(sender, control_id="2")
    assert site.told == []


def test_a_fresh_connection_that_takes_nothing_costs_the_next_node() -> None:
    site = Site()
    sender = site.sender()
    sender.says(message())
    site.last.takes = Sent.NOTHING
    site.last.opens()
    assert [link.node for link in site.links] == ["a", "b"]
    site.last.opens().acknowledges()
    assert answered(sender)
    assert site.told == [Told("a", "refused", "next")]


def test_refused_is_the_next_nodes_turn() -> None:
    site = Site()
    sender = site.sender()
    sender.says(message())
    site.last.is_refused()
    site.last.opens().acknowledges()
    assert site.last.node == "b"
    assert answered(sender)
    assert site.blamed == [("a", FailureKind.REFUSED)]


def test_a_reason_of_this_machine_is_held_against_nobody() -> None:
    site = Site()
    site.sender().says(message())
    site.last.is_refused(ours=True)
    assert site.last.node == "b"
    assert site.blamed == []


def test_too_slow_to_connect_is_the_next_nodes_turn() -> None:
    site = Site()
    sender = site.sender()
    sender.says(message())
    slow = site.last
    site.passes(1.9)
    assert site.last is slow
    site.passes(0.2)
    assert slow.is_cancelled
    site.last.opens().acknowledges()
    assert (site.last.node, answered(sender)) == ("b", True)


def test_lost_before_it_was_written_is_the_next_nodes_turn() -> None:
    site = Site()
    site.sender().says(message())
    site.last.ends()
    assert site.last.node == "b"
    assert site.told == [Told("a", "refused", "next")]


def test_a_node_that_refuses_message_after_message_is_told_of_once_a_second() -> None:
    site = Site("a", hl7={"hold_s": 10})
    for _ in range(5):
        site.sender().says(message())
        site.last.is_refused()
    assert site.told == [Told("a", "refused", "next")]
    assert site.delivery.counting.receivers_closed["refused"] == 5


# Written, and nobody knows


def closes(link: FakeLink, site: Site) -> None:
    link.ends()


def says_anothers(link: FakeLink, site: Site) -> None:
    link.acknowledges("999")


def says_nonsense(link: FakeLink, site: Site) -> None:
    link.says(b"HTTP/1.1 400 Bad Request")


def says_too_much(link: FakeLink, site: Site) -> None:
    link.says_bytes(b"\x0b" + bytes(70_000))


def is_silent(link: FakeLink, site: Site) -> None:
    site.passes(30.1, step_s=1)


def dies_in_its_answer(link: FakeLink, site: Site) -> None:
    link.says_bytes(FRAMING.wrap(acknowledgement())[:20])
    link.ends()


FAILURES = {
    "lost": closes,
    "lost in the middle": dies_in_its_answer,
    "unmatched": says_anothers,
    "malformed": says_nonsense,
    "too_long": says_too_much,
    "timeout": is_silent,
}


@pytest.mark.parametrize("what", FAILURES)
def test_written_and_not_acknowledged_is_the_senders_to_decide(what: str) -> None:
    site = Site(hl7={"max_message_bytes": 65536})
    sender, link = site.asking()
    FAILURES[what](link, site)
    assert sender.closed == "unacknowledged"
    assert sender.answers == []
    assert "a " in sender.why
    assert "ADT^A01 1" in sender.why
    assert not link.is_open
    assert site.told == [Told("a", what.split(maxsplit=1)[0], "closed")]
    kind = FailureKind.SLOW if what == "timeout" else FailureKind.ABORTED
    assert site.blamed == [("a", kind)]
    assert [each.node for each in site.links] == ["a"], "it is not sent again"
    site.settled()


@pytest.mark.parametrize("what", FAILURES)
def test_written_and_not_acknowledged_is_sent_again_where_receivers_deduplicate(what: str) -> None:
    site = Site(hl7={"max_message_bytes": 65536} | DEDUPLICATE)
    sender, link = site.asking()
    FAILURES[what](link, site)
    assert sender.closed is None
    site.last.opens().acknowledges()
    assert (site.last.node, site.last.sent) == ("b", [message()])
    assert answered(sender)
    assert site.told == [Told("a", what.split(maxsplit=1)[0], "next")]
    assert site.delivery.counting.resent == 1
    site.settled()


def test_of_a_sender_that_has_left_nothing_is_sent_again() -> None:
    site = Site(hl7=DEDUPLICATE)
    sender, link = site.asking()
    sender.leaves()
    link.ends()
    assert len(site.links) == 1
    site.settled()


def test_a_connection_that_ends_with_nothing_under_way_is_no_event() -> None:
    site = Site()
    _, link = site.asking()
    link.acknowledges()
    link.ends()
    assert site.told == []
    assert not site.delivery.connections.links


def test_something_unasked_ends_a_connection_and_goes_to_nobody() -> None:
    site = Site()
    sender, link = site.asking()
    link.acknowledges()
    link.acknowledges()
    assert answered(sender)
    assert not link.is_open
    assert site.told == [Told("a", "unasked", None)]


def test_two_acknowledgements_in_one_segment_harm_nobody_else() -> None:
    site = Site("a", limit=1)
    first, link = site.asking()
    second = site.sender()
    second.says(message("2"))
    link.says(acknowledgement("1"), acknowledgement("1"))
    assert answered(first)
    assert second.closed is None


def test_a_connection_that_has_begun_to_say_something_unasked_is_used_no_more() -> None:
    site = Site("a")
    _, link = site.asking()
    link.says_bytes(FRAMING.wrap(acknowledgement("1")) + b"\x0bMSH|")
    second = site.sender()
    second.says(message("2"))
    site.last.says_bytes(b"rest\x1c\r")
    assert second.closed is None


# In the middle of writing


def writing(site: Site, content: bytes | None = None) -> tuple[FakeSender, FakeLink]:
    sender = site.sender()
    sender.says(message() if content is None else content)
    site.last.takes = Sent.SOME
    return sender, site.last.opens()


def test_a_message_that_leaves_slowly_is_waited_for() -> None:
    site = Site()
    sender, link = writing(site)
    for _ in range(5):
        link.unsent -= 1
        site.passes(59, step_s=1)
    link.leaves()
    site.passes(29, step_s=1)
    link.acknowledges()
    assert answered(sender)
    site.settled()


def test_a_receiver_that_takes_nothing_has_stalled() -> None:
    site = Site()
    sender, _ = writing(site)
    site.passes(60.1, step_s=1)
    assert sender.closed == "unacknowledged"
    assert site.told == [Told("a", "stalled", "closed")]
    site.settled()


@pytest.mark.parametrize("code", ["AR", "AE", "CR", "CE"])
def test_a_receiver_may_say_no_early(code: str) -> None:
    site = Site()
    sender, link = writing(site)
    link.acknowledges("1", code)
    assert answered(sender, code)
    assert not link.is_open, "half a message stands in it"
    assert site.told == [Told("a", "early", None)]
    site.settled()


def test_a_receiver_that_says_yes_early_is_not_believed() -> None:
    site = Site()
    sender, link = writing(site)
    link.acknowledges()
    assert (sender.answers, sender.closed) == ([], "unacknowledged")
    assert not link.is_open
    assert site.told == [Told("a", "early", "closed")]
    site.settled()


def test_what_leaves_after_its_sender_is_not_cut() -> None:
    site = Site()
    sender, link = writing(site)
    sender.leaves()
    assert link.is_open
    link.leaves()
    link.acknowledges()
    assert sender.answers == []
    assert link.is_open, "it is kept for the next message"
    site.settled()


def test_what_a_receiver_says_before_it_has_anything_costs_nothing() -> None:
    """Not a byte of the message has left."""
    site = Site()
    sender = site.sender()
    sender.says(message())
    link = site.last
    link.is_open = True
    link.says(b"220 welcome")
    site.last.opens().acknowledges()
    assert sender.closed is None


# A long answer


def test_a_long_answer_that_goes_on_is_waited_for() -> None:
    site = Site()
    sender, link = site.asking()
    answer = acknowledgement() + b"OBX|" + bytes(200_000)
    wrapped = FRAMING.wrap(answer)
    for start in range(0, len(wrapped), 40_000):
        site.passes(25, step_s=1)
        link.says_bytes(wrapped[start : start + 40_000])
    assert sender.answers == [answer]
    site.settled()


def test_a_long_answer_that_does_not_go_on_is_late() -> None:
    site = Site()
    sender, link = site.asking()
    link.says_bytes(b"\x0b" + acknowledgement()[:-1])
    site.passes(31, step_s=1)
    assert sender.closed == "unacknowledged"
    assert site.told == [Told("a", "timeout", "closed")]


def test_an_answer_without_its_last_cr_is_whole_after_a_silence() -> None:
    site = Site()
    sender, link = site.asking()
    link.says_bytes(FRAMING.wrap(acknowledgement())[:-1])
    assert sender.answers == []
    site.passes(0.4)
    assert answered(sender)
    site.settled()


# Rejected


def test_with_try_next_a_rejection_is_another_nodes_turn() -> None:
    site = Site(hl7=TRY_NEXT)
    sender, link = site.asking()
    link.acknowledges("1", "AR")
    assert sender.answers == []
    site.last.opens().acknowledges()
    assert site.last.node == "b"
    assert answered(sender)
    assert link.is_open, "who rejects is no worse a receiver"
    site.settled()


def test_where_all_reject_the_last_rejection_passes() -> None:
    site = Site(hl7=TRY_NEXT)
    sender, link = site.asking()
    link.acknowledges("1", "AR")
    site.last.opens().acknowledges("1", "CR")
    assert answered(sender, "CR")
    assert sender.done == ["CR"]
    site.settled()


@pytest.mark.parametrize("fault", ["refused", "full", "down"])
def test_where_nobody_else_can_be_asked_the_rejection_passes(fault: str) -> None:
    site = Site(limit=1, hl7=TRY_NEXT)
    sender, link = site.asking()
    if fault == "full":
        site.pool.take("b")
    elif fault == "down":
        site.is_now("b", "down")
    link.acknowledges("1", "AR")
    if fault == "refused":
        site.last.is_refused()
    elif fault == "full":
        assert sender.answers == [], "there may be room any moment"
        site.passes(5.1, step_s=1)
    assert answered(sender, "AR")
    assert (site.dispatch.in_flight, site.dispatch.waiting) == (0, 0)


def test_errors_in_a_message_are_nobody_elses_turn() -> None:
    site = Site(hl7=TRY_NEXT)
    sender, link = site.asking()
    link.acknowledges("1", "AE")
    assert answered(sender, "AE")
    assert len(site.links) == 1


def test_a_rejected_message_of_a_sender_that_has_left_goes_nowhere() -> None:
    site = Site(hl7=TRY_NEXT)
    sender, link = site.asking()
    sender.leaves()
    link.acknowledges("1", "AR")
    assert len(site.links) == 1
    assert sender.home is None, "or it counts at that node for ever"


def test_a_batch_has_the_first_answer_whatever_it_says() -> None:
    site = Site(hl7=TRY_NEXT)
    sender, link = site.asking(batch())
    link.acknowledges("other", "AR")
    assert sender.answers == [acknowledgement("other", "AR")]
    assert sender.done == ["AR"]
    assert len(site.links) == 1


# It is no longer needed


def test_a_connection_that_opens_for_nobody_is_kept() -> None:
    site = Site()
    sender = site.sender()
    sender.says(message())
    link = site.last
    sender.leaves()
    site.settled()
    link.opens()
    assert link.sent == []
    _, used = site.asking(message("2"))
    assert used is link


def test_unused_connections_are_closed_after_a_while() -> None:
    site = Site()
    _, link = site.asking()
    link.acknowledges()
    site.passes(599, step_s=10)
    assert link.is_open
    site.passes(20, step_s=10)
    assert not link.is_open


def test_without_idle_time_a_connection_takes_one_message() -> None:
    site = Site(hl7={"idle_timeout_s": 0})
    _, link = site.asking()
    link.acknowledges()
    assert not link.is_open


@pytest.mark.parametrize("state", OUT)
def test_a_node_that_is_taken_out_ends_what_it_has_and_gets_no_more(state: StateName) -> None:
    site = Site()
    first, busy = site.asking()
    second, free = site.asking(message("2"))
    free.acknowledges("2")
    site.is_now("a", state)
    assert (busy.is_open, free.is_open) == (True, False)
    second.says(message("3"))
    assert site.last.node == "b"
    busy.acknowledges()
    assert answered(first)
    assert not busy.is_open


def test_a_service_that_leaves_ends_what_it_has_and_keeps_nothing() -> None:
    site = Site()
    first, busy = site.asking()
    _, free = site.asking(message("2"))
    free.acknowledges("2")
    site.delivery.connections.leave()
    assert (busy.is_open, free.is_open) == (True, False)
    busy.acknowledges()
    assert answered(first)
    assert not busy.is_open
    site.settled()


def test_latency_is_from_the_message_to_its_answer() -> None:
    site = Site()
    _, link = site.asking()
    site.passes(2)
    link.acknowledges()
    assert site.delivery.counting.shown(0, 0).latency_sum_ms == pytest.approx(2000)
