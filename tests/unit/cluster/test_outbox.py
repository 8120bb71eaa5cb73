"""What awaits the peer is bounded, and after a gap it is told all."""

import pytest

from equipoise.cluster import outbox as module
from equipoise.cluster.messages import SoftPush
from equipoise.cluster.outbox import Inbox, Outbox
from equipoise.plan.soft import SoftEntry

TABLE = "gateway/persistence/ct"


class Hand:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def entries(*keys: str, node: str = "a", left_s: float = 60.0) -> dict[str, tuple[SoftEntry, ...]]:
    return {TABLE: tuple(SoftEntry(key, node, left_s) for key in keys)}


def told(outbox: Outbox) -> list[SoftPush]:
    return list(iter(outbox.next_push, None))


def test_first_all_is_told_then_what_is_new() -> None:
    outbox, inbox = Outbox("s", Hand()), Inbox()
    assert outbox.whole
    outbox.begin(entries("x", "y"))
    outbox.add(entries("z"))
    pushes = told(outbox)
    outbox.add(entries("x"))
    pushes += told(outbox)
    assert [(push.whole, sum(map(len, push.tables.values()))) for push in pushes] == [(True, 3), (False, 1)]
    assert all(inbox.follows(push) for push in pushes)
    assert told(outbox) == []


def test_all_is_told_in_parts_even_where_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IN_A_PUSH", 10)
    outbox, inbox = Outbox("s", Hand()), Inbox()
    outbox.begin({})
    assert [push.tables for push in told(outbox)] == [{}]
    outbox.restart()
    outbox.begin(entries(*map(str, range(25))))
    pushes = told(outbox)
    assert [len(push.tables[TABLE]) for push in pushes] == [10, 10, 5]
    assert [push.whole for push in pushes] == [True, False, False]
    assert [push.number for push in pushes] == [2, 3, 4]
    assert all(inbox.follows(push) for push in pushes)


def test_what_was_learned_while_all_was_asked_for_is_newer() -> None:
    outbox = Outbox("s", Hand())
    outbox.add(entries("x", node="new"))
    outbox.begin(entries("x", node="old"))
    assert [entry.node for entry in told(outbox)[0].tables[TABLE]] == ["new"]


def test_clients_go_before_flows_that_came_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IN_A_PUSH", 3)
    outbox = Outbox("s", Hand())
    outbox.begin({})
    told(outbox)
    flows, late = "layer4/flows/web", "layer4/persist/web"
    outbox.add({flows: tuple(SoftEntry(f"f{number}", "a", 60.0) for number in range(4))})
    outbox.add({late: (SoftEntry("c", "a", 60.0),), TABLE: (SoftEntry("d", "a", 60.0),)})
    assert len(outbox) == 6
    pushes = [{table: [entry.key for entry in found] for table, found in push.tables.items()} for push in told(outbox)]
    assert pushes == [{late: ["c"], TABLE: ["d"], flows: ["f0"]}, {flows: ["f1", "f2", "f3"]}]


def test_the_time_that_an_entry_waits_counts() -> None:
    hand = Hand()
    outbox = Outbox("s", hand)
    outbox.begin({})
    outbox.add(entries("short", left_s=5.0) | {"t": (SoftEntry("gone", "a", 0.0), SoftEntry("long", "a", 60.0))})
    hand.now_s += 10
    (push,) = told(outbox)
    assert push.tables == {"t": (SoftEntry("gone", "a", 0.0), SoftEntry("long", "a", 50.0))}


def test_beyond_its_bound_it_forgets_and_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PENDING", 100)
    outbox = Outbox("s", Hand())
    outbox.begin({})
    told(outbox)
    for number in range(1000):
        outbox.add(entries(str(number)))
        assert len(outbox) <= 100
    assert outbox.whole


def test_of_more_than_there_is_room_for_each_table_has_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PENDING", 100)
    monkeypatch.setattr(module, "MOST_AT_FIRST", 60)
    outbox = Outbox("s", Hand())
    few = (SoftEntry("z", "a", 60.0),)
    outbox.begin({**entries(*map(str, range(500))), "l": tuple(SoftEntry(str(key), "b", 9.0) for key in range(500))})
    assert not outbox.whole  # else it would begin again and again
    (push,) = told(outbox)
    assert {table: len(some) for table, some in push.tables.items()} == {TABLE: 30, "l": 30}
    outbox.add({"l": few})
    assert told(outbox)[0].tables == {"l": few}


def test_what_does_not_follow_is_refused_until_all_is_told() -> None:
    inbox = Inbox()

    def push(number: int, session: str = "s", whole: bool = False) -> SoftPush:
        return SoftPush(session=session, number=number, tables={}, whole=whole)

    heard = [push(1), push(5, whole=True), push(6), push(8), push(9), push(9, whole=True), push(10), push(11, "other")]
    assert [inbox.follows(each) for each in heard] == [False, True, True, False, False, True, True, False]
