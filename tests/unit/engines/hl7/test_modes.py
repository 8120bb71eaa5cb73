"""Enhanced mode and MLLP release 2: answers that come late, twice, or not at all."""

from typing import Any

import pytest

from equipoise.engines.gateway.hl7.exchange import Exchange
from tests.unit.engines.hl7.scene import (
    ALWAYS,
    COMMIT,
    LATER,
    NEVER,
    FakeLink,
    FakeSender,
    Site,
    Told,
    acknowledgement,
    batch,
    frame,
    message,
)

ACK, NAK = b"\x06", b"\x15"


def release_2(**settings: Any) -> Site:
    return Site(hl7={"mllp_release": 2} | settings)


def late(control_id: str = "1", own_id: str = "R9") -> bytes:
    """Return an application acknowledgement that comes after the commit."""
    return acknowledgement(control_id, "AA", own_id)


# Not waited for


def test_what_need_not_be_answered_is_over_when_it_is_written() -> None:
    site = Site()
    sender, link = site.asking(message("1", NEVER))
    assert (sender.done, sender.answers) == (["none"], [])
    assert link.sent == [message("1", NEVER)]
    sender.says(message("2", NEVER))
    assert link.sent[1:] == [message("2", NEVER)]
    site.settled()


def test_an_error_that_comes_for_it_later_passes() -> None:
    site = Site()
    sender, link = site.asking(message("1", ("ER", "NE")))
    sender.says(message("2", ("ER", "NE")))
    link.acknowledges("1", "CE")
    assert sender.answers == [acknowledgement("1", "CE")]
    assert link.is_open


def test_an_answer_to_what_is_never_answered_goes_to_nobody() -> None:
    site = Site()
    sender, link = site.asking(message("1", NEVER))
    link.acknowledges()
    assert sender.answers == []
    assert site.told == [Told("a", "unasked", None)]


def hurried(site: Site, exchange: Exchange) -> None:
    site.delivery.hurry(exchange)


def test_an_application_acknowledgement_alone_is_waited_for() -> None:
    site = Site()
    sender, link = site.asking(message("1", LATER))
    assert sender.done == []
    link.acknowledges()
    assert (sender.answers, sender.done) == ([acknowledgement()], ["AA"])
    site.settled()


def test_until_the_next_message_comes_and_it_still_passes_then() -> None:
    site = Site()
    sender = site.sender()
    exchange = sender.says(message("1", LATER))
    hurried(site, exchange)
    assert sender.done == [], "it is not even written"
    link = site.last.opens()
    hurried(site, exchange)
    assert sender.done == ["none"]
    sender.says(message("2"))
    link.acknowledges("1")
    link.acknowledges("2")
    assert sender.answers == [acknowledgement("1"), acknowledgement("2")]
    assert sender.done == ["none", "AA"]
    site.settled()


def test_until_it_has_taken_too_long() -> None:
    site = Site()
    sender, link = site.asking(message("1", LATER))
    site.passes(30.1, step_s=1)
    assert (sender.done, sender.closed) == (["none"], None)
    assert link.is_open
    assert site.told == []
    site.settled()


def test_a_commit_is_never_hurried() -> None:
    site = Site()
    sender = site.sender()
    exchange = sender.says(message("1", ALWAYS))
    site.last.opens()
    hurried(site, exchange)
    assert sender.done == []


def test_a_second_application_acknowledgement_is_unasked() -> None:
    site = Site()
    sender, link = site.asking(message("1", LATER))
    link.acknowledges()
    link.acknowledges()
    assert sender.answers == [acknowledgement()]


# Answered later


def committed(site: Site, content: bytes | None = None) -> tuple[FakeSender, FakeLink]:
    """Return a sender that has its commit acknowledgement; the application's may follow."""
    sender, link = site.asking(message("1", ALWAYS) if content is None else content)
    link.acknowledges("1", "CA")
    return sender, link


def test_a_later_acknowledgement_finds_its_sender() -> None:
    site = Site()
    first, link = committed(site)
    assert first.done == ["CA"]
    second, same = site.asking(message("2", ALWAYS))
    assert same is link
    link.says(late("1"))
    assert first.answers == [acknowledgement("1", "CA"), late("1")]
    assert second.answers == []
    link.acknowledges("2", "CA")
    assert second.answers == [acknowledgement("2", "CA")]
    assert link.is_open
    site.settled()


def test_and_its_senders_acknowledgement_finds_the_way_back() -> None:
    site = Site()
    sender, link = committed(site)
    link.says(late(own_id="R9"))
    sender.owes.pop(b"R9")(frame(acknowledgement("R9", "CA")))
    assert link.aside == [acknowledgement("R9", "CA")]


def test_only_where_one_was_asked_for() -> None:
    site = Site()
    sender, link = committed(site, message("1", COMMIT))
    link.says(late())
    assert sender.answers == [acknowledgement("1", "CA")]
    assert site.told == [Told("a", "unasked", None)]


