"""A conversation as a script: when this happens, the relay says that."""

from dataclasses import dataclass
from typing import Protocol

from equipoise.engines.gateway.relay import Blame, Command, Ended, Event, ToClient, ToNode


class Relay(Protocol):
    def start(self) -> list[Command]: ...

    def handle(self, event: Event, now_s: float) -> list[Command]: ...


@dataclass(frozen=True)
class Ends:
    """Stands for an `Ended` that says this word; its reason holds `reason`, and a node or tries are as given."""

    ended: str
    reason: str = ""
    node: str | None = None
    tried: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Blames:
    """Stands for a `Blame` of this kind whose reason holds `reason`."""

    kind: str
    reason: str = ""


class Playbook:
    """`when` an event comes, at a time in seconds that stays until the next one is given, `then` these commands."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._now_s = 0.0
        self._said: list[Command] = relay.start()
        self.record: Ended | None = None

    def when(self, event: Event, at: float | None = None) -> "Playbook":
        if at is not None:
            assert at >= self._now_s, "time does not run backwards"
            self._now_s = at
        self._said = self._relay.handle(event, self._now_s)
        return self

    def then(self, *expected: Command | Ends | Blames) -> None:
        said = [_readable(command) for command in self._said]
        wanted = [_readable(self._filled(one)) for one in expected]
        assert said == wanted, "\n".join(["the relay said", *map(str, said), "instead of", *map(str, wanted)])

    def _filled(self, wanted: Command | Ends | Blames) -> Command | str:
        """Return what was said where it fits, so that the comparison shows only what does not."""
        match wanted:
            case Ends():
                record = next((command for command in self._said if isinstance(command, Ended)), None)
                self.record = record or self.record
                return record if record is not None and _fits(record, wanted) else repr(wanted)
            case Blames(kind, reason):
                blame = next((command for command in self._said if isinstance(command, Blame)), None)
                return blame if blame and blame.kind == kind and reason in blame.reason else repr(wanted)
        return wanted


def _fits(record: Ended, wanted: Ends) -> bool:
    named = ((wanted.node, record.node), (wanted.tried, record.tried))
    same = all(one in (None, other) for one, other in named)
    return same and record.ended == wanted.ended and wanted.reason in record.reason


def _readable(command: Command | str) -> Command | str:
    """Return data as bytes, since a view of a buffer equals nothing that a script could hold."""
    match command:
        case ToClient(data):
            return ToClient(bytes(data))
        case ToNode(data):
            return ToNode(bytes(data))
    return command
