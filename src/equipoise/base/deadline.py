"""A deadline for others that does not run while this process stands still.

Where a machine is too busy to run us, or had us stopped, an answer may have come in time and was not read; the deadline
would be blamed on whoever sent it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_LOOK_EVERY_S = 0.25
_LAST_LOOK_S = 0.005  # before the end: of timers that are due, a loop runs the older first, then reads what has come
_STOOD_STILL_S = 0.1  # a loop that is this late did not run; less is the rest of its work
_MOST_ADDED = 3


@asynccontextmanager
async def deadline(within_s: float) -> AsyncIterator[asyncio.Timeout]:
    """End what is inside after so many seconds, as `asyncio.timeout` does.  Raises: TimeoutError.

    What this process stood still is added, three times at the most: one that is always late must end nevertheless.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(within_s) as limit:
        ends_s = loop.time() + within_s
        added = 0
        looks: asyncio.TimerHandle | None = None

        def look(due_s: float) -> None:
            nonlocal ends_s, added
            late_s = loop.time() - due_s
            if late_s > _STOOD_STILL_S and added < _MOST_ADDED and not limit.expired():
                ends_s, added = ends_s + late_s, added + 1
                limit.reschedule(ends_s)
            look_again()

        def look_again() -> None:
            nonlocal looks
            now_s = loop.time()
            due_s = min(now_s + _LOOK_EVERY_S, ends_s - _LAST_LOOK_S)
            looks = loop.call_at(due_s, look, due_s) if due_s > now_s else None

        look_again()
        try:
            yield limit
        finally:
            if looks is not None:
                looks.cancel()
