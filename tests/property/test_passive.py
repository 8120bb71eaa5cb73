"""Passive health and workloads against definitions that remember everything and hurry nothing."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from equipoise.engines.gateway.member import Member
from equipoise.engines.gateway.passive import FailureKind, Passive
from equipoise.engines.gateway.workload import FLOOR_BYTES, Load, Workload
from equipoise.plan.model import Node, PassiveHealth
from equipoise.plan.states import NodeState
from equipoise.policy.base import Client

SETTINGS = PassiveHealth(failures=3, within_s=30, rest_s=10)
CT = Client("192.0.2.1", "CT1")
STEPS = st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=60)


@given(STEPS)
def test_a_node_is_rested_only_for_what_the_rule_counts(steps: list[tuple[int, bool]]) -> None:
    """One node.  The window may be up to a tenth shorter than `within_s`, so two sums enclose the truth."""
    passive, now_s, told = Passive(SETTINGS), 0.0, list[tuple[float, bool]]()
    rested_until, on_probation = 0.0, False
    for quarters, fails in steps:
        now_s += quarters / 4
        was_rested = now_s < rested_until
        told.append((now_s, fails))
        if not fails:
            passive.succeeded("a", now_s)
            if on_probation and not was_rested:
                on_probation, told = False, [(now_s, False)]
            continue
        rested = passive.failed("a", CT, FailureKind.REFUSED, "refused", now_s, may_rest=True)
        long = [failed for at_s, failed in told if at_s > now_s - 30]
        short = [failed for at_s, failed in told if at_s > now_s - 27]
        if was_rested:
            assert rested is None
        elif on_probation:
            assert rested is not None
        elif sum(long) < 3 or 2 * sum(long) < short.count(False):
            assert rested is None
        elif sum(short) >= 3 and 2 * sum(short) >= len(long):
            assert rested is not None
        if rested is not None:
            rested_until, on_probation, told = now_s + rested.rest_s, True, []
        assert passive.is_rested("a", now_s) is (now_s < rested_until)


ABORTS = st.lists(st.tuples(st.integers(0, 20), st.sampled_from("abc")), max_size=60)


@given(ABORTS)
def test_a_sender_aborted_at_two_nodes_leaves_no_rest_behind(aborts: list[tuple[int, str]]) -> None:
    passive, now_s, last = Passive(SETTINGS), 0.0, dict[str, float]()
    for quarters, node in aborts:
        now_s += quarters / 4
        passive.failed(node, CT, FailureKind.ABORTED, "aborted", now_s, may_rest=True)
        last[node] = now_s
        if sum(at_s > now_s - 30 for at_s in last.values()) > 1:
            assert not any(passive.is_rested(name, now_s) for name in "abc")


@dataclass(slots=True)
class Flow:
    bytes_in: int = 0
    bytes_out: int = 0
    busy_s: float = 0.0

    def taken(self) -> tuple[int, float]:
        return self.bytes_in, self.busy_s


MOVES = st.lists(
    st.tuples(st.sampled_from("nnmmr"), st.integers(0, 5), st.integers(0, 10**10), st.integers(0, 10**10)), max_size=60
)


@given(MOVES)
def test_what_is_in_the_way_is_at_most_a_fifth_more_than_by_definition(moves: list[tuple[str, int, int, int]]) -> None:
    """The definition remembers every load; each step is late enough to look at all of them again."""
    workload, now_s = Workload(), 0.0
    open_now: list[tuple[float, Flow, Load]] = []
    for what, which, size, own in moves:
        now_s += 0.051
        if what == "n":
            flow = Flow()
            open_now.append((float(size), flow, Load(float(size), flow)))
            workload.add(open_now[-1][2])
        elif what == "m" and open_now:
            open_now[which % len(open_now)][1].bytes_out += size
        elif what == "r" and open_now:
            workload.remove(open_now.pop(which % len(open_now))[2])
        remaining = [
            max(predicted - flow.bytes_out, flow.bytes_out / 3, FLOOR_BYTES) for predicted, flow, _ in open_now
        ]
        exactly = sum(min(each, own) for each in remaining)
        found = workload.in_the_way(own, now_s)
        assert exactly * (1 - 1e-9) <= found <= exactly * 1.21
        assert len(workload) == len(open_now)


@given(st.lists(st.floats(0, 100), max_size=20), st.floats(0.1, 60), st.integers(1, 256))
def test_a_ramp_never_falls_and_ends_at_the_weight(waits: list[float], slow_start_s: float, weight: int) -> None:
    member = Member(Node("a", "address", "192.0.2.9", 104, weight, None, False), NodeState("up", weight))
    member.ramp_from_s, now_s, before = 7.0, 7.0, 0.0
    for wait_s in waits:
        now_s += wait_s / 10
        still = member.ramp(now_s, slow_start_s)
        assert weight * 0.0999 <= member.weight <= weight * 1.0000001
        assert member.weight >= before
        assert still or member.weight == weight
        before = member.weight
    assert not member.ramp(8 + slow_start_s + now_s, slow_start_s)
    assert member.weight == weight
