"""Event streams that stay open until the client or the server ends: one JSON document a line.

A stream that its client does not read is slowed by the transport; what waits behind it is the supervisor's to bound.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec


class Followers:
    """All streams that are open, so that the server can end them in an orderly way."""

    def __init__(self) -> None:
        self._waits: set[asyncio.Timeout] = set()
        self._released = False

    def release(self) -> None:
        """End every stream, now and from now on."""
        self._released = True
        for wait in self._waits:
            wait.reschedule(asyncio.get_running_loop().time())

    async def lines(
        self, recent: Sequence[dict[str, Any]], events: AsyncIterator[dict[str, Any]]
    ) -> AsyncIterator[bytes]:
        """Yield a line for each of `recent` and then for each of `events`."""
        for event in recent:
            yield _line(event)
        while (event_now := await self._next(events)) is not None:
            yield _line(event_now)

    async def _next(self, events: AsyncIterator[dict[str, Any]]) -> dict[str, Any] | None:
        if self._released:
            return None
        wait = asyncio.timeout(None)
        try:
            async with wait:
                self._waits.add(wait)
                return await anext(events, None)
        except TimeoutError:
            if wait.expired():
                return None
            raise
        finally:
            self._waits.discard(wait)


def _line(event: dict[str, Any]) -> bytes:
    return msgspec.json.encode(event) + b"\n"
