import pytest

from equipoise.engines.gateway.pool import Full, Nobody, Picked, Pool
from equipoise.plan.model import Node, Persistence
from equipoise.plan.states import NodeState, StateName
from equipoise.policy.base import Client
from equipoise.policy.catalogue import policies

CT, MR = Client("192.0.2.1", "CT1"), Client("192.0.2.2", "MR1")
NONE = Persistence("none", 60, 32, 64)
BY_SOURCE = Persistence("source_ip", 60, 32, 64)


def node(name: str, *, limit: int | None = None, backup: bool = False, host: str | None = "192.0.2.9") -> Node:
    return Node(name, "address", host, 104, 100, limit, backup)


def pool(*nodes: Node, balance: str = "round_robin", persistence: Persistence = NONE, limit: int | None = None) -> Pool:
    made = Pool(policies()[balance], persistence, limit)
    made.configure(nodes, {}, 0)
    return made


def take(from_pool: Pool, client: Client = CT, tried: tuple[str, ...] = (), now_s: float = 0) -> Picked:
    picked = from_pool.pick(client, tried, now_s)
    assert isinstance(picked, Picked), picked
    return picked


def pick(from_pool: Pool, client: Client = CT, tried: tuple[str, ...] = (), now_s: float = 0) -> str:
    return take(from_pool, client, tried, now_s).node.name


def give_back(to_pool: Pool, name: str) -> None:
    to_pool.release(Picked(node(name), alternatives=0))


def is_now(name: StateName, weight: int = 100) -> NodeState:
    return NodeState(name, weight)


def test_a_place_counts_from_the_pick_to_the_release() -> None:
    one = pool(node("a"))
    pick(one)
    pick(one)
    assert (one.open, one.counters("a").connections, one.counters("a").associations) == (2, 2, 2)
    give_back(one, "a")
    assert (one.open, one.counters("a").connections, one.counters("a").associations) == (1, 1, 2)


def test_alternatives_are_the_nodes_that_could_be_asked_afterwards() -> None:
    one = pool(node("a"), node("b"), node("c", backup=True))
    assert one.pick(CT, (), 0) == Picked(one.members["a"].node, alternatives=2)
    assert one.pick(CT, ("a", "b"), 0) == Picked(one.members["c"].node, alternatives=0)


def test_a_full_node_is_passed_over_and_a_full_pool_said() -> None:
    one = pool(node("a", limit=1), node("b", limit=1))
    assert {pick(one), pick(one)} == {"a", "b"}
    full = one.pick(CT, (), 0)
    assert isinstance(full, Full)
    assert "a, b" in full.reason
    give_back(one, "b")
    assert pick(one) == "b"


def test_the_services_own_limit_counts_all_nodes() -> None:
    one = pool(node("a"), node("b"), limit=2)
    pick(one)
    pick(one)
    full = one.pick(CT, (), 0)
    assert isinstance(full, Full)
    assert "max_connections, 2" in full.reason


def test_what_another_gateway_holds_counts_for_limits_and_balancing() -> None:
    one = pool(node("a", limit=3), node("b"), balance="least_connections", limit=5)
    one.set_elsewhere("77", {"a": 2})
    one.set_elsewhere("88", {"a": 1})
    assert pick(one) == "b"
    assert one.pick(CT, ("b",), 0) == Full("every node that is up is at its max_connections: a")
    pick(one)
    assert isinstance(one.pick(CT, (), 0), Full)
    one.set_elsewhere("77", {})
    assert pick(one) == "a"
    assert one.counters("a").connections == 1  # ours alone


def test_backups_wait_until_no_primary_may_work() -> None:
    one = pool(node("a", limit=1), node("b"), node("z", backup=True))
    assert {pick(one) for _ in range(6)} == {"a", "b"}
    one.set_state("b", is_now("down"), 0)
    assert isinstance(one.pick(CT, (), 0), Full)  # a is full, but up
    one.set_state("a", is_now("drain"), 0)
    assert pick(one) == "z"


def test_a_backup_is_asked_when_all_primaries_were() -> None:
    one = pool(node("a"), node("z", backup=True))
    assert pick(one, tried=("a",)) == "z"
    assert isinstance(one.pick(CT, ("a", "z"), 0), Nobody)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (NodeState("down", 100), "is down"),
        (NodeState("drain", 100), "is drain"),
        (NodeState("disabled", 100), "is disabled"),
        (NodeState("up", 0), "weight 0"),
    ],
)
def test_a_node_that_takes_no_work_is_never_picked(state: NodeState, said: str) -> None:
    one = pool(node("a"), node("b", host=None))
    one.set_state("a", state, 0)
    nobody = one.pick(CT, (), 0)
    assert isinstance(nobody, Nobody)
    assert said in nobody.reason
    assert "b has a name that does not resolve" in nobody.reason
    assert one.open == 0


def test_the_effective_weight_is_what_counts() -> None:
    one = pool(node("a"), node("b"))
    one.set_state("a", is_now("up", 300), 0)
    assert [pick(one) for _ in range(4)].count("a") == 3


def test_a_state_that_is_no_news_is_no_change() -> None:
    one = pool(node("a"))
    assert not one.set_state("a", is_now("up"), 0)
    assert one.set_state("a", is_now("down"), 0)
    assert not one.set_state("unknown", is_now("down"), 0)


def test_a_client_keeps_its_node_until_its_time_is_over() -> None:
    one = pool(node("a"), node("b"), persistence=BY_SOURCE)
    assert [pick(one, now_s=second) for second in (0, 50, 100)] == ["a", "a", "a"]
    assert pick(one, MR, now_s=100) == "b"
    assert one.table.node_of("192.0.2.1", 159) == "a"
    assert one.table.node_of("192.0.2.1", 160) is None


