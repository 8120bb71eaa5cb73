from equipoise.engines.haproxy.telling import Drains
from equipoise.plan.states import NodeState
from tests.unit.engines.haproxy.served import node_states


class Held:
    """A clock that stands still."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s


def test_a_drain_is_over_after_its_time() -> None:
    clock = Held()
    drains = Drains(clock)
    drains.see(node_states(a="drain", b="up"))
    assert (drains.over(30), drains.next_end_s(30)) == (frozenset(), 30)
    clock.now_s += 10
    drains.see(node_states(a="drain", b="drain"))
    assert drains.next_end_s(30) == 20
    clock.now_s += 20
    assert drains.over(30) == {"web/a"}
    assert drains.next_end_s(30) == 10
    assert drains.over(5) == {"web/a", "web/b"}


def test_a_node_that_came_back_begins_anew() -> None:
    clock = Held()
    drains = Drains(clock)
    drains.see(node_states(a="drain"))
    clock.now_s += 29
    drains.see({"web/a": NodeState("up", 1)})
    drains.see(node_states(a="drain"))
    clock.now_s += 29
    assert not drains.over(30)


def test_a_drain_that_was_over_before_us_stays_over() -> None:
    drains = Drains(Held())
    drains.adopt(["web/a", "web/b"])
    drains.see(node_states(a="drain", b="up"))
    assert drains.over(30) == {"web/a"}
    drains.see(node_states(a="drain", b="drain"))
    assert drains.over(30) == {"web/a"}, "b has served in between"
    assert drains.next_end_s(30) == 30
