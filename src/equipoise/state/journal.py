"""The journal: every event as a line of JSON in the state directory, the newest in memory, and those who follow along.

Bounded: a file has 32 MiB and four older ones are kept; a follower that does not keep up is told how much it missed.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from weakref import WeakSet

import msgspec

from equipoise.base.clock import Clock, rfc3339
from equipoise.base.paths import append_to
from equipoise.state.events import Event

_FILE_BYTES = 32 << 20
_OLD_FILES = 4
_RECENT = 5000
_TAIL_BYTES = 4 << 20
_FOLLOWER_LINES = 10_000


class Follower:
    """What one reader has not read yet: iterate over it.  Ends with the journal, or with `aclose`.

    Args:
        most_lines: What waits for the reader at most; then the oldest are forgotten, and `events.missed` says how many.
        leave: Called at the end with the follower.
    """

    def __init__(self, most_lines: int, leave: Callable[["Follower"], None]) -> None:
        self._most_lines = most_lines
        self._leave = leave
        self._lines: deque[bytes] = deque()
        self._missed = 0
        self._ended = False
        self._filled = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while not self._lines and not self._ended:
            self._filled.clear()
            await self._filled.wait()
        if self._missed:
            missed, self._missed = self._missed, 0
            return {"kind": "events.missed", "count": missed}
        if not self._lines:
            self._leave(self)
            raise StopAsyncIteration
        event: dict[str, Any] = msgspec.json.decode(self._lines.popleft())
        return event

    async def aclose(self) -> None:
        """Read no more."""
        self._lines.clear()
        self._missed = 0
        self.end()
        self._leave(self)

    def put(self, line: bytes) -> None:
        """Have a line read."""
        if len(self._lines) >= self._most_lines:
            self._lines.popleft()
            self._missed += 1
        self._lines.append(line)
        self._filled.set()

    def end(self) -> None:
        """Have the reader hear the end after what waits for it."""
        self._ended = True
        self._filled.set()


class Journal:
    """One journal, written by one process.  Raises: OSError where its file cannot be opened.

    Args:
        path: The newest file; older ones are beside it, with `.1` to `.4` after the name.
        clock: Says when an event of this process happened.
        file_bytes: From this size on a new file is begun.
        follower_lines: What waits for one follower at most.
    """

    def __init__(
        self, path: Path, clock: Clock, *, file_bytes: int = _FILE_BYTES, follower_lines: int = _FOLLOWER_LINES
    ) -> None:
        self._path = path
        self._clock = clock
        self._file_bytes = file_bytes
        self._follower_lines = follower_lines
        tail = _tail(path)
        self._recent: deque[bytes] = deque(_whole_lines(tail), maxlen=_RECENT)
        self._file = append_to(path)
        self._followers: WeakSet[Follower] = WeakSet()  # weak: a reader that went away before it began says nothing
        self._broken = False
        if tail and not tail.endswith(b"\n"):  # cut by a crash: the next line must not be lost with it
            self._to_disk(b"\n")

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

    def follow(self) -> Follower:
        """Return what happens from this call on, until `close`."""
        follower = Follower(self._follower_lines, self._followers.discard)
        if self._file.closed:
            follower.end()
        self._followers.add(follower)
        return follower

    def close(self) -> None:
        """End: followers hear the end, the file is closed.  What comes after it is not kept on disk."""
        for follower in self._followers:
            follower.end()
        with suppress(OSError):  # the disk is full, and a part was not written yet
            self._file.close()

    def _to_disk(self, line: bytes) -> None:
        if self._broken or self._file.closed:
            return
        try:
            if self._file.tell() + len(line) > self._file_bytes:
                self._rotate()
            self._file.write(line)
        except OSError:
            self._broken = True  # the disk is full or gone; traffic matters more

    def _flush(self) -> None:
        if self._file.closed:
            return
        try:
            self._file.flush()
            self._broken = False
        except OSError:
            self._broken = True

    def _rotate(self) -> None:
        """Go on in a new file, or in the old one where that cannot be."""
        try:
            if self._path.exists():  # else it moved the last time, and only the new one could not be opened
                self._shift()
            fresh = append_to(self._path)
        except OSError:
            return
        old, self._file = self._file, fresh
        with suppress(OSError):
            old.close()

    def _shift(self) -> None:
        """Give each file the next number, up to the first that is free: tried again, it moves none twice."""
        files = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, _OLD_FILES + 1))]
        free = next((at for at, file in enumerate(files) if not file.exists()), _OLD_FILES)
        for at in range(free, 0, -1):
            files[at - 1].replace(files[at])


def _tail(path: Path) -> bytes:
    """Return the last bytes of a journal."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read(_TAIL_BYTES)
    except FileNotFoundError:
        return b""


def _whole_lines(content: bytes) -> list[bytes]:
    """Return the events in `content`; what a crash or a full disk cut is left out."""
    return [line for line in content.split(b"\n") if line.startswith(b"{") and _is_json(line)]


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except msgspec.DecodeError:
        return False
    return True
