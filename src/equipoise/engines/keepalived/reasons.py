"""Why addresses came or went, read from keepalived's log.

The log says causes and changes one by one; the last cause before a change is its reason.  Its texts are those of
2.2.7, with `--log-detail`, written in UTC.  A text that is not known leaves the reason to what we know ourselves.
"""

import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_LINE = re.compile(r"(?P<at>\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}): (?P<text>.*)")
_OF_GROUP = re.compile(r"\((?P<group>[a-z]+)\):? (?P<text>.*)")
_ENTERED = re.compile(r"[Ee]ntering (?P<state>MASTER|BACKUP|FAULT) (STATE|state)(?P<more>.*)")
_MOST_CHANGES = 64

# What a line says, by its beginning; `silence` weighs less than what came before it in the same wait.
_CAUSES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), cause)
    for pattern, cause in (
        (r"Backup received priority 0 advertisement", "given"),
        (r"Receive advertisement timeout", "silence"),
        (r"received lower priority \(\d+\) advert", "home"),
        (r"Master received advert from \S+ with higher priority", "yields"),
        (r"Master received advert from \S+ with same priority", "yields"),
        (r"tracked file fault now FAULT", "fault"),
        (r"tracked file give-\S+ now FAULT", "handed"),
        (r"tracked file \S+ leaving FAULT", "well"),
        (r"VRRP_Script\(gateway\) (failed|timed out)", "gateway"),
        (r"VRRP_Script\(haproxy\) (failed|timed out)", "haproxy"),
        (r"VRRP_Script\(\w+\) succeeded", "well"),
        (r"Netlink reports (?P<which>\S+) down", "interface"),
        (r"Netlink reports \S+ up", "well"),
        (r"Netlink reflector reports IP (?P<which>\S+) removed", "removed"),
        (r"VRRP child process\(\d+\) died", "died"),
        (r"Stopping", "stopped"),
    )
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something changed.

    Attributes:
        word: One of `_CAUSES`, or empty where nothing was said.
        which: The interface or the address that it is about.
    """

    word: str = ""
    which: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A state that a group entered, when (seconds since 1970) and why."""

    state: str
    at: float | None
    cause: Cause


class Causes:
    """What the log has said so far and nobody has asked for yet."""

    def __init__(self) -> None:
        self._last: dict[str, Cause] = {}
        self._of_all = Cause()
        self._used: set[str] = set()  # groups that changed since the cause of all was said
        self._changes: defaultdict[str, deque[Change]] = defaultdict(lambda: deque(maxlen=_MOST_CHANGES))

    def take(self, lines: Iterable[str]) -> None:
        """Read on."""
        for line in lines:
            if (found := _LINE.match(line)) is None:
                continue
            text, of_group = found["text"], _OF_GROUP.match(found["text"])
            if of_group is None:
                for cause in _causes(text):
                    self._take_for_all(cause)
                continue
            self._take(of_group["group"], of_group["text"], found["at"])

    def change(self, group: str, state: str) -> Change:
        """Return what is known of a change that keepalived has told."""
        changes = self._changes[group]
        while changes:
            if (change := changes.popleft()).state == state:
                return change
        return Change(state, None, self._pop(group))

    def _pop(self, group: str) -> Cause:
        of_all = Cause() if group in self._used else self._of_all
        self._used.add(group)
        return self._last.pop(group, of_all)

    def _take_for_all(self, cause: Cause) -> None:
        if (self._of_all.word, cause.word) == ("died", "well") and not self._used:
            return  # what runs again is well, and that is not why it was started
        self._of_all, self._last, self._used = cause, {}, set()

    def _take(self, group: str, text: str, at: str) -> None:
        if entered := _ENTERED.match(text):
            state, cause = entered["state"].lower(), self._pop(group)
            if more := re.search(r"interface (\S+) down", entered["more"]):
                cause = Cause("interface", more[1])
            self._changes[group].append(Change(state, _seconds(at), cause))
        for cause in _causes(text):
            if cause.word != "silence" or self._last.get(group, Cause()).word not in ("given", "home"):
                self._last[group] = cause


def _causes(text: str) -> Iterator[Cause]:
    for pattern, word in _CAUSES:
        if found := pattern.match(text):
            yield Cause(word, found.groupdict().get("which") or "")
            return


def _seconds(text: str) -> float | None:
    try:
        return datetime.strptime(text, "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def in_words(change: Change, before: str, peer: str, silence_ms: int, fault: str | None) -> str:
    """Return the reason of a change for people.

    Args:
        change: What the log says.
        before: The state until then.
        peer: The other machine's address.
        silence_ms: How long it may be silent.
        fault: Why we said that this machine cannot carry traffic.
    """
    which, silent = change.cause.which, f"no word from the peer ({peer}) for {silence_ms} ms"
    said = {
        "silence": silent,
        "given": f"the peer ({peer}) gave them up: it hands over, is stopped or cannot carry traffic",
        "home": "they are at home here (`cluster.preempt`)",
        "yields": f"the peer ({peer}) has them too, and is where they belong",
        "fault": fault or "this machine could not carry traffic",
        "handed": "handed over to the peer",
        "well": "this machine can carry traffic again" if before == "fault" else "it stands by",
        "gateway": "no gateway process runs",
        "haproxy": "no HAProxy runs",
        "interface": f"the interface {which} is down",
        "removed": f"something else took the address {which} away, so all of them are set up anew",
        "died": "keepalived was ended by something else, and started again",
        "stopped": "keepalived was stopped",
    }
    if change.cause.word in said:
        return said[change.cause.word]
    usual = {"master": silent, "backup": "it stands by", "fault": fault or "keepalived found a fault; see its log"}
    return usual.get(change.state, "keepalived was stopped")
