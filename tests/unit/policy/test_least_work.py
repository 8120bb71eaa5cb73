from equipoise.policy.base import Client
from equipoise.policy.least_work import LeastWork
from tests.unit.policy.candidate import Candidate

CLIENT = Client("192.0.2.1", "CT1")


def test_one_large_study_is_more_work_than_five_small_ones() -> None:
    nodes = [Candidate("a", 100, connections=1, work=2e9), Candidate("b", 100, connections=5, work=15e7)]
    assert LeastWork().pick(nodes, CLIENT) == "b"


def test_work_is_divided_by_weight() -> None:
    assert LeastWork().pick([Candidate("a", 100, 0, 3e9), Candidate("b", 50, 0, 1.6e9)], CLIENT) == "a"
    assert LeastWork().pick([Candidate("a", 100, 0, 3e9), Candidate("b", 50, 0, 1.4e9)], CLIENT) == "b"


def test_the_heavier_of_two_idle_nodes_is_done_first() -> None:
    """With the new association counted in, both have the same work: its own."""
    assert LeastWork().pick([Candidate("small", 10, 0, 65536), Candidate("large", 100, 0, 65536)], CLIENT) == "large"


def test_with_equal_work_the_fewest_associations_decide() -> None:
    assert LeastWork().pick([Candidate("a", 100, 7, 1e9), Candidate("b", 100, 6, 1e9)], CLIENT) == "b"


def test_equals_take_turns() -> None:
    policy, nodes = LeastWork(), [Candidate(name, 1, 0, 65536) for name in "abc"]
    assert [policy.pick(nodes, CLIENT) for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]
