"""How groups stand, and what is told when that changes."""

import pytest

from equipoise.engines.keepalived.groups import GroupNow, Groups, notice
from equipoise.plan.model import ManagedAddress, VipGroup
from equipoise.state.cluster_events import VipsLeft, VipsTaken

PRIMARY = VipGroup("primary", 51, True, (ManagedAddress("10.0.0.100", "eth0"), ManagedAddress("fd00::100", "eth0")))
SECONDARY = VipGroup("secondary", 52, False, (ManagedAddress("10.0.0.101", "eth0"),))
HOSTS = ("10.0.0.100", "fd00::100")


@pytest.fixture
def groups() -> Groups:
    found = Groups()
    found.plan((PRIMARY, SECONDARY), 10.0)
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('INSTANCE "primary" MASTER 250', ("primary", "master")),
        ('INSTANCE "primary" MASTER_RX_LOWER_PRI 250', ("primary", "master")),
        ('INSTANCE "secondary" BACKUP 240', ("secondary", "backup")),
        ('INSTANCE "primary" FAULT 250', ("primary", "fault")),
        ('INSTANCE "primary" STOP 250', ("primary", "unknown")),
        ('INSTANCE "primary" MASTER_PRIORITY 250', None),
        ('INSTANCE "primary" SOMETHING_NEW 250', None),
        ('GROUP "all" MASTER 0', None),
        ("", None),
    ],
)
def test_lines_of_the_fifo(line: str, expected: tuple[str, str] | None) -> None:
    assert notice(line) == expected


def test_taking_and_leaving_are_told_with_addresses_and_reason(groups: Groups) -> None:
    assert groups.change("primary", "backup", 11.0, "it stands by") == ()
    assert groups.change("primary", "master", 12.0, "silence") == (
        VipsTaken(group="primary", addresses=HOSTS, reason="silence"),
    )
    assert groups.change("primary", "master", 13.0, "again") is None
    assert groups.now[0] == GroupNow("primary", "master", 12.0, "silence")
    assert groups.change("primary", "fault", 14.0, "link") == (
        VipsLeft(group="primary", addresses=HOSTS, state="fault", reason="link"),
    )
    assert groups.change("primary", "backup", 15.0, "well") == ()
    assert groups.change("tertiary", "master", 15.0, "") is None


def test_one_that_ends_with_addresses_has_left_them_for_a_fault(groups: Groups) -> None:
    groups.change("secondary", "master", 11.0, "")
    assert groups.change("secondary", "unknown", 12.0, "killed") == (
        VipsLeft(group="secondary", addresses=("10.0.0.101",), state="fault", reason="killed"),
    )


def test_another_plan_leaves_those_as_they_stand_that_it_names(groups: Groups) -> None:
    groups.change("primary", "master", 11.0, "silence")
    groups.plan((PRIMARY,), 20.0)
    assert groups.now == (GroupNow("primary", "master", 11.0, "silence"),)
    groups.plan((PRIMARY, SECONDARY), 30.0)
    assert groups.state("secondary") == "unknown"


def test_what_is_on_this_machine_is_seen_whatever_the_state_says(groups: Groups) -> None:
    assert groups.see({"fd00::100", "10.0.0.1"})
    assert not groups.see({"fd00::100"})
    assert [each.holds for each in groups.now] == [("fd00::100",), ()]


def test_anchors_tell_of_groups_of_which_nothing_is_known(groups: Groups) -> None:
    groups.change("primary", "fault", 11.0, "link")
    assert groups.derive({"primary", "secondary"}, 20.0)
    assert [each.state for each in groups.now] == ["fault", "master"]
    assert not groups.derive({"primary"}, 30.0)
