"""What checks say of nodes: a change of verdict is an event.  Leaves out telling the engines."""

from collections.abc import Callable

from equipoise.app.nodes import NodeBook
from equipoise.health.asking import Outcome
from equipoise.health.runner import Target
from equipoise.plan.states import node_key
from equipoise.state.events import Event, NodeDown, NodeUp


class Verdicts:
    """The ear of the supervisor."""

    def __init__(self, nodes: NodeBook, emit: Callable[[Event], None]) -> None:
        self._nodes = nodes
        self._emit = emit

    def heard(self, target: Target, outcome: Outcome) -> bool:
        """Take a check's outcome; return whether it changes something for the engines."""
        key = node_key(target.service, target.node)
        change = self._nodes.heard(key, outcome)
        known = self._nodes.known(key)
        if change is None or known is None:
            return False
        place = {"service": target.service, "node": target.node, "check": known.service.check}
        if change == "up":
            self._emit(NodeUp(**place, reason=outcome.reason))
        elif change == "down":
            self._emit(NodeDown(**place, failures=known.verdict.in_a_row, reason=outcome.reason))
        return True
