from collections import Counter
from itertools import pairwise

import pytest

from equipoise.policy.base import Client, Policy
from equipoise.policy.catalogue import policies
from tests.unit.policy.candidate import Candidate

CLIENT = Client("192.0.2.1", "CT1")


def make(name: str) -> Policy:
    return policies()[name].make()


def candidates(*weights: tuple[str, int], connections: int = 0) -> list[Candidate]:
    return [Candidate(name, weight, connections) for name, weight in weights]


def picks(policy: Policy, nodes: list[Candidate], count: int) -> list[str]:
    return [policy.pick(nodes, CLIENT) for _ in range(count)]


def test_the_catalogue_finds_the_policies_of_this_step() -> None:
    assert set(policies()) == {"round_robin", "least_connections", "least_work", "source_hash", "first_up"}
    assert all(name == kind.name for name, kind in policies().items())


def test_only_policies_that_spread_by_load_ramp() -> None:
    assert {name for name, kind in policies().items() if not kind.ramps} == {"source_hash", "first_up"}
    assert {name for name, kind in policies().items() if kind.weighs_work} == {"least_work"}


def test_each_service_has_a_memory_of_its_own() -> None:
    nodes = candidates(("a", 1), ("b", 1))
    one, other = make("round_robin"), make("round_robin")
    assert one.pick(nodes, CLIENT) == other.pick(nodes, CLIENT) == "a"


@pytest.mark.parametrize("weights", [(1, 1), (1, 1, 1), (3, 1), (5, 1, 1), (100, 50, 1), (7, 3)])
def test_round_robin_honours_weights_exactly_in_every_cycle(weights: tuple[int, ...]) -> None:
    names = "abc"[: len(weights)]
    nodes = candidates(*zip(names, weights, strict=True))
    policy = make("round_robin")
    for _ in range(3):
        assert Counter(picks(policy, nodes, sum(weights))) == dict(zip(names, weights, strict=True))


def test_round_robin_spreads_a_heavy_node_evenly() -> None:
    assert "".join(picks(make("round_robin"), candidates(("a", 5), ("b", 1), ("c", 1)), 7)) == "aabacaa"


def test_round_robin_gives_a_node_that_returns_no_burst() -> None:
    policy, both = make("round_robin"), candidates(("a", 1), ("b", 1))
    picks(policy, both, 3)
    picks(policy, both[:1], 1000)
    assert all(one != other for one, other in pairwise(picks(policy, both, 20)))


def test_round_robin_forgets_what_a_node_owed_when_its_weight_falls() -> None:
    policy = make("round_robin")
    picks(policy, candidates(("a", 100), ("b", 100)), 3)
    assert Counter(picks(policy, candidates(("a", 100), ("b", 1)), 2020))["b"] in range(18, 24)


def test_least_connections_takes_the_least_for_its_weight() -> None:
    policy = make("least_connections")
    assert policy.pick([Candidate("a", 1, 3), Candidate("b", 1, 2), Candidate("c", 1, 3)], CLIENT) == "b"
    assert policy.pick([Candidate("a", 100, 9), Candidate("b", 50, 5)], CLIENT) == "a"
    assert policy.pick([Candidate("a", 100, 10), Candidate("b", 50, 4)], CLIENT) == "b"


def test_least_connections_prefers_the_heavier_of_two_empty_nodes() -> None:
    assert make("least_connections").pick(candidates(("small", 1), ("large", 10)), CLIENT) == "large"


def test_least_connections_takes_turns_among_equals() -> None:
    policy, nodes = make("least_connections"), candidates(("a", 1), ("b", 1), ("c", 1))
    assert picks(policy, nodes, 6) == ["a", "b", "c", "a", "b", "c"]


def test_first_up_takes_the_first_of_the_configuration() -> None:
    policy = make("first_up")
    assert picks(policy, [Candidate("a", 1, 99), Candidate("b", 100, 0)], 3) == ["a", "a", "a"]
    assert policy.pick([Candidate("b", 100, 0)], CLIENT) == "b"
