from collections import Counter
from dataclasses import replace

import pytest

from equipoise.engines.layer4.artifact import Member, Pool
from equipoise.engines.layer4.balance import Balance, refusing
from equipoise.engines.layer4.transaction import Filling
from equipoise.plan.states import NodeState
from equipoise.policy.catalogue import policies

UP, DOWN, GONE = NodeState("up", 100), NodeState("down", 100), NodeState("down", 100, reachable=False)
DRAIN, DISABLED, EMPTY = NodeState("drain", 100), NodeState("disabled", 100), NodeState("up", 0)


def member(name: str, *, weight: int = 100, backup: bool = False, limit: int | None = None) -> Member:
    mark = 0x45000000 + ord(name)
    return Member(name=name, mark=mark, weight=weight, backup=backup, max_connections=limit, serves=True)


def pool(*members: Member, balance: str = "round_robin", slow_start_s: float = 0.0, cut: bool = True) -> Pool:
    return Pool(
        service="s",
        family="inet",
        members=members or (member("a"), member("b")),
        kind=policies()[balance],
        slow_start_s=slow_start_s,
        cut=cut,
        slots=840,
    )


def dealt(filling: Filling) -> Counter[str]:
    return Counter(filling.slots)


def test_before_anything_is_known_every_node_takes_work_by_its_weight() -> None:
    found = Balance(pool(member("a", weight=300), member("b"))).filling({}, 0, 0.0)
    assert dealt(found) == {"a": 630, "b": 210}
    assert found.takes == found.holds == {"a", "b"}
    assert found.cut == set()


@pytest.mark.parametrize(
    ("state", "holds", "cut"),
    [
        (DOWN, False, False),
        (GONE, False, True),
        (DRAIN, True, False),
        (DISABLED, False, True),
        (EMPTY, True, False),
    ],
)
def test_a_node_that_takes_no_work(state: NodeState, holds: bool, cut: bool) -> None:
    found = Balance(pool(), {"a": UP, "b": state}).filling({}, 0, 0.0)
    assert dealt(found) == {"a": 840}
    assert found.takes == {"a"}
    assert ("b" in found.holds, "b" in found.cut) == (holds, cut)


def test_with_on_down_keep_only_an_operator_cuts() -> None:
    found = Balance(pool(cut=False), {"a": GONE, "b": DISABLED}).filling({}, 0, 0.0)
    assert found.cut == {"b"}
    assert found.slots == ()


def test_an_operators_weight_replaces_the_plans() -> None:
    found = Balance(pool(), {"a": NodeState("up", 20), "b": NodeState("up", 100)}).filling({}, 0, 0.0)
    assert dealt(found) == {"a": 140, "b": 700}


def test_backups_take_work_only_where_nobody_else_does() -> None:
    three = pool(member("a"), member("b"), member("z", backup=True))
    assert dealt(Balance(three, {"a": DOWN}).filling({}, 0, 0.0)) == {"b": 840}
    both_down = Balance(three, {"a": DOWN, "b": DRAIN}).filling({}, 0, 0.0)
    assert dealt(both_down) == {"z": 840}
    assert both_down.takes == {"z"}


def test_backups_are_able_to_take_what_finds_no_seat_elsewhere() -> None:
    three = pool(member("a", limit=1), member("b"), member("z", backup=True))
    found = Balance(three).filling({}, 0, 0.0)
    assert found.takes == {"a", "b"}
    assert found.able == {"a", "b", "z"}
    found = Balance(three, {"b": DRAIN, "z": DISABLED}).filling({}, 0, 0.0)
    assert found.takes == found.able == {"a"}
    lost = replace(member("z", backup=True), serves=False)
    assert Balance(pool(member("a"), lost)).filling({}, 0, 0.0).able == {"a"}


def test_a_node_at_its_limit_gets_no_slot_until_it_has_room() -> None:
    balance = Balance(pool(member("a", limit=2), member("b")))
    assert dealt(balance.filling({"a": 1}, 0, 0.0)) == {"a": 420, "b": 420}
    assert dealt(balance.filling({"a": 2}, 0, 0.0)) == {"b": 840}
    assert dealt(balance.filling({"a": 7}, 0, 0.0)) == {"b": 840}


def test_where_all_are_at_their_limits_the_backup_helps() -> None:
    balance = Balance(pool(member("a", limit=2), member("z", backup=True)))
    assert dealt(balance.filling({"a": 2}, 0, 0.0)) == {"z": 840}
    assert dealt(balance.filling({"a": 1}, 0, 0.0)) == {"a": 840}


def test_a_node_whose_address_is_not_known_gets_nothing() -> None:
    lost = replace(member("b"), serves=False)
    found = Balance(pool(member("a"), lost)).filling({}, 0, 0.0)
    assert dealt(found) == {"a": 840}
    assert found.takes == {"a"}


def test_states_that_are_known_already_are_no_news() -> None:
    balance = Balance(pool())
    assert not balance.see({}, 0.0)
    assert balance.see({"a": UP, "b": UP}, 0.0)
    assert not balance.see({"a": UP, "b": UP}, 1.0)
    assert balance.see({"a": UP, "b": DOWN}, 2.0)
    assert balance.see({"a": UP, "b": GONE}, 3.0)


