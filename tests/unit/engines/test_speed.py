"""What is learnt of a node's speed, and what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.engines.gateway.speed import Speedometer

MB = 1_000_000


def measured(taken_mb: float, busy_s: float, seconds: int = 5) -> Speedometer:
    """Return the speedometer of a node that takes so much in each second, being busy for so long with it."""
    seen = Speedometer()
    seen.take_sample(0)
    for second in range(1, seconds + 1):
        seen.saw(round(taken_mb * MB), busy_s)
        seen.take_sample(second)
    return seen


def test_one_that_is_alone_shows_what_the_node_can() -> None:
    assert measured(20, 0.25).bytes_per_s == pytest.approx(80 * MB)


def test_several_that_share_the_node_show_it_together() -> None:
    assert measured(80, 7.5).bytes_per_s == pytest.approx(80 * MB)


def test_slow_senders_do_not_make_a_slow_node() -> None:
    ultrasound = measured(5, 0.02)
    assert ultrasound.share(250 * MB, 6) == 1


def test_a_little_says_nothing() -> None:
    assert measured(1, 0.9).bytes_per_s == 0
    assert measured(1, 0.9).share(500 * MB, 6) == 1


def test_speeds_are_steps_below_the_fastest() -> None:
    assert measured(160, 1).share(160 * MB, 6) == 1
    assert measured(150, 1).share(160 * MB, 6) == 1  # about equal
    assert measured(80, 1).share(160 * MB, 6) == pytest.approx(0.5)
    assert measured(20, 1).share(160 * MB, 6) == pytest.approx(0.125, rel=0.01)


def test_newer_samples_count_more() -> None:
    seen = measured(160, 1)
    for second in range(6, 16):
        seen.saw(40 * MB, 1)
        seen.take_sample(second)
    assert seen.bytes_per_s == pytest.approx(40 * MB, rel=0.1)


def test_what_is_known_fades() -> None:
    seen = measured(10, 1)
    assert seen.share(160 * MB, 6) == pytest.approx(1 / 16)
    assert seen.share(160 * MB, 600 + 6) == pytest.approx(1 / 4)
    assert seen.share(160 * MB, 7200) == 1


@given(st.floats(4, 500), st.floats(0.001, 50), st.floats(1, 500), st.floats(0, 1e5))
def test_a_speed_is_a_share(taken_mb: float, busy_s: float, faster: float, later_s: float) -> None:
    seen = measured(taken_mb, busy_s)
    assert 0 < seen.share(seen.bytes_per_s * faster, 6 + later_s) <= 1
