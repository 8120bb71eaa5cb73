from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from equipoise.policy.base import Client
from equipoise.policy.catalogue import policies
from equipoise.policy.persistence import PersistenceTable
from tests.unit.policy.candidate import Candidate

NODES = st.lists(
    st.builds(Candidate, st.sampled_from("abcdef"), st.integers(1, 1000), st.integers(0, 500)),
    min_size=1,
    unique_by=lambda node: node.name,
)
CLIENT = Client("192.0.2.1", "CT1")


@given(st.sampled_from(sorted(policies())), st.lists(NODES, max_size=30))
def test_a_policy_always_returns_one_of_the_candidates(name: str, rounds: list[list[Candidate]]) -> None:
    policy = policies()[name].make()
    for nodes in rounds:
        assert policy.pick(nodes, CLIENT) in {node.name for node in nodes}


@given(st.sampled_from(sorted(policies())), st.lists(NODES, max_size=20))
def test_the_same_picks_in_the_same_order_give_the_same_nodes(name: str, rounds: list[list[Candidate]]) -> None:
    one, other = policies()[name].make(), policies()[name].make()
    assert [one.pick(nodes, CLIENT) for nodes in rounds] == [other.pick(nodes, CLIENT) for nodes in rounds]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_round_robin_gives_each_node_its_weight_in_every_cycle(weights: list[int]) -> None:
    nodes = [Candidate(str(place), weight, 0) for place, weight in enumerate(weights)]
    policy = policies()["round_robin"].make()
    for _ in range(2):
        counted = Counter(policy.pick(nodes, CLIENT) for _ in range(sum(weights)))
        assert counted == {node.name: node.weight for node in nodes}


@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.integers(0, 200))
def test_least_connections_keeps_loads_level(weights: list[int], count: int) -> None:
    policy, open_now = policies()["least_connections"].make(), Counter[str]()
    for _ in range(count):
        nodes = [Candidate(str(place), weight, open_now[str(place)]) for place, weight in enumerate(weights)]
        open_now[policy.pick(nodes, CLIENT)] += 1
    for place, weight in enumerate(weights):
        assert abs(open_now[str(place)] - count * weight / sum(weights)) <= len(weights)


OPERATIONS = st.lists(
    st.tuples(st.sampled_from("kfnm"), st.sampled_from("abcde"), st.sampled_from("12"), st.integers(0, 30)), max_size=60
)


@given(OPERATIONS, st.integers(1, 3))
def test_the_table_never_exceeds_its_bound_nor_an_entry_its_time(
    operations: list[tuple[str, str, str, int]], max_entries: int
) -> None:
    table, now_s = PersistenceTable(20, max_entries), 0.0
    expires: dict[str, float] = {}
    for what, key, node, seconds in operations:
        now_s += seconds / 4  # exact
        if what == "k":
            table.keep(key, node, now_s)
            expires[key] = now_s + 20
        elif what == "f":
            table.forget(key)
            expires.pop(key, None)
        elif what == "m":
            table.merge([(key, node, seconds)], now_s)
            expires[key] = max(expires.get(key, 0.0), now_s + min(seconds, 20))
        elif table.node_of(key, now_s) is not None:
            assert expires[key] > now_s
        assert len(table) <= max_entries
        assert all(0 < left_s <= 20 for _, _, left_s in table.entries(now_s))
