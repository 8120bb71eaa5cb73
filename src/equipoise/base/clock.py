"""Time as a thing that is passed in, so that tests hold it still."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one for durations, one for people."""

    def monotonic(self) -> float:
        """Return seconds that only grow, from an unknown start."""

    def wall(self) -> float:
        """Return seconds since 1970 in UTC."""


class SystemClock:
    """The machine's clocks."""

    # CLOCK_MONOTONIC, the same for all processes of this machine.  No function of ours: it is asked for each message.
    monotonic = staticmethod(time.monotonic)

    def wall(self) -> float:
        """Return seconds since 1970 in UTC."""
        return time.time()


def rfc3339(wall_s: float) -> str:
    """Return a wall-clock time as RFC 3339 in UTC with milliseconds, `2031-03-04T05:06:07.123Z`."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
