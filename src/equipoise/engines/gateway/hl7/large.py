"""Who may read a long message now: all of it is held until a receiver has taken it, so only a few do at a time."""

from collections import deque
from typing import Protocol

LARGE_BYTES = 256 * 1024  # what every sender may have here of a message before it counts as long
MOST_AT_ONCE = 4  # long messages of a service; each may be as long as max_message


class Reader(Protocol):
    """A sender in the middle of a long message."""

    def read_on(self) -> None:
        """Go on reading."""


class Large:
    """The long messages of one service."""

    def __init__(self) -> None:
        self._reading: set[Reader] = set()
        self._waiting: deque[Reader] = deque()

    def enter(self, reader: Reader) -> bool:
        """Say whether a sender may read on; where not, it is called when it may."""
        if reader in self._reading:
            return True
        if len(self._reading) < MOST_AT_ONCE:
            self._reading.add(reader)
            return True
        if reader not in self._waiting:
            self._waiting.append(reader)
        return False

    def leave(self, reader: Reader) -> None:
        """Hear that a sender has nothing long here any more."""
        if reader in self._waiting:
            self._waiting.remove(reader)
        if reader not in self._reading:
            return
        self._reading.discard(reader)
        if self._waiting:
            following = self._waiting.popleft()
            self._reading.add(following)
            following.read_on()
