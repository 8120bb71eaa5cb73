"""What keepalived says while it runs, made into how the groups stand, and into events with a reason."""

from collections.abc import Callable, Collection

from equipoise.base.clock import Clock
from equipoise.engines.keepalived.artifact import Artifact
from equipoise.engines.keepalived.files import Files
from equipoise.engines.keepalived.groups import UNKNOWN, GroupNow, Groups, notice
from equipoise.engines.keepalived.notices import Notices
from equipoise.engines.keepalived.reasons import Causes, Change, in_words
from equipoise.state.events import Event


class Story:
    """What became of the groups; `entered` is called each time that one entered another state.

    Attributes:
        on_change: Called each time that a group stands otherwise.
        fault: Why we said that this machine cannot carry traffic; None where it can.
        given_for: Why groups were given away last; empty for no particular reason.
    """

    def __init__(self, files: Files, clock: Clock, emit: Callable[[Event], None], entered: Callable[[], None]) -> None:
        self._files = files
        self._clock = clock
        self._emit = emit
        self._entered = entered
        self._groups = Groups()
        self._causes = Causes()
        self._notices = Notices(files.fifo, self._heard)
        self._artifact = Artifact()
        self._log_end = 0
        self._catching_up = self._must_guess = False
        self.on_change: Callable[[], None] = lambda: None
        self.fault: str | None = None
        self.given_for = ""

    @property
    def groups(self) -> tuple[GroupNow, ...]:
        """How they stand."""
        return self._groups.now

    def go_on(self) -> None:
        """Take over what an earlier supervisor knew; what it did not hear any more is heard when a plan comes."""
        if (kept := self._files.kept()) is not None:
            self._groups.restore(kept.groups)
            self._log_end = kept.log_end
        self._catching_up = self._must_guess = True

    def follow(self, artifact: Artifact) -> None:
        """Tell of these groups from now on."""
        self._artifact = artifact
        self._groups.plan(artifact.groups, self._clock.wall())

    def open(self) -> None:
        """Read what keepalived says, what it said meanwhile first.  Raises: EngineError."""
        self._notices.open()
        self._catching_up = False

    def read(self) -> None:
        """Read what it has said since."""
        self._notices.read()

    def close(self) -> None:
        """Read no more."""
        self._notices.close()

    def log_was_cut(self) -> None:
        """Read the log from its start."""
        self._log_end = 0
        self._files.keep(self.groups, 0)

    def see(self, here: Collection[str]) -> None:
        """Take which addresses are on this machine."""
        is_new = self._groups.see(here)
        if self._must_guess:
            self._must_guess = False
            anchored = [group for group, anchor in self._artifact.anchors.items() if anchor in here]
            is_new |= self._groups.derive(anchored, self._clock.wall())
        if is_new:
            self.on_change()

    def lost(self, reason: str) -> None:
        """Take that keepalived runs no more."""
        self.read()
        self._must_guess = False
        for group in self.groups:
            self._enter(group.name, UNKNOWN, self._clock.wall(), reason)

    def end(self, reason: str) -> None:
        """Take that it will not run again."""
        self.lost(reason)
        self._notices.close()
        self._groups.plan((), 0.0)
        self._log_end = self._files.log_end()
        self.fault, self.given_for = None, ""

    # Inside

    def _heard(self, lines: list[str]) -> None:
        said, self._log_end = self._files.log_since(self._log_end)
        self._causes.take(said)
        for line in lines:
            if (told := notice(line)) is not None:
                self._tell(*told)

    def _tell(self, name: str, state: str) -> None:
        change, now = self._causes.change(name, state), self._clock.wall()
        at = change.at if self._catching_up and change.at is not None else now
        self._enter(name, state, at, self._reason(name, change))

    def _reason(self, name: str, change: Change) -> str:
        if change.cause.word == "handed" and self.given_for:
            return self.given_for
        return in_words(change, self._groups.state(name), self._artifact.peer, self._artifact.silence_ms, self.fault)

    def _enter(self, name: str, state: str, at: float, reason: str) -> None:
        events = self._groups.change(name, state, at, reason)
        if events is None:
            return
        for event in events:
            self._emit(event)
        self._files.keep(self.groups, self._log_end)
        self._entered()
        self.on_change()
