from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from equipoise.plan.states import NodeState, Override, StateName, node_key, shown_state

OVERRIDES = st.none() | st.builds(Override, st.booleans(), st.booleans(), st.none() | st.integers(0, 1000))


@given(OVERRIDES, st.booleans())
def test_disabled_comes_before_drain_and_both_before_the_check(override: Override | None, up: bool) -> None:
    wanted: list[StateName] = ["up" if up else "down"]
    if override is not None and override.drain:
        wanted.append("drain")
    if override is not None and override.disabled:
        wanted.append("disabled")
    assert shown_state(override, up=up) == min(wanted, key=get_args(StateName).index)


@given(st.sampled_from(get_args(StateName)), st.integers(0, 1000))
def test_only_a_node_that_is_up_and_has_a_weight_takes_work(state: StateName, weight: int) -> None:
    assert NodeState(state, weight).takes_work == (state == "up" and weight > 0)


def test_a_node_is_named_as_operators_write_it() -> None:
    assert node_key("pacs-dicom", "pacs-a") == "pacs-dicom/pacs-a"
