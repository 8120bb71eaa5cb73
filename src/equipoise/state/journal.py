"""The journal: every event as a line of JSON in the state directory, the newest in memory, and those who follow along.

Bounded: a file has 32 MiB and four older ones are kept; a follower that does not keep up is told how much it missed.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import msgspec

from equipoise.base.clock import Clock, rfc3339
from equipoise.state.events import Event

_FILE_BYTES = 32 << 20
_OLD_FILES = 4
_RECENT = 5000
_TAIL_BYTES = 4 << 20
_FOLLOWER_LINES = 10_000


class Journal:
    """One journal, written by one process.  Raises: OSError where its file cannot be opened."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._recent: deque[bytes] = deque(_tail(path), maxlen=_RECENT)
        self._file = path.open("ab")
        self._followers: set[_Follower] = set()
        self._broken = False

    def emit(self, event: Event) -> None:
        """Write an event of this process."""
        self.write([event.line(rfc3339(self._clock.wall()))])

    def write(self, lines: Iterable[bytes | msgspec.Raw]) -> None:
        """Write events that are JSON already, oldest first.  A full disk loses them on disk, not for followers."""
        for raw in lines:
            line = bytes(raw)
            self._recent.append(line)
            for follower in self._followers:
                follower.put(line)
            self._to_disk(line + b"\n")
        self._flush()

    def recent(self, limit: int) -> list[dict[str, Any]]:
        """Return the last events, newest last."""
        count = len(self._recent)
        return [msgspec.json.decode(self._recent[at]) for at in range(max(0, count - limit), count)]

    def follow(self) -> AsyncIterator[dict[str, Any]]:
        """Return what happens from this call on, until `close`."""
        follower = _Follower()
        self._followers.add(follower)
        return self._lines(follower)

    def close(self) -> None:
        """End: followers hear the end, the file is closed."""
        for follower in self._followers:
            follower.put(None)
        self._file.close()

    async def _lines(self, follower: "_Follower") -> AsyncIterator[dict[str, Any]]:
        try:
            while (line := await follower.get()) is not None:
                yield msgspec.json.decode(line)
        finally:
            self._followers.discard(follower)

    def _to_disk(self, line: bytes) -> None:
        if self._broken:
            return
        try:
            if self._file.tell() + len(line) > _FILE_BYTES:
                self._rotate()
            self._file.write(line)
        except OSError:
            self._broken = True  # the disk is full or gone; traffic matters more

    def _flush(self) -> None:
        try:
            self._file.flush()
            self._broken = False
        except OSError:
            self._broken = True

    def _rotate(self) -> None:
        self._file.close()
        for number in range(_OLD_FILES - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            if older.exists():
                older.replace(self._path.with_name(f"{self._path.name}.{number + 1}"))
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        self._file = self._path.open("ab")


class _Follower:
    """What one reader has not read yet."""

    def __init__(self) -> None:
        self._lines: deque[bytes | None] = deque()
        self._missed = 0
        self._filled = asyncio.Event()

    def put(self, line: bytes | None) -> None:
        if len(self._lines) >= _FOLLOWER_LINES:
            self._lines.popleft()
            self._missed += 1
        self._lines.append(line)
        self._filled.set()

    async def get(self) -> bytes | None:
        while not self._lines:
            self._filled.clear()
            await self._filled.wait()
        if self._missed:
            missed, self._missed = self._missed, 0
            return msgspec.json.encode({"kind": "events.missed", "count": missed})
        return self._lines.popleft()


def _tail(path: Path) -> list[bytes]:
    """Return the last whole lines of a journal; a line cut by a crash is left out."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    return [line for line in lines if line.startswith(b"{") and line.endswith(b"}")]
