"""How many clients a gateway holds, and can: each costs a descriptor, and one more for its node.

Those that are turned away hold one as well, until they have read why; only so many of them may.
"""

from dataclasses import dataclass, field
from typing import Protocol

SPARE_FILES = 128  # control sockets, clients that are being turned away, libraries
MAX_PARTING = 64  # clients that are turned away and have not gone: half the descriptors that the process has to spare


def room_for(max_files: int, listeners: int) -> int:
    """Return how many associations a process has descriptors for: two each, of what is left to them.

    A listener takes two: the socket that the supervisor handed over, and the copy that is listened on.

    >>> room_for(1024, listeners=3)
    445
    """
    return max(0, (max_files - SPARE_FILES - 2 * listeners) // 2)


class Parting(Protocol):
    """A client that is turned away."""

    def cut_off(self) -> None:
        """Wait no longer until it has gone."""


@dataclass(slots=True)
class Room:
    """Clients' connections of the whole process; `held` does not count those that are turned away."""

    limit: int
    held: int = 0
    _parting: dict[Parting, None] = field(default_factory=dict)

    def parts(self, client: Parting) -> None:
        """Wait until a client has gone; of too many the one that had longest for it is cut off."""
        self._parting[client] = None
        if len(self._parting) > MAX_PARTING:
            oldest = next(iter(self._parting))
            del self._parting[oldest]
            oldest.cut_off()

    def parted(self, client: Parting) -> None:
        """Hear that it has gone."""
        self._parting.pop(client, None)
