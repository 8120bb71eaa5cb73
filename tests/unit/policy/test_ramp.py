from itertools import pairwise

import pytest

from equipoise.policy.ramp import ramped


@pytest.mark.parametrize(
    ("passed_s", "expected"), [(0, 10), (15, 55), (29.9, 99.7), (30, 100), (31, 100), (1e9, 100), (-5, 10)]
)
def test_a_tenth_at_first_and_all_of_it_at_the_end(passed_s: float, expected: float) -> None:
    assert ramped(100, passed_s, 30) == pytest.approx(expected)


def test_it_grows_evenly_and_never_back() -> None:
    weights = [ramped(7, second, 60) for second in range(61)]
    assert weights[-1] == 7
    assert all(after - before == pytest.approx(7 * 0.9 / 60) for before, after in pairwise(weights))


@pytest.mark.parametrize("passed_s", [0, 1])
def test_without_a_slow_start_it_is_whole_at_once(passed_s: float) -> None:
    assert ramped(100, passed_s, 0) == 100


def test_a_node_that_takes_no_work_takes_none_while_it_starts() -> None:
    assert ramped(0, 5, 30) == 0
