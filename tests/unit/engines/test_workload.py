from dataclasses import dataclass

import pytest

from equipoise.engines.gateway.workload import FLOOR_BYTES, Load, Workload


@dataclass(slots=True)
class Flow:
    """A traffic that the test moves."""

    bytes_in: int = 0
    bytes_out: int = 0
    busy_s: float = 0.0

    def taken(self) -> tuple[int, float]:
        return self.bytes_in, self.busy_s


def workload(*remaining: float) -> Workload:
    made = Workload()
    for each in remaining:
        made.add(Load(each, None))
    return made


def test_what_is_predicted_and_has_not_moved_remains() -> None:
    flow = Flow()
    load = Load(1e9, flow)
    assert load.remaining() == 1e9
    flow.bytes_in, flow.bytes_out = 300_000_000, 100_000_000
    assert load.remaining() == 6e8


def test_who_moves_more_than_was_predicted_will_move_a_third_more() -> None:
    flow = Flow(bytes_in=999_999_999)
    assert Load(1e9, flow).remaining() == pytest.approx(333_333_333)
    flow.bytes_in = 3_000_000_000
    assert Load(1e9, flow).remaining() == pytest.approx(1e9)


def test_an_open_association_is_never_nothing() -> None:
    assert Load(0, Flow()).remaining() == FLOOR_BYTES
    assert Load(0, None).remaining() == FLOOR_BYTES
    assert Load(5e6, None).remaining() == 5e6  # nobody says what it moves


def test_each_load_is_in_the_way_with_at_most_the_new_ones_size() -> None:
    one = workload(2e9, 30e6, 30e6, 30e6)
    assert one.in_the_way(30e6, 0) == 4 * 30e6
    assert one.in_the_way(1e6, 0) == 4e6
    assert one.in_the_way(5e9, 0) == 2e9 + 90e6


def test_comings_and_goings_count_at_once() -> None:
    one, load, other = Workload(), Load(1e9, None), Load(2e9, None)
    one.add(load)
    assert one.in_the_way(1e12, 0) == 1e9
    one.add(other)
    assert one.in_the_way(1e12, 0.001) == 3e9
    one.remove(load)
    one.remove(load)
    assert one.in_the_way(1e12, 0.002) == 2e9
    one.remove(other)
    assert one.in_the_way(1e12, 0.003) == 0
    assert len(one) == 0


def test_an_idle_node_has_exactly_nothing_to_do() -> None:
    one = Workload()
    loads = [Load(1e9 / 3 + number / 7, None) for number in range(100)]
    for load in loads:
        one.add(load)
    for load in reversed(loads):
        one.remove(load)
    assert one.in_the_way(1e12, 0) == 0


@pytest.mark.parametrize(("count", "every_s"), [(1, 0.05), (500, 0.05), (5000, 0.5)])
def test_a_pick_does_not_look_at_all_loads_each_time(count: int, every_s: float) -> None:
    flow, one = Flow(), Workload()
    for _ in range(count):
        one.add(Load(1e9, flow))
    assert one.in_the_way(1e12, 0) == count * 1e9
    flow.bytes_in = 5_000_000
    assert one.in_the_way(1e12, every_s * 0.99) == count * 1e9
    assert one.in_the_way(1e12, every_s) == pytest.approx(count * 0.995e9)


def test_a_load_leaves_with_what_it_counted_for() -> None:
    flow, one = Flow(), Workload()
    mine, other = Load(1e9, flow), Load(1e6, None)
    one.add(mine)
    one.add(other)
    flow.bytes_in = 600_000_000
    assert one.in_the_way(1e12, 0.2) == 4e8 + 1e6
    flow.bytes_in = 650_000_000  # not looked at yet
    one.remove(mine)
    assert one.in_the_way(1e12, 0.21) == 1e6
