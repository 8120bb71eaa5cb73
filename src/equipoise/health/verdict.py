"""What follows from the results of a node's checks: up or down.  Pure: it is fed, and asks nobody.

The first result of a node that nothing is known of decides at once, so that a balancer that starts serves at once.
From then on `fall` failures in a row take the node down and `rise` passes in a row bring it back: one lost packet is
no outage, and one lucky answer is no recovery.
"""

from typing import Literal

Transition = Literal["up", "down"]


class Verdict:
    """The verdict of one node for one service.

    Args:
        rise: Passes in a row that bring a node that is down back up, at least 1.
        fall: Failures in a row that take a node that is up down, at least 1.
        up: What is known already, as from an earlier supervisor; None where nothing is.
    """

    __slots__ = ("_fall", "_in_a_row", "_last", "_rise", "_up")

    def __init__(self, rise: int, fall: int, up: bool | None = None) -> None:
        self._up = up
        self._last: bool | None = None
        self._in_a_row = 0
        self.adjust(rise, fall)

    @property
    def up(self) -> bool | None:
        """Whether the node is up; None before anything is known."""
        return self._up

    @property
    def in_a_row(self) -> int:
        """How many results in a row, up to the last one, were the same."""
        return self._in_a_row

    def adjust(self, rise: int, fall: int) -> None:
        """Take other limits; the verdict stays until the next result."""
        if rise < 1 or fall < 1:
            raise ValueError(f"{rise=}, {fall=}: both are at least 1")
        self._rise, self._fall = rise, fall

    def feed(self, ok: bool) -> Transition | None:
        """Take one result; return what changed with it, or None."""
        self._in_a_row = self._in_a_row + 1 if ok == self._last else 1
        self._last = ok
        if ok == self._up:
            return None
        if self._up is not None and self._in_a_row < (self._rise if ok else self._fall):
            return None
        self._up = ok
        return "up" if ok else "down"