@pytest.mark.parametrize("state", [NodeState("drain", 100), NodeState("down", 100), NodeState("up", 0)])
def test_a_node_out_of_work_loses_its_clients_at_their_next_pick(state: NodeState) -> None:
    one = pool(node("a"), node("b"), persistence=BY_SOURCE)
    assert pick(one) == "a"
    one.set_state("a", state, 0)
    assert pick(one) == "b"
    one.set_state("a", is_now("up"), 0)
    assert pick(one) == "b"


def test_a_node_that_leaves_the_configuration_loses_its_clients() -> None:
    one = pool(node("a"), node("b"), persistence=BY_SOURCE)
    assert pick(one) == "a"
    one.configure((node("b"),), {}, 0)
    assert pick(one) == "b"
    assert one.table.node_of("192.0.2.1", 0) == "b"


def test_a_full_node_keeps_its_clients() -> None:
    one = pool(node("a", limit=1), node("b"), persistence=BY_SOURCE)
    assert pick(one) == "a"
    assert pick(one) == "b"  # a is full, for now
    give_back(one, "a")
    assert pick(one) == "a"


def test_a_node_that_failed_a_client_loses_it() -> None:
    one = pool(node("a"), node("b"), persistence=BY_SOURCE)
    assert pick(one) == "a"
    give_back(one, "a")
    assert pick(one, tried=("a",)) == "b"
    assert pick(one) == "b"


def test_a_client_that_found_no_place_has_no_entry() -> None:
    one = pool(node("a", limit=0), persistence=BY_SOURCE)
    assert isinstance(one.pick(CT, (), 0), Full)
    assert len(one.table) == 0


def test_counts_survive_a_new_configuration() -> None:
    one = pool(node("a"), node("b"))
    pick(one)
    pick(one)
    one.configure((node("b"), node("c")), {"b": is_now("drain")}, 0)
    assert list(one.members) == ["b", "c"]
    assert one.open == 2  # one of them at a node that has left
    give_back(one, "a")
    give_back(one, "b")
    assert one.open == 0
    assert pick(one) == "c"
    with pytest.raises(KeyError):
        one.counters("a")


def test_a_node_that_comes_back_finds_its_counts() -> None:
    one = pool(node("a"))
    pick(one)
    one.configure((node("b"),), {}, 0)
    one.configure((node("a"), node("b")), {}, 0)
    assert one.counters("a").connections == 1
    give_back(one, "a")
    assert one.open == 0


def test_a_pool_with_another_policy_takes_over_counts_and_clients() -> None:
    old = pool(node("a"), node("b"), persistence=BY_SOURCE)
    pick(old)
    pick(old, MR)
    new = Pool(policies()["least_connections"], BY_SOURCE)
    new.inherit(old, 10)
    new.configure((node("b"), node("a")), {}, 0)
    assert new.open == 2
    assert pick(new, now_s=10) == "a"
    give_back(new, "a")
    give_back(new, "a")
    assert new.open == 1


def test_a_place_given_back_twice_is_not_counted_twice() -> None:
    one = pool(node("a", limit=1))
    pick(one)
    give_back(one, "a")
    give_back(one, "a")
    give_back(one, "unknown")
    assert one.open == 0
    pick(one)
    assert isinstance(one.pick(CT, (), 0), Full)


def test_who_stays_waits_for_its_own_node_where_another_has_room() -> None:
    one = pool(node("a", limit=1), node("b"), persistence=BY_SOURCE)
    assert pick(one) == "a"
    assert one.pick(CT, (), 0, stays=True) == Full("a is at its max_connections", "a")
    assert pick(one) == "b", "who need not stay goes elsewhere"
    give_back(one, "a")
    stays = one.pick(CT, (), 0, stays=True)
    assert isinstance(stays, Picked)
    assert stays.node.name == "a"


def test_a_policy_that_pins_says_which_node_is_waited_for() -> None:
    one = pool(node("a", limit=1), node("b", limit=2), balance="source_hash")
    home = pick(one)
    while isinstance(outcome := one.pick(CT, (), 0, stays=True), Picked):
        assert outcome.node.name == home
    assert isinstance(outcome, Full)
    assert outcome.node == home
    other = one.pick(CT, (home,), 0, stays=True)
    assert isinstance(other, Picked)
    assert other.node.name != home


def test_who_stays_is_not_kept_by_a_node_that_takes_no_work() -> None:
    one = pool(node("a", limit=1), node("b"), persistence=BY_SOURCE)
    assert pick(one) == "a"
    one.set_state("a", is_now("drain"), 0)
    elsewhere = one.pick(CT, (), 0, stays=True)
    assert isinstance(elsewhere, Picked)
    assert elsewhere.node.name == "b"


def test_a_place_at_one_node_is_given_waited_for_or_not_to_be_had() -> None:
    one = pool(node("a", limit=1), node("b"), limit=2)
    assert one.take("a") == Picked(one.members["a"].node, 0)
    assert one.take("a") == Full("a is at its max_connections", "a")
    assert one.take("nobody") is None
    one.set_state("b", is_now("drain"), 0)
    assert one.take("b") is None
    one.set_state("b", is_now("up"), 0)
    assert isinstance(one.take("b"), Picked)
    full = one.take("b")
    assert isinstance(full, Full)
    assert full.node is None, "any place of the service will do"
    assert one.open == 2


def test_candidates_are_those_that_new_work_is_spread_over() -> None:
    one = pool(node("a", limit=1), node("b"), node("z", backup=True))
    pick(one)
    assert [member.name for member in one.candidates(0)] == ["a", "b"]
    one.set_state("a", is_now("down"), 0)
    one.set_state("b", is_now("drain"), 0)
    assert [member.name for member in one.candidates(0)] == ["z"]
