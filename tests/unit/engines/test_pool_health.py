"""What a pool does with nodes that return and with nodes that fail: slow start and rests."""

from collections import Counter

import pytest

from equipoise.engines.gateway.passive import FailureKind, Rested
from equipoise.engines.gateway.pool import Full, Nobody, Picked, Pool
from equipoise.plan.model import Node, PassiveHealth, Persistence
from equipoise.plan.states import NodeState
from equipoise.policy.base import Client
from equipoise.policy.catalogue import policies

CT, MR = Client("192.0.2.1", "CT1"), Client("192.0.2.2", "MR1")
NONE = Persistence("none", 60, 32, 64)
BY_SOURCE = Persistence("source_ip", 60, 32, 64)
PASSIVE = PassiveHealth(failures=3, within_s=30, rest_s=10)
UP, DOWN = NodeState("up", 100), NodeState("down", 100)


def node(name: str, *, limit: int | None = None, host: str | None = "192.0.2.9") -> Node:
    return Node(name, "address", host, 104, 100, limit, backup=name.startswith("z"))


def pool(
    *nodes: Node, balance: str = "round_robin", persistence: Persistence = NONE, slow_start_s: float = 0.0
) -> Pool:
    made = Pool(policies()[balance], persistence, None, slow_start_s, PASSIVE)
    made.configure(nodes, {}, 0)
    return made


def pick(from_pool: Pool, now_s: float, client: Client = CT, tried: tuple[str, ...] = ()) -> Picked:
    picked = from_pool.pick(client, tried, now_s)
    assert isinstance(picked, Picked), picked
    from_pool.release(picked)
    return picked


def names(from_pool: Pool, now_s: float, count: int = 20) -> set[str]:
    return {pick(from_pool, now_s).node.name for _ in range(count)}


def share(from_pool: Pool, name: str, now_s: float) -> float:
    counted = Counter(pick(from_pool, now_s).node.name for _ in range(1000))
    return counted[name] / 1000


def rest(in_pool: Pool, *nodes: str, now_s: float = 0) -> None:
    for name in nodes:
        begun = [in_pool.failed(name, CT, FailureKind.REFUSED, "refused", now_s) for _ in range(3)]
        assert begun[:2] == [None, None]
        assert begun[2] is not None


# Slow start


def test_nodes_of_the_first_configuration_have_their_full_share_at_once() -> None:
    assert share(pool(node("a"), node("b"), slow_start_s=30), "b", 0) == 0.5


@pytest.mark.parametrize(("now_s", "weight"), [(100, 10), (110, 40), (115, 55), (129.99, 99.97), (130, 100)])
def test_a_node_that_joins_others_ramps_from_a_tenth(now_s: float, weight: float) -> None:
    one = pool(node("a"), slow_start_s=30)
    one.configure((node("a"), node("b")), {}, 100)
    assert share(one, "b", now_s) == pytest.approx(weight / (100 + weight), abs=0.002)
    assert one.members["b"].weight == pytest.approx(weight)
    assert one.members["a"].weight == 100


@pytest.mark.parametrize("out", [DOWN, NodeState("drain", 100), NodeState("disabled", 100), NodeState("up", 0)])
def test_a_node_that_takes_work_again_ramps(out: NodeState) -> None:
    one = pool(node("a"), node("b"), slow_start_s=30)
    one.set_state("b", out, 50)
    pick(one, 60)
    one.set_state("b", UP, 100)
    assert share(one, "b", 110) == pytest.approx(0.4 / 1.4, abs=0.002)
    assert share(one, "b", 130) == 0.5


def test_a_name_that_resolves_at_last_ramps() -> None:
    one = pool(node("a"), node("b", host=None), slow_start_s=30)
    one.configure((node("a"), node("b")), {}, 100)
    assert share(one, "b", 110) == pytest.approx(0.4 / 1.4, abs=0.002)