def test_what_is_known_at_first_does_not_start_slowly() -> None:
    balance = Balance(pool(slow_start_s=30))
    balance.see({"a": UP, "b": UP}, 0.0)
    assert not balance.is_moving
    assert dealt(balance.filling({}, 0, 0.0)) == {"a": 420, "b": 420}


@pytest.mark.parametrize("before", [DOWN, DRAIN, DISABLED, EMPTY])
def test_a_node_that_returns_starts_slowly(before: NodeState) -> None:
    balance = Balance(pool(slow_start_s=30))
    balance.see({"a": UP, "b": before}, 0.0)
    balance.see({"a": UP, "b": UP}, 100.0)
    shares = []
    for now_s in (100.0, 115.0, 129.0, 130.0):
        assert balance.is_moving
        shares.append(dealt(balance.filling({}, 0, now_s))["b"])
    assert shares == [pytest.approx(840 * w / (1 + w), abs=2) for w in (0.1, 0.55, 0.97, 1)]
    assert not balance.is_moving


def test_slots_are_written_once_more_when_a_slow_start_is_over() -> None:
    """The last look in its course may be seconds old: what was dealt then must not stay."""
    balance = Balance(pool(slow_start_s=1))
    balance.see({"a": UP, "b": DOWN}, 0.0)
    balance.see({"a": UP, "b": UP}, 10.0)
    assert dealt(balance.filling({}, 0, 10.5))["b"] < 400
    assert balance.is_moving
    assert dealt(balance.filling({}, 0, 14.0)) == {"a": 420, "b": 420}
    assert not balance.is_moving


def test_a_node_that_goes_down_while_it_starts_begins_anew() -> None:
    balance = Balance(pool(slow_start_s=30))
    for now_s, state in ((0.0, DOWN), (10.0, UP), (20.0, DOWN), (39.0, UP)):
        balance.see({"a": UP, "b": state}, now_s)
    assert dealt(balance.filling({}, 0, 41.0))["b"] < 200


@pytest.mark.parametrize("balance", ["source_hash", "first_up"])
def test_what_does_not_go_by_load_never_starts_slowly(balance: str) -> None:
    returned = Balance(pool(balance=balance, slow_start_s=30))
    returned.see({"a": DOWN, "b": UP}, 0.0)
    returned.see({"a": UP, "b": UP}, 1.0)
    assert not returned.is_moving
    assert dealt(returned.filling({}, 0, 1.0)) == dealt(Balance(pool(balance=balance)).filling({}, 0, 1.0))


@pytest.mark.parametrize(
    ("one", "moves"),
    [
        (pool(), False),
        (pool(balance="least_connections"), True),
        (pool(member("a", limit=5)), True),
        (pool(balance="source_hash"), False),
    ],
)
def test_slots_move_by_themselves_where_they_follow_connections(one: Pool, moves: bool) -> None:
    assert Balance(one).is_moving is moves


def test_a_plan_that_adds_a_node_starts_that_one_slowly() -> None:
    balance = Balance.after(None, pool(slow_start_s=30), 0.0)
    balance.see({"a": UP, "b": UP}, 0.0)
    grown = Balance.after(balance, pool(member("a"), member("b"), member("c"), slow_start_s=30), 50.0)
    grown.see({"a": UP, "b": UP, "c": UP}, 50.0)
    assert dealt(grown.filling({}, 0, 50.0)) == {"a": 400, "b": 400, "c": 40}
    assert not balance.is_moving, "what there was before is as it was"


def test_a_slow_start_goes_on_over_a_plan() -> None:
    balance = Balance(pool(slow_start_s=30))
    balance.see({"a": UP, "b": DOWN}, 0.0)
    balance.see({"a": UP, "b": UP}, 10.0)
    later = Balance.after(balance, pool(member("a", weight=50), member("b"), slow_start_s=30), 25.0)
    later.see({"a": UP, "b": UP}, 25.0)
    assert dealt(later.filling({}, 0, 25.0))["b"] == pytest.approx(840 * 0.55 / 1.55, abs=2)
    assert later.is_moving


def test_a_node_that_left_the_plan_and_returns_is_new() -> None:
    one = Balance(pool(slow_start_s=30))
    one.see({"a": UP, "b": UP}, 0.0)
    two = Balance.after(one, pool(member("a"), slow_start_s=30), 10.0)
    two.see({"a": UP}, 10.0)
    three = Balance.after(two, pool(slow_start_s=30), 20.0)
    three.see({"a": UP, "b": UP}, 20.0)
    assert dealt(three.filling({}, 0, 20.0))["b"] < 100


def test_connections_decide_from_the_slot_whose_turn_it_is() -> None:
    found = Balance(pool(balance="least_connections")).filling({"a": 3, "b": 1}, 838, 0.0)
    assert [found.slots[slot] for slot in (838, 839)] == ["b", "b"]
    assert {found.slots[0], found.slots[1]} == {"a", "b"}


def test_before_a_stop_nobody_takes_new_work_and_all_else_stays() -> None:
    filling = Balance(pool(), {"a": DISABLED, "b": UP}).filling({}, 0, 0.0)
    assert refusing(filling) == Filling(holds=filling.holds, cut=filling.cut)
