"""HL7 messages under random faults: acknowledged ones are at a receiver, none goes twice or out of turn, none stays.

Receivers refuse, die with and without a message, are silent, answer something else; nodes are drained; senders die.
"""

from collections.abc import Callable
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.property.hl7_receivers import NAMES, Ward
from tests.unit.engines.hl7.scene import Site

LIMITS = (None, 1, 2)
SITES = st.fixed_dictionaries(
    {
        "key": st.sampled_from(["connection", "message", "sender", "patient", "patient"]),
        "balance": st.sampled_from(["first_up", "round_robin", "least_connections"]),
        "limit": st.sampled_from(LIMITS),
        "service_limit": st.sampled_from([None, None, 2]),
        "on_no_node": st.sampled_from(["close", "reject"]),
    }
)
SETTINGS = st.fixed_dictionaries({"receivers_deduplicate": st.booleans(), "try_next": st.booleans()})
HAPPENINGS: list[Callable[[Ward, int], None]] = [
    Ward.one_sends,
    Ward.one_sends,
    Ward.all_send,
    Ward.all_send,
    Ward.one_leaves,
    Ward.one_opens,
    Ward.one_opens,
    Ward.all_open,
    Ward.one_opens_slowly,
    Ward.one_opens_in_vain,
    Ward.one_is_refused,
    Ward.one_answers,
    Ward.one_answers,
    Ward.all_answer,
    Ward.all_answer,
    Ward.one_answers_early,
    Ward.one_says_something_else,
    Ward.one_is_lost,
    Ward.one_is_closed_unseen,
    Ward.one_ends,
    Ward.all_end,
    Ward.a_node_turns,
    Ward.a_node_returns,
    Ward.time_passes,
    Ward.time_passes,
]


@settings(max_examples=200, deadline=None)
@given(
    SITES,
    SETTINGS,
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 5039)), min_size=30, max_size=80),
)
def test_acknowledged_is_delivered_once_in_turn_and_nothing_stays(
    site: dict[str, Any],
    hl7: dict[str, Any],
    senders: int,
    history: list[tuple[Callable[[Ward, int], None], int]],
) -> None:
    ward = Ward(Site(NAMES, hl7=hl7, **site), senders)
    event(f"key {site['key']}")
    for happens, number in history:
        happens(ward, number)
        ward.holds()
        ward.replace_the_closed()
    ward.ends()