def test_a_node_that_is_out_again_begins_anew() -> None:
    one = pool(node("a"), node("b"), slow_start_s=30)
    one.set_state("b", DOWN, 0)
    one.set_state("b", UP, 10)
    one.set_state("b", DOWN, 35)
    one.set_state("b", UP, 36)
    pick(one, 36)
    assert one.members["b"].weight == 10


def test_a_node_that_was_configured_away_and_still_holds_something_ramps_too() -> None:
    one = pool(node("a"), node("b"), slow_start_s=30)
    one.pick(CT, ("a",), 0)
    one.configure((node("a"),), {}, 1)
    one.configure((node("a"), node("b")), {}, 2)
    assert (one.members["b"].weight, one.counters("b").connections) == (10, 1)


def test_another_weight_is_no_return_and_does_not_disturb_a_ramp() -> None:
    one = pool(node("a"), node("b"), slow_start_s=30)
    one.set_state("a", NodeState("up", 50), 10)
    assert one.members["a"].weight == 50
    one.set_state("b", DOWN, 10)
    one.set_state("b", UP, 20)
    one.set_state("b", NodeState("up", 200), 35)
    assert one.members["b"].weight == pytest.approx(0.55 * 200)
    one.configure((node("a"), node("b")), {"b": UP}, 35)
    assert one.members["b"].weight == pytest.approx(55)


@pytest.mark.parametrize("balance", ["source_hash", "first_up"])
def test_where_the_order_is_fixed_nothing_ramps(balance: str) -> None:
    one = pool(node("a"), node("b"), balance=balance, slow_start_s=30)
    one.set_state("b", DOWN, 0)
    one.set_state("b", UP, 10)
    pick(one, 10)
    assert one.members["b"].weight == 100


def test_a_pool_that_inherits_goes_on_with_ramps_and_rests() -> None:
    old = pool(node("a"), node("b"), node("c"), slow_start_s=30)
    old.set_state("b", DOWN, 0)
    old.set_state("b", UP, 100)
    rest(old, "c", now_s=105)
    new = Pool(policies()["round_robin"], NONE, None, 60, PASSIVE)
    new.inherit(old, 110)
    new.configure((node("a"), node("b"), node("c")), {}, 110)
    assert new.members["b"].weight == pytest.approx(25)  # 10 s of 60
    assert new.members["a"].weight == 100
    assert names(new, 110) == {"a", "b"}
    assert "c" in names(new, 115)


# Rests


def test_a_rested_node_is_left_out_until_its_time_is_over_and_then_ramps() -> None:
    one = pool(node("a"), node("b"), slow_start_s=30)
    rest(one, "a")
    assert names(one, 9.9) == {"b"}
    assert one.rested("a", 4) == "3 of 3 associations failed within 30 s, last: refused; until 6 s from now"
    assert share(one, "a", 10) == pytest.approx(0.1 / 1.1, abs=0.002)
    assert share(one, "a", 40) == 0.5
    assert one.rested("a", 40) is None


def test_the_rest_that_begins_is_told() -> None:
    one = pool(node("a"), node("b"))
    for _ in range(2):
        assert one.failed("a", CT, FailureKind.STATUS, "A700", 0) is None
    assert one.failed("a", MR, FailureKind.SLOW, "late", 0) == Rested("a", 3, "late", 10)
    assert one.failed("unknown", MR, FailureKind.SLOW, "late", 0) is None


def test_success_after_a_rest_ends_probation() -> None:
    one = pool(node("a"), node("b"))
    rest(one, "a")
    one.succeeded("a", 10)
    one.succeeded("unknown", 10)
    rest(one, "a", now_s=11)  # asserts that three failures are needed again


def test_the_last_node_is_never_rested() -> None:
    one = pool(node("a"), node("b"))
    one.set_state("b", DOWN, 0)
    for _ in range(50):
        assert one.failed("a", CT, FailureKind.REFUSED, "refused", 0) is None
    assert names(one, 0) == {"a"}
    assert one.rested("a", 0) is None


