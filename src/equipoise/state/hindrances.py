"""What keeps work from being done, said once: not again until it fails otherwise, or went well in between."""

from collections.abc import Callable

from equipoise.state.events import Event, TaskHindered


class Hindrances:
    """Those of one owner.

    Args:
        emit: Takes events.
    """

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._told: dict[str, str] = {}

    def say(self, task: str, reason: str | None) -> None:
        """Say why a task could not be done now; None: it was done."""
        if not reason:
            self._told.pop(task, None)
        elif self._told.get(task) != reason:
            self._told[task] = reason
            self._emit(TaskHindered(task=task, reason=reason))

    def why(self, task: str) -> str | None:
        """Return why a task could not be done when it was tried last; None where it was."""
        return self._told.get(task)
