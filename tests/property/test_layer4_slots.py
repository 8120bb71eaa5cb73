from collections import Counter
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from equipoise.engines.layer4.slots import Share, filled
from equipoise.policy.base import PolicyKind
from equipoise.policy.catalogue import policies

COUNT = 60  # a cycle of most weights below, and quick
KINDS = st.sampled_from([policies()[name] for name in sorted(set(policies()) - {"least_work"})])
SHARES = st.lists(
    st.builds(Share, st.sampled_from("abcdef"), st.integers(1, 10), st.integers(0, 30)),
    min_size=1,
    unique_by=lambda share: share.name,
)
FIRST = st.integers(0, COUNT - 1)


@given(KINDS, SHARES, FIRST)
def test_every_slot_has_a_node_that_takes_work(kind: PolicyKind, shares: list[Share], first: int) -> None:
    slots = filled(kind, shares, COUNT, first)
    assert len(slots) == COUNT
    assert set(slots) <= {share.name for share in shares}
    assert filled(kind, shares, COUNT, first) == slots


@given(SHARES, FIRST)
def test_turns_are_never_further_from_the_weights_than_the_number_of_nodes(shares: list[Share], first: int) -> None:
    slots = filled(policies()["round_robin"], shares, COUNT, first)
    total = sum(Fraction(share.weight) for share in shares)
    for end in range(1, COUNT + 1):
        dealt = Counter(slots[:end])
        assert all(abs(dealt[share.name] - end * Fraction(share.weight) / total) < len(shares) for share in shares)


@given(SHARES, FIRST)
def test_least_connections_leaves_no_node_behind(shares: list[Share], first: int) -> None:
    """With all flows open: nobody got one while another had less for its weight with it."""
    slots = filled(policies()["least_connections"], shares, COUNT, first)
    now = {share.name: share.connections for share in shares}
    weights = {share.name: share.weight for share in shares}
    for name in [*slots[first:], *slots[:first]]:
        assert (now[name] + 1) / weights[name] <= min((now[each] + 1) / weights[each] for each in now) + 1e-9
        now[name] += 1


@given(SHARES.filter(lambda shares: len(shares) > 1), st.data())
def test_a_node_that_leaves_or_grows_moves_no_clients_of_the_others(shares: list[Share], data: st.DataObject) -> None:
    kind, changed = policies()["source_hash"], data.draw(st.sampled_from(shares))
    before = filled(kind, shares, COUNT)
    without = filled(kind, [share for share in shares if share is not changed], COUNT)
    assert all(was == now for was, now in zip(before, without, strict=True) if was != changed.name)
    grown = [Share(share.name, share.weight + (share is changed) * 5) for share in shares]
    after = filled(kind, grown, COUNT)
    assert all(now in (was, changed.name) for was, now in zip(before, after, strict=True))


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True), st.integers(1, 24))
def test_short_flows_go_round_among_equals(names: list[str], picks: int) -> None:
    """Slots are written anew before each flow, and each has ended before."""
    shares = [Share(name, 1) for name in names]
    for kind in ("round_robin", "least_connections"):
        dealt = Counter(filled(policies()[kind], shares, 24, first)[first] for first in range(picks))
        counts = [dealt[name] for name in names]
        assert max(counts) - min(counts) <= 1, kind
