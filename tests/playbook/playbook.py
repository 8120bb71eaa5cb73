"""A conversation as a script: when this happens, the relay says that."""

from dataclasses import dataclass
from typing import Protocol

from equipoise.engines.gateway.relay import Command, Ended, Event, ToClient, ToNode


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

    def then(self, *expected: Command | Ends) -> None:
        said = [_readable(command) for command in self._said]
        wanted = [_readable(self._filled(one) if isinstance(one, Ends) else one) for one in expected]
        assert said == wanted, "\n".join(["the relay said", *map(str, said), "instead of", *map(str, wanted)])

    def _filled(self, wanted: Ends) -> Command | str:
        """Return the record that was said where it fits, so that the comparison shows only what does not."""
        record = next((command for command in self._said if isinstance(command, Ended)), None)
        if record is None:
            return repr(wanted)
        self.record = record
        fits = record.ended == wanted.ended and wanted.reason in record.reason
        fits = fits and wanted.node in (None, record.node) and wanted.tried in (None, record.tried)
        return record if fits else repr(wanted)


def _readable(command: Command | str) -> Command | str:
    """Return data as bytes, since a view of a buffer equals nothing that a script could hold."""
    match command:
        case ToClient(data):
            return ToClient(bytes(data))
        case ToNode(data):
            return ToNode(bytes(data))
    return command