def test_it_comes_once() -> None:
    site = Site()
    sender, link = committed(site)
    link.says(late())
    link.says(late())
    assert sender.answers == [acknowledgement("1", "CA"), late()]
    assert site.told == [Told("a", "unasked", None)]


def test_a_sender_that_has_left_is_told_nothing() -> None:
    site = Site()
    sender, link = committed(site)
    sender.leaves()
    link.says(late())
    assert link.is_open
    assert len(sender.answers) == 1


def test_a_connection_expects_only_so_many() -> None:
    site = Site()
    sender, link = site.asking(message("0", ALWAYS))
    link.acknowledges("0", "CA")
    for number in range(1, 300):
        sender.says(message(str(number), ALWAYS))
        link.acknowledges(str(number), "CA")
    assert len(link.expects) == 256


def test_a_sender_that_does_not_acknowledge_later_answers_fills_no_memory() -> None:
    site = Site()
    sender, link = site.asking(message("0", ALWAYS))
    for number in range(2000):
        link.acknowledges(str(number), "CA")
        link.says(late(str(number), own_id=f"R{number}"))
        sender.says(message(str(number + 1), ALWAYS))
    assert len(sender.owes) <= 1000


def test_two_senders_with_the_same_control_id_are_told_apart() -> None:
    site = Site()
    _, first = committed(site)
    second, link = site.asking(message("1", ALWAYS, by="LIS"))
    assert link is not first
    first.says(late("1"))
    assert second.answers == [], (
        "its message has no answer yet: it may be lost, and its sender must not think otherwise"
    )


def test_a_batch_does_not_take_anothers_later_acknowledgement() -> None:
    site = Site()
    first, link = committed(site)
    second, _ = site.asking(batch())
    link.says(late("1"))
    assert second.answers == []
    assert late("1") in first.answers


# Release 2


def test_release_2_commit_answer_and_its_commit() -> None:
    site = release_2()
    sender, link = site.asking()
    link.says(ACK)
    assert sender.answers == [ACK]
    link.acknowledges()
    assert sender.answers == [ACK, acknowledgement()]
    assert sender.done == [], "the receiver waits for its commit"
    sender.commits()
    assert link.aside == [ACK]
    assert sender.done == ["AA"]
    assert site.delivery.counting.shown(0, 0).by_type == {"ADT^A01": {"AA": 1}}
    site.settled()


def test_release_2_a_block_that_is_refused() -> None:
    site = release_2()
    sender, link = site.asking()
    link.says(NAK)
    assert (sender.answers, sender.done) == ([NAK], ["NAK"])
    assert link.is_open
    site.settled()


def test_release_2_what_need_not_be_answered_is_committed_all_the_same() -> None:
    site = release_2()
    sender, link = site.asking(message("1", NEVER))
    assert sender.done == []
    link.says(ACK)
    assert (sender.answers, sender.done) == ([ACK], ["committed"])
    site.settled()


def test_release_2_an_answer_without_a_commit_passes() -> None:
    site = release_2()
    sender, link = site.asking()
    link.acknowledges()
    sender.commits()
    assert sender.answers == [acknowledgement()]
    site.settled()


def test_release_2_a_sender_that_does_not_commit_is_not_waited_for_for_ever() -> None:
    site = release_2()
    sender, link = site.asking()
    link.says(ACK)
    link.acknowledges()
    site.passes(30.1, step_s=1)
    assert sender.done == ["AA"]
    assert not link.is_open, "the receiver would wait for its commit"
    site.settled()


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_release_2_who_leaves_before_the_last_commit_harms_nobody(who: str) -> None:
    site = release_2()
    sender, link = site.asking()
    link.says(ACK)
    link.acknowledges()
    if who == "sender":
        sender.leaves()
    else:
        link.ends()
    assert sender.closed is None
    site.settled()


@pytest.mark.parametrize("how", ["rejects", "dies"])
def test_release_2_a_second_node_commits_as_well(how: str) -> None:
    site = release_2(try_next=True, receivers_deduplicate=True)
    sender, link = site.asking()
    link.says(ACK)
    if how == "rejects":
        link.acknowledges("1", "AR")
    else:
        link.ends()
    site.last.opens().says(ACK)
    site.last.acknowledges()
    assert site.last.node == "b"
    assert sender.answers == [ACK, acknowledgement()], "one commit is enough for the sender"


def test_release_2_a_block_that_is_never_committed_is_unacknowledged() -> None:
    site = release_2()
    sender, _ = site.asking(message("1", LATER))
    site.passes(30.1, step_s=1)
    assert sender.closed == "unacknowledged"


def test_in_release_1_a_commit_is_nonsense() -> None:
    site = Site()
    sender, link = site.asking()
    link.says(ACK)
    assert sender.closed == "unacknowledged"
    assert site.told == [Told("a", "malformed", "closed")]
