from collections import Counter
from itertools import pairwise

import pytest

from equipoise.engines.layer4.slots import Share, filled, slot_count
from equipoise.policy.base import PolicyKind
from equipoise.policy.catalogue import policies
from tests.unit.engines.layer4.plans import plan_of

KINDS = policies()
RR, LEAST, HASH, FIRST = (KINDS[name] for name in ("round_robin", "least_connections", "source_hash", "first_up"))


def shares(*weights: float, connections: tuple[int, ...] = ()) -> list[Share]:
    counts = connections or (0,) * len(weights)
    return [Share(name, weight, count) for name, weight, count in zip("abcdefghijkl", weights, counts, strict=False)]


def nodes(number: int, balance: str) -> str:
    listed = ", ".join(f"n{i}: {{address: 10.0.0.{i + 1}}}" for i in range(number))
    return f"s: {{protocol: tcp, ports: [80], mode: l4_nat, listen: 10.0.1.1, balance: {balance}, nodes: {{{listed}}}}}"


@pytest.mark.parametrize(
    ("number", "slots"), [(1, 840), (2, 840), (3, 840), (8, 840), (9, 846), (11, 847), (200, 1000)]
)
def test_there_are_slots_enough_and_as_many_for_each_node(number: int, slots: int) -> None:
    (service,) = plan_of(nodes(number, "round_robin")).services
    assert slot_count(service) == slots


@pytest.mark.parametrize("number", [1, 7, 9, 11, 200])
def test_where_clients_are_hashed_the_number_of_slots_stays(number: int) -> None:
    """Another number would move nearly every client, whose hash is taken modulo it."""
    (service,) = plan_of(nodes(number, "source_hash")).services
    assert slot_count(service) == 840


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_nobody_to_take_work_fills_no_slot(kind: PolicyKind) -> None:
    assert filled(kind, [], 840, 17) == ()


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((1, 1), (420, 420)), ((3, 1), (630, 210)), ((1, 1, 1), (280,) * 3), ((100, 50, 60), (400, 200, 240))],
)
def test_turns_have_exact_shares(weights: tuple[float, ...], expected: tuple[int, ...]) -> None:
    for first in (0, 5, 839):
        assert Counter(filled(RR, shares(*weights), 840, first)) == dict(zip("abc", expected, strict=False))


def test_turns_are_interleaved() -> None:
    slots = filled(RR, shares(3, 1), 840)
    assert all(slots[i : i + 4].count("b") == 1 for i in range(837))
    assert all(one != other for one, other in pairwise(filled(RR, shares(1, 1), 840)))


def test_turns_go_on_where_slots_are_written_anew_after_every_pick() -> None:
    """As with a limit or a slow start, where that happens twice a second: nobody may be dealt every first one."""
    dealt = [filled(RR, shares(1, 1, 1), 840, first)[first] for first in range(60)]
    assert Counter(dealt) == {"a": 20, "b": 20, "c": 20}


def test_least_connections_evens_out_from_the_slot_whose_turn_it_is() -> None:
    slots = filled(LEAST, shares(1, 1, connections=(10, 4)), 840, 837)
    due = [*slots[837:], *slots[:837]]
    assert due[:6] == ["b"] * 6
    assert Counter(due[6:]) == {"a": 417, "b": 417}
    assert all(one != other for one, other in pairwise(due[6:]))


def test_least_connections_goes_by_weight() -> None:
    assert Counter(filled(LEAST, shares(3, 1), 840)) == {"a": 630, "b": 210}
    assert filled(LEAST, shares(3, 1, connections=(3, 0)), 840)[0] == "b"


def test_least_connections_takes_turns_among_nodes_that_are_idle_again_and_again() -> None:
    """Connections that end before the next look: each finds all nodes with none."""
    dealt = [filled(LEAST, shares(1, 1, 1), 840, first)[first] for first in range(60)]
    assert Counter(dealt) == {"a": 20, "b": 20, "c": 20}


def test_what_was_given_is_not_changed() -> None:
    given = shares(1, 1)
    filled(LEAST, given, 840)
    assert given == shares(1, 1)


def test_only_the_first_that_is_up() -> None:
    assert set(filled(FIRST, shares(1, 100), 840, 3)) == {"a"}


def test_a_hash_is_the_same_whoever_asks_and_whenever() -> None:
    slots = filled(HASH, shares(1, 1, 1), 840)
    assert filled(HASH, shares(1, 1, 1, connections=(5, 0, 9)), 840, 400) == slots
    assert filled(HASH, list(reversed(shares(1, 1, 1))), 840) == slots
    assert all(count == pytest.approx(280, abs=50) for count in Counter(slots).values())


def test_of_a_node_that_leaves_only_its_own_clients_move() -> None:
    before, after = filled(HASH, shares(1, 1, 1), 840), filled(HASH, shares(1, 1), 840)
    assert all(was == now for was, now in zip(before, after, strict=True) if was != "c")
    assert set(after) == {"a", "b"}


def test_a_weight_that_grows_moves_clients_to_that_node_alone() -> None:
    before, after = filled(HASH, shares(1, 1, 1), 840), filled(HASH, shares(1, 2, 1), 840)
    moved = [(was, now) for was, now in zip(before, after, strict=True) if was != now]
    assert 0 < len(moved) < 250
    assert {now for _, now in moved} == {"b"}
