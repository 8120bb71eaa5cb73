"""What is known of the peer: its last word, when it came, and why we do not reach it.

Leaves out the asking (`talking.py`).
"""

from msgspec.structs import replace

from equipoise.base.clock import Clock
from equipoise.cluster.messages import GroupSaid, Hello
from equipoise.cluster.revisions import History, Relation

SILENT_AFTER_S = 2.0  # four words missed in a row


class Peer:
    """The other machine, seen from here."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Know nothing: from now on it may be another machine."""
        self._heard_at_s, self._heard_at = float("-inf"), 0.0  # by the monotonic clock, and since 1970
        self.said: Hello | None = None
        self.connected_at: float | None = None  # since 1970
        self.problem: str | None = None  # of our last greeting; its own ones may come through all the same
        self.clock_off_s: float | None = None

    def hear(self, said: Hello) -> None:
        """Take note of a word of the peer."""
        if not self.is_connected:
            self.connected_at = self._clock.wall()
        self.said, self._heard_at = said, self._clock.wall()
        self._heard_at_s = self._clock.monotonic()
        self.clock_off_s = said.clock_s - self._heard_at

    def has(self, document: History) -> None:
        """Take note that it has this document since a moment ago, which it has not said yet."""
        if self.said is not None:
            self.said = replace(self.said, revision=document.revision, ancestors=document.ancestors)

    @property
    def heard_s(self) -> float:
        """How long ago it was heard."""
        return self._clock.monotonic() - self._heard_at_s

    @property
    def is_connected(self) -> bool:
        """Whether it was heard a moment ago."""
        return self.said is not None and self.heard_s < SILENT_AFTER_S

    @property
    def history(self) -> History | None:
        """Return its document's history, as far as it said."""
        return History(revision=self.said.revision, ancestors=self.said.ancestors) if self.said is not None else None

    def relation(self, ours: History) -> Relation | None:
        """Say how our document stands to the peer's; None where it never said."""
        return ours.relation(self.history) if self.history is not None else None

    def group(self, name: str) -> GroupSaid | None:
        """Return what it says of a group now; None where it is silent."""
        if self.said is None or not self.is_connected:
            return None
        return next((group for group in self.said.groups if group.name == name), None)

    def since(self, group: GroupSaid) -> float:
        """Return since when a group stands there as it says, seconds since 1970 by this machine's clock."""
        return self._heard_at - group.for_s

    def cannot_take(self, groups: tuple[str, ...]) -> str | None:
        """Return why it could not take these groups now; None where it could."""
        if self.said is None or not self.is_connected or self.problem is not None:
            return "it does not answer" + (f": {self.problem}" if self.problem else "")
        if self.said.stopping:
            return "it is being stopped"
        if self.said.fault is not None:
            return f"it cannot carry traffic: {self.said.fault}"
        for name in groups:
            group = self.group(name)
            if group is None or group.state not in ("backup", "master"):
                return f"its keepalived does not stand by for the addresses of the {name}"
        return None
