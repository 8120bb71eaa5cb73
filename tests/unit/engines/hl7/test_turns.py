"""One message a patient: first come, first served; who names two waits for both."""

from equipoise.engines.gateway.hl7.exchange import Exchange
from equipoise.engines.gateway.hl7.turns import Turns
from equipoise.proto.hl7 import read_header
from tests.unit.engines.hl7.scene import Site, frame, message

A, B, C = b"A", b"B", b"C"


def exchanges(count: int) -> list[Exchange]:
    sender = Site().sender()
    content = message()
    return [Exchange(sender, frame(content), read_header(content), sender.client, 0) for _ in range(count)]


def test_one_patient_first_come_first_served() -> None:
    turns, (one, two, three) = Turns(), exchanges(3)
    assert [turns.join(each, (A,)) for each in (one, two, three)] == [True, False, False]
    assert turns.leave(one) == [two]
    assert turns.leave(two) == [three]
    assert turns.leave(three) == []
    assert not turns.is_taken


def test_patients_do_not_wait_for_each_other() -> None:
    turns, (one, two) = Turns(), exchanges(2)
    assert turns.join(one, (A,))
    assert turns.join(two, (B,))
    assert turns.leave(one) == []


def test_a_merge_waits_for_both_and_both_for_it() -> None:
    turns, (of_a, of_b, merge, next_a, next_b) = Turns(), exchanges(5)
    assert [turns.join(of_a, (A,)), turns.join(of_b, (B,))] == [True, True]
    assert [turns.join(merge, (A, B)), turns.join(next_a, (A,)), turns.join(next_b, (B,))] == [False] * 3
    assert turns.leave(of_a) == []
    assert turns.leave(of_b) == [merge]
    assert turns.leave(merge) == [next_a, next_b]


def test_merges_that_cross_do_not_wait_for_each_other() -> None:
    turns, (one, two, three) = Turns(), exchanges(3)
    assert [turns.join(one, (A, B)), turns.join(two, (B, A)), turns.join(three, (C, A))] == [True, False, False]
    assert turns.leave(one) == [two]
    assert turns.leave(two) == [three]


def test_who_leaves_from_the_middle_lets_nobody_overtake() -> None:
    turns, (one, two, three) = Turns(), exchanges(3)
    for each in (one, two, three):
        turns.join(each, (A,))
    assert turns.leave(two) == []
    assert turns.leave(one) == [three]


def test_a_merge_that_gives_up_lets_those_behind_it_go() -> None:
    turns, (of_a, merge, of_b) = Turns(), exchanges(3)
    turns.join(of_a, (A,))
    turns.join(merge, (A, B))
    assert not turns.join(of_b, (B,))
    assert turns.leave(merge) == [of_b]
    assert turns.leave(of_a) == []
    assert turns.leave(of_b) == []
    assert not turns.is_taken


def test_leaving_twice_or_without_having_joined_does_nothing() -> None:
    turns, (one, two) = Turns(), exchanges(2)
    turns.join(one, (A,))
    assert turns.leave(two) == []
    turns.leave(one)
    assert turns.leave(one) == []
    assert turns.join(two, (A,)), "nothing is left of the first one"
