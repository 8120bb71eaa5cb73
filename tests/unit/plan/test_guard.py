"""The guard: what takes away too much at once needs to be meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.base.errors import ConfigError
from equipoise.config.base import CheckParams
from equipoise.plan.guard import guard
from equipoise.plan.model import Dicom, Node, Persistence, Plan, Service


def plan(**pools: str) -> Plan:
    """Return a plan with a service for each keyword and a node for each letter of its value."""
    return Plan("here", tuple(service(name, letters) for name, letters in pools.items()), 1, 30, "0" * 12)


def service(name: str, letters: str) -> Service:
    nodes = tuple(Node(letter, "10.0.0.1", "10.0.0.1", None, 100, None, backup=False) for letter in letters)
    dicom = Dicom((), (), None, 2, 20, 30, 43200, 120, 131072)
    keep = Persistence("none", 1800, 32, 64)
    return Service(
        name, "dicom", "l7_snat", "gateway", (), "first_up", keep, CheckParams(), "tcp", nodes, (), None, 5, None, dicom
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (None, plan()),
        (plan(ct="ab", mr="ab"), plan(ct="ab")),  # half is not more than half
        (plan(ct="ab"), plan(ct="b")),
        (plan(ct="abcd"), plan(ct="abxy")),
        (plan(), plan(ct="a")),
    ],
)
def test_let_through(old: Plan | None, new: Plan) -> None:
    assert guard(old, new) is new


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (plan(ct="ab"), plan(), "1 of 1 services would vanish (ct)"),
        (plan(ct="a", mr="a", us="a"), plan(us="a", xa="a"), "2 of 3 services would vanish (ct, mr)"),
        (plan(ct="abc"), plan(ct="a"), "service 'ct' would lose 2 of its 3 nodes (b, c)"),
        (plan(ct="a"), plan(ct="b"), "service 'ct' would lose 1 of its 1 nodes (a)"),
    ],
)
def test_refused_with_names_and_a_way_out(old: Plan, new: Plan, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        guard(old, new)
    assert str(caught.value) == f"{said}: if that is meant, apply it with --force"
    assert guard(old, new, force=True) is new


def test_every_loss_is_named() -> None:
    with pytest.raises(ConfigError, match=r"service 'ct' would lose 3.*; service 'mr' would lose 1"):
        guard(plan(ct="abc", mr="a"), plan(ct="x", mr="x"))


@given(st.sets(st.sampled_from("abcdef"), min_size=1), st.sets(st.sampled_from("abcdef")))
def test_more_than_half_and_nothing_else(before: set[str], after: set[str]) -> None:
    old, new = plan(ct="".join(sorted(before))), plan(ct="".join(sorted(after)))
    if len(before - after) * 2 > len(before):
        with pytest.raises(ConfigError):
            guard(old, new)
    else:
        assert guard(old, new) is new
