from collections import Counter
from dataclasses import replace
from fractions import Fraction
from ipaddress import ip_address

from hypothesis import assume, given
from hypothesis import strategies as st

from equipoise.policy.base import Client
from equipoise.policy.catalogue import policies
from equipoise.policy.persistence import PersistenceTable
from equipoise.policy.prediction import Predictions
from tests.unit.policy.candidate import Candidate

NODES = st.lists(
    st.builds(
        Candidate,
        st.sampled_from("abcdef"),
        st.integers(1, 1000) | st.floats(0.1, 1000),
        st.integers(0, 500),
        st.floats(65536, 1e13),
    ),
    min_size=1,
    unique_by=lambda node: node.name,
)
CLIENT = Client("192.0.2.1", "CT1")
CLIENTS = st.builds(Client, st.ip_addresses().map(str), st.sampled_from(["CT1", "MR1"]))
WEIGHTS = st.lists(st.integers(1, 20), min_size=2, max_size=5)
NAMES = sorted(policies())


@given(st.sampled_from(NAMES), st.lists(st.tuples(NODES, CLIENTS), max_size=30))
def test_a_policy_always_returns_one_of_the_candidates(name: str, rounds: list[tuple[list[Candidate], Client]]) -> None:
    policy = policies()[name].make()
    for nodes, client in rounds:
        assert policy.pick(nodes, client) in {node.name for node in nodes}


@given(st.sampled_from(NAMES), st.lists(st.tuples(NODES, CLIENTS), max_size=20))
def test_the_same_picks_in_the_same_order_give_the_same_nodes(
    name: str, rounds: list[tuple[list[Candidate], Client]]
) -> None:
    one, other = policies()[name].make(), policies()[name].make()
    assert [one.pick(*each) for each in rounds] == [other.pick(*each) for each in rounds]


@given(st.sampled_from(sorted(set(NAMES) - {"first_up"})), WEIGHTS)
def test_what_is_handed_out_follows_the_weights(name: str, weights: list[int]) -> None:
    """Equal associations that stay open; `source_hash` by chance, the others to within one of each node."""
    policy, held, count = policies()[name].make(), Counter[str](), 40 * sum(weights)
    for number in range(count):
        nodes = [Candidate(str(n), weight, held[str(n)], held[str(n)] + 1.0) for n, weight in enumerate(weights)]
        held[policy.pick(nodes, Client(str(ip_address(number)), "CT1"))] += 1
    for n, weight in enumerate(weights):
        expected = count * weight / sum(weights)
        slack = 6 * expected**0.5 if name == "source_hash" else len(weights)
        assert abs(held[str(n)] - expected) <= slack


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


WORKING = st.lists(
    st.builds(Candidate, st.sampled_from("abcdef"), st.integers(1, 100), st.integers(0, 20), st.integers(1, 10**12)),
    min_size=1,
    unique_by=lambda node: node.name,
)


@given(st.lists(WORKING, min_size=1, max_size=10))
def test_least_work_picks_who_has_least_to_do(rounds: list[list[Candidate]]) -> None:
    """In exact arithmetic, compared pair by pair: nobody is better by more than a double's rounding."""
    policy = policies()["least_work"].make()
    for nodes in rounds:
        name = policy.pick(nodes, CLIENT)
        chosen = next(node for node in nodes if node.name == name)
        mine = Fraction(chosen.work) / Fraction(chosen.weight)
        for node in nodes:
            theirs = Fraction(node.work) / Fraction(node.weight)
            assert mine <= theirs * (1 + Fraction(1, 10**12))
            if node.work * chosen.weight == chosen.work * node.weight and node.work == chosen.work:
                assert chosen.connections <= node.connections


@given(NODES, CLIENTS, st.data())
def test_rendezvous_moves_only_the_clients_of_a_node_that_leaves(
    nodes: list[Candidate], client: Client, data: st.DataObject
) -> None:
    assume(len(nodes) > 1)
    policy = policies()["source_hash"].make()
    own = policy.pick(nodes, client)
    leaves = data.draw(st.sampled_from(nodes))
    after = policy.pick([node for node in nodes if node is not leaves], client)
    assert after == own or own == leaves.name


@given(NODES, CLIENTS, st.floats(1.01, 100), st.data())
def test_rendezvous_moves_clients_only_to_a_node_that_gains_weight(
    nodes: list[Candidate], client: Client, factor: float, data: st.DataObject
) -> None:
    policy, gains = policies()["source_hash"].make(), data.draw(st.sampled_from(nodes))
    heavier = [replace(node, weight=node.weight * factor) if node is gains else node for node in nodes]
    assert policy.pick(heavier, client) in {policy.pick(nodes, client), gains.name}


@given(NODES, CLIENTS, st.lists(CLIENTS, max_size=5))
def test_balancers_agree_whatever_they_did_before(nodes: list[Candidate], client: Client, before: list[Client]) -> None:
    one, other = policies()["source_hash"].make(), policies()["source_hash"].make()
    for earlier in before:
        one.pick(nodes, earlier)
    elsewhere = [replace(node, connections=0, work=1.0) for node in reversed(nodes)]
    assert one.pick(nodes, client) == other.pick(elsewhere, client)


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


MOVED = st.lists(st.tuples(st.sampled_from(["CT1", "CR1", "MR1", "US1"]), st.floats()), max_size=40)


@given(MOVED, st.dictionaries(st.sampled_from(["CT1", "XA1", "NM1"]), st.floats()), st.integers(1, 4))
def test_predictions_stay_within_what_was_seen_and_within_their_bound(
    moved: list[tuple[str, float]], loaded: dict[str, float], max_entries: int
) -> None:
    predictions, sane = Predictions(max_entries), [0.0]
    predictions.load(loaded)
    for calling_ae, count in moved:
        predictions.learn(calling_ae, count)
    sane += [count for count in (*loaded.values(), *(count for _, count in moved)) if 0 <= count <= 2**50]
    means = predictions.means()
    assert len(means) <= max_entries
    assert all(min(sane) <= mean <= max(sane) + 1 for mean in means.values())
    assert predictions.expected("NEVER") == (sum(means.values()) / len(means) if means else 0)
    assert predictions.take_changes().keys() <= means.keys()
    assert predictions.take_changes() == {}