def test_when_only_rested_nodes_are_left_they_are_asked() -> None:
    one = pool(node("a"), node("b"))
    rest(one, "a")
    one.set_state("b", DOWN, 1)
    assert names(one, 2) == {"a"}
    said = one.rested("a", 2)
    assert said is not None
    assert said.endswith("; until 8 s from now; still asked, for no other takes work")
    assert pick(one, 2).alternatives == 0
    assert isinstance(one.pick(CT, ("a",), 2), Nobody)


def test_a_healthy_backup_comes_before_a_rested_primary() -> None:
    one = pool(node("a"), node("b"), node("z"))
    rest(one, "a", "b")
    assert names(one, 1) == {"z"}
    assert pick(one, 1).alternatives == 2
    assert pick(one, 1, tried=("z",)).node.name in "ab"


def test_when_all_are_rested_primaries_are_asked() -> None:
    one = pool(node("a"), node("z1"), node("z2"))
    rest(one, "a", "z1")
    one.set_state("z2", DOWN, 0)
    assert names(one, 1) == {"a"}
    assert pick(one, 1, tried=("a",)).node.name == "z1"


def test_rested_nodes_remain_alternatives() -> None:
    one = pool(node("a"), node("b"), node("c"))
    rest(one, "a")
    first = pick(one, 1)
    assert first.alternatives == 2
    second = pick(one, 1, tried=(first.node.name,))
    assert second.alternatives == 1
    assert pick(one, 1, tried=("b", "c")).node.name == "a"


def test_a_full_pool_waits_for_a_place_and_not_for_a_node_that_fails() -> None:
    one = pool(node("a"), node("b", limit=1))
    rest(one, "a")
    one.pick(CT, (), 1)
    assert one.pick(CT, (), 1) == Full("every node that is up is at its max_connections: b; rested: a")


def test_a_client_of_a_rested_node_goes_elsewhere_and_comes_back() -> None:
    one = pool(node("a"), node("b"), persistence=BY_SOURCE)
    assert pick(one, 0).node.name == "a"
    rest(one, "a")
    assert [pick(one, second).node.name for second in (1, 5, 9)] == ["b", "b", "b"]
    assert one.table.node_of("192.0.2.1", 9) == "a"
    assert pick(one, 10).node.name == "a"


def test_a_rested_node_that_failed_the_client_loses_it() -> None:
    one = pool(node("a"), node("b"), persistence=BY_SOURCE)
    assert pick(one, 0).node.name == "a"
    rest(one, "a")
    assert pick(one, 1, tried=("a",)).node.name == "b"
    assert one.table.node_of("192.0.2.1", 1) == "b"


def test_a_node_that_was_out_is_not_rested_when_it_returns() -> None:
    one = pool(node("a"), node("b"))
    rest(one, "a")
    one.set_state("a", NodeState("drain", 100), 1)
    one.set_state("a", UP, 2)
    assert one.rested("a", 2) is None
    assert names(one, 2) == {"a", "b"}


def test_a_node_that_leaves_takes_its_rest_with_it() -> None:
    one = pool(node("a"), node("b"))
    rest(one, "a")
    one.configure((node("b"),), {}, 1)
    assert one.rested("a", 1) is None
    one.configure((node("a"), node("b")), {}, 2)
    assert names(one, 2) == {"a", "b"}


def test_one_sender_with_broken_objects_cannot_rest_a_pool() -> None:
    """It repeats what no node can take; another sender's work goes on everywhere."""
    one = pool(node("a"), node("b"), node("c"), slow_start_s=30)
    for turn in range(300):
        now_s = turn / 10
        name = pick(one, now_s).node.name
        assert one.failed(name, CT, FailureKind.ABORTED, "aborted", now_s) is None
    assert names(one, 30) == {"a", "b", "c"}


def test_without_settings_nothing_is_ever_rested() -> None:
    one = Pool(policies()["round_robin"], NONE)
    one.configure((node("a"), node("b")), {}, 0)
    assert [one.failed("a", CT, FailureKind.REFUSED, "refused", 0) for _ in range(99)] == [None] * 99
