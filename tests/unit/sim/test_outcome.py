"""What makes a demonstration a failure, and what does not; and its story."""

from dataclasses import replace
from itertools import islice, takewhile
from typing import Any

import pytest

from equipoise.sim.audit import Audit
from equipoise.sim.hl7_audit import MessageAudit
from equipoise.sim.hl7_interfaces import MessageTally
from equipoise.sim.ledger import Mishap, Tally
from equipoise.sim.outcome import Done, MessageOutcome, Outcome, Phase
from equipoise.sim.story import Deed, beats

GOOD = Outcome(
    tally=Tally(sent=11, acknowledged=10),
    audit=Audit(unharmed=("1.1",)),
    phases=(Phase("at the beginning", 5, 5, 0), Phase("after b was killed with SIGKILL", 5, 5, 1)),
    left_undone=(),
    status_answers=3,
    faults=(),
)


def test_failed_associations_alone_are_no_problem() -> None:
    tally = Tally(sent=11, acknowledged=10, failures={"aborted": 3}, retries=3)
    assert replace(GOOD, tally=tally).problems() == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"audit": Audit(missing=("1.1",))}, "1 acknowledged objects are in no archive: 1.1"),
        ({"audit": Audit(harmed=("1.1", "1.2"))}, "2 acknowledged objects are not as sent: 1.1, 1.2"),
        ({"tally": Tally(differences=("x",))}, "1 differences when studies were read: x"),
        ({"left_undone": ("c was drained",)}, "not done, for the work ended before: c was drained"),
        ({"status_answers": 0}, "the supervisor never gave its status"),
        ({"faults": ("balancer ended",)}, "balancer ended"),
        (
            {"phases": (Phase("after c was drained", 5, 0, 0),)},
            "no object was acknowledged after c was drained, in 5.0 s",
        ),
        (
            {"phases": (Phase("after c was drained", 5, 9, 0, messages=0),)},
            "no HL7 message was acknowledged after c was drained, in 5.0 s",
        ),
    ],
)
def test_each_of_these_alone_is_a_problem(change: dict[str, Any], problem: str) -> None:
    assert replace(GOOD, **change).problems() == [problem]


def test_what_became_of_messages_is_judged_and_attempts_that_failed_are_not() -> None:
    tally = MessageTally(sent=5, acknowledged=4, again=2, failures={"closed before the answer": 2})
    good = MessageOutcome(tally, MessageAudit(unharmed=("1",), repeated=2, unacknowledged=1))
    assert replace(GOOD, messages=good).problems() == []
    bad = MessageOutcome(tally, MessageAudit(lost=("1",), out_of_order=("2", "3")))
    assert replace(GOOD, messages=bad).problems() == [
        "1 acknowledged messages are at no receiver: 1",
        "2 messages came after later ones of the same sender: 2, 3",
    ]


DONE = (
    Done(Deed.KILL, ("b",), 10.0, 10.1),
    Done(Deed.DRAIN, ("c",), 20.0, 20.1),
    Done(Deed.RETURN, ("b", "c"), 30.0, 32.0),
)


@pytest.mark.parametrize(
    ("node", "began_s", "ended_s", "is_excused"),
    [
        ("b", 9.9, 10.05, True),  # open when its node was killed
        ("b", 10.05, 10.2, True),  # begun while it was being killed
        ("", 9.9, 10.05, True),  # a log-in: any node may have had it
        ("b", 10.2, 10.3, False),  # begun when it was dead: another node was to take it
        ("a", 9.9, 10.05, False),  # at a node that lived
        ("c", 19.9, 20.05, False),  # a drained node lets requests end
    ],
)
def test_a_request_may_fail_only_under_a_node_that_is_killed(
    node: str, began_s: float, ended_s: float, is_excused: bool
) -> None:
    tally = Tally(pages=1, failed_pages=(Mishap(node, began_s, ended_s, "answered 502"),))
    problems = replace(GOOD, tally=tally, done=DONE).problems()
    assert problems == ([] if is_excused else [f"1 requests failed on nodes that nobody killed: {node}: answered 502"])


@pytest.mark.parametrize(
    ("node", "at_s", "is_excused"),
    [
        ("b", 9.0, False),
        ("b", 12.0, True),
        ("c", 25.0, True),
        ("c", 33.0, True),
        ("c", 60.0, False),
        ("a", 25.0, False),
    ],
)
def test_a_session_may_be_lost_only_where_its_node_was_taken_out(node: str, at_s: float, is_excused: bool) -> None:
    tally = Tally(pages=1, lost_sessions=(Mishap(node, at_s - 0.1, at_s, f"{node} → a"),))
    assert bool(replace(GOOD, tally=tally, done=DONE).problems()) is not is_excused


def test_a_portal_that_never_knew_anybody_is_a_problem() -> None:
    assert replace(GOOD, tally=Tally(log_ins=3)).problems() == ["no page came with its session"]


def test_a_moment_too_short_to_judge_is_not_judged() -> None:
    assert replace(GOOD, phases=(Phase("after a returned", 0.4, 0, 0),)).problems() == []


def test_audits_add_up() -> None:
    one = Audit(("1",), ("2",), ("3",), 1, {"a": 1})
    assert one.plus(one) == Audit(("1", "1"), ("2", "2"), ("3", "3"), 2, {"a": 2})


def test_twenty_seconds_hold_one_round() -> None:
    story = list(takewhile(lambda beat: beat.at_s < 20, beats(["a", "b", "c"], 20)))
    assert [(beat.at_s, beat.deed) for beat in story] == [(5, Deed.KILL), (10, Deed.DRAIN), (15, Deed.RETURN)]


def test_a_round_leaves_one_node_alone_and_brings_back_what_it_took() -> None:
    story = list(islice(beats(["a", "b", "c"], 40), 9))
    for kill, drain, back in zip(story[::3], story[1::3], story[2::3], strict=True):
        assert back.nodes == kill.nodes + drain.nodes
        assert kill.nodes != drain.nodes
    assert {beat.nodes[0] for beat in story if beat.deed is Deed.KILL} == {"a", "b", "c"}
