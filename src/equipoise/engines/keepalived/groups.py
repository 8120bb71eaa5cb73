"""How the groups of addresses stand on this machine, and what is told when that changes."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from equipoise.plan.model import VipGroup
from equipoise.state.cluster_events import VipsLeft, VipsTaken
from equipoise.state.events import Event

UNKNOWN = "unknown"
# What keepalived writes to its FIFO: doc/samples/sample_notify_fifo.sh.
_STATES: Mapping[str, str] = {
    "MASTER": "master",
    "MASTER_RX_LOWER_PRI": "master",
    "MASTER_PRIORITY": "",
    "BACKUP": "backup",
    "BACKUP_PRIORITY": "",
    "FAULT": "fault",
    "STOP": UNKNOWN,
    "DELETED": UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class GroupNow:
    """How a group of addresses stands on this machine.

    Attributes:
        state: `master`, `backup`, `fault`, or `unknown` while keepalived does not run.
        since: Seconds since 1970.
        reason: Why it is so, for people.
        holds: Addresses of it that are on this machine, whatever the state says.
    """

    name: str
    state: str = UNKNOWN
    since: float = 0.0
    reason: str = "keepalived has not said anything yet"
    holds: tuple[str, ...] = ()


def notice(line: str) -> tuple[str, str] | None:
    """Return group and state of a line of the FIFO; None where it tells neither."""
    words = line.replace('"', "").split()
    if len(words) < 3 or words[0] != "INSTANCE":
        return None
    state = _STATES.get(words[2], "")
    return (words[1], state) if state else None


class Groups:
    """All groups of the plan."""

    def __init__(self) -> None:
        self._plan: dict[str, VipGroup] = {}
        self._now: dict[str, GroupNow] = {}

    @property
    def now(self) -> tuple[GroupNow, ...]:
        """How they stand."""
        return tuple(self._now.values())

    def state(self, name: str) -> str:
        """Return the state of one."""
        return self._now[name].state if name in self._now else UNKNOWN

    def plan(self, groups: Collection[VipGroup], at: float) -> None:
        """Follow these groups from now on; those that there were stand as they did."""
        self._plan = {group.name: group for group in groups}
        self._now = {name: self._now.get(name, GroupNow(name, since=at)) for name in self._plan}

    def restore(self, groups: Collection[GroupNow]) -> None:
        """Take what an earlier supervisor knew."""
        self._now = {group.name: group for group in groups}

    def change(self, name: str, state: str, at: float, reason: str) -> tuple[Event, ...] | None:
        """Take a new state; return what is to be told of it, or None where it is not new."""
        before = self._now.get(name)
        if before is None or before.state == state:
            return None
        self._now[name] = replace(before, state=state, since=at, reason=reason)
        hosts = tuple(each.host for each in self._plan[name].addresses) if name in self._plan else before.holds
        if state == "master":
            return (VipsTaken(group=name, addresses=hosts, reason=reason),)
        if before.state == "master":
            left = state if state in ("backup", "fault") else "fault"
            return (VipsLeft(group=name, addresses=hosts, state=left, reason=reason),)
        return ()

    def see(self, here: Collection[str]) -> bool:
        """Take which addresses are on this machine; return whether that is new."""
        before = self.now
        for name, group in self._plan.items():
            held = tuple(each.host for each in group.addresses if each.host in here)
            self._now[name] = replace(self._now[name], holds=held)
        return self.now != before

    def derive(self, anchored: Collection[str], at: float) -> bool:
        """Say of groups of which nothing is known what the anchors on this machine tell; return whether there are."""
        before = self.now
        for name, group in self._now.items():
            if group.state == UNKNOWN:
                state = "master" if name in anchored else "backup"
                reason = "found so when this supervisor began"
                self._now[name] = replace(group, state=state, since=at, reason=reason)
        return self.now != before
