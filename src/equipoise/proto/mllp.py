"""Cut a byte stream into MLLP frames, and put content into one.  Leaves out what is inside them (`hl7.py`), and time.

Tolerant of what real senders do: anything between frames is skipped, and the CR behind a frame may be missing.  Never
so tolerant that a message is cut short, for a receiver might acknowledge its first half: within a frame only the end
bytes end it, or those without their CR where the next frame begins at once.
Source: HL7 "Transport Specification: MLLP, Release 1" (the frame) and "Release 2", sections 1.2.2.1 (content block)
and 1.2.2.2 (commit acknowledgement block).
"""

from dataclasses import dataclass

import msgspec

from equipoise.base.errors import PeerError
from equipoise.base.units import format_size

ACK = b"\x06"  # contents of the commit acknowledgement blocks of release 2
NAK = b"\x15"
_CHUNK_BYTES = 256 * 1024  # content of a frame that is still coming is frozen in pieces of this size


class FrameTooLongError(PeerError):
    """A peer sent more content in one frame than may be held; what it sent is named by whoever tells of it."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            f"is longer than max_message ({format_size(max_bytes)}); raise hl7.max_message, or see why it is that long"
        )


@dataclass(frozen=True, slots=True)
class Framing:
    """The bytes before and behind the content, at least one each."""

    start: bytes = b"\x0b"
    end: bytes = b"\x1c\r"

    def __post_init__(self) -> None:
        if not self.start or not self.end:
            raise ValueError(f"a frame starts with {self.start!r} and ends with {self.end!r}: at least a byte each")

    @classmethod
    def of(cls, start_hex: str, end_hex: str) -> "Framing":
        """Return the framing that the configuration writes in hexadecimal."""
        return cls(bytes.fromhex(start_hex), bytes.fromhex(end_hex))

    def wrap(self, content: bytes) -> bytes:
        """Return the whole frame."""
        return b"".join((self.start, content, self.end))

    @property
    def end_without_cr(self) -> bytes:
        """What senders write that forget the last CR; empty where that cannot be told from content."""
        return self.end[:-1] if self.end.endswith(b"\r") else b""


# A Struct, not a dataclass: one is made for every message, and it is made four times as fast.
class Frame(msgspec.Struct, frozen=True, gc=False):
    """The content of one frame, without its start and end.

    Attributes:
        chunks: At least one; content that came at once is one, else each but the last has about 256 KiB.
        size: Bytes in all.
    """

    chunks: tuple[bytes, ...]
    size: int

    @property
    def content(self) -> bytes:
        """All of it; costs its size again where it came in pieces."""
        return self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)

    @property
    def head(self) -> bytes:
        """The first chunk: at least the first 64 KiB where there are as many."""
        return self.chunks[0]


class FrameReader:
    """Take bytes as they come, give whole frames.

    Content is held once, in chunks, and looked at once, also where every byte comes alone.
    """

    __slots__ = (
        "_begun",
        "_carry",
        "_chunks",
        "_chunks_size",
        "_end",
        "_join",
        "_longest",
        "_mark",
        "_max_bytes",
        "_overhead",
        "_short",
        "_start",
        "_start_size",
        "_tail",
        "skipped",
    )

    def __init__(self, framing: Framing, max_bytes: int) -> None:
        """Read frames of at most `max_bytes` of content."""
        self._start, self._end, self._short = framing.start, framing.end, framing.end_without_cr
        # A start that holds a CR may be the end's own CR, so there only the silence of the sender tells.
        self._join = self._short + self._start if self._short and b"\r" not in self._start else b""
        self._mark = self._short if self._join else self._end  # both endings begin with it
        self._longest = max(len(self._end), len(self._join)) - 1  # of a pattern that is not whole yet
        self._start_size = len(self._start)
        self._overhead = len(self._start) + len(self._end)
        self._max_bytes = max_bytes
        self.skipped = 0  # bytes between frames that were dropped
        self._forget()

    def _forget(self) -> None:
        self._begun = False
        self._carry = b""  # the last bytes that came: they may be the first of a start or of an end
        self._chunks: list[bytes] = []
        self._chunks_size = 0
        self._tail = bytearray()  # content behind the chunks and before the carry

    @property
    def unfinished(self) -> int:
        """Bytes held of a frame that has begun, its start among them; 0 where none has."""
        return self._start_size + self._held if self._begun else 0

    @property
    def _held(self) -> int:
        return self._chunks_size + len(self._tail) + len(self._carry)

    @property
    def may_be_whole(self) -> bool:
        """Whether all but the end's last CR is here: with a silence behind it, `finish` takes it as whole."""
        return self._begun and bool(self._short) and self._carry.endswith(self._short)

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that this data completes, in order.

        Raises: FrameTooLongError; frames that the same data completed go with it, none of them was answered.
        """
        size = len(data) - self._overhead
        if (  # exactly one frame, as nearly always: 0.6 microseconds for 1 kB
            not self._begun
            and 0 <= size <= self._max_bytes
            and data.startswith(self._start)
            and data.find(self._mark, self._start_size) == size + self._start_size
            and data.endswith(self._end)
            and not self._carry
        ):
            return [Frame((data[self._start_size : size + self._start_size],), size)]
        return self._read(self._carry + data if self._carry else data)

    def finish(self) -> Frame:
        """Return the frame whose end has no CR; only where it `may_be_whole`.  Raises: FrameTooLongError."""
        if not self.may_be_whole:
            raise ValueError("no frame is held that lacks only the CR of its end")
        carry, self._carry = self._carry, b""
        return self._take(carry[: -len(self._short)])

    def _read(self, data: bytes) -> list[Frame]:
        self._carry = b""
        frames: list[Frame] = []
        position, nowhere = 0, len(data)
        end_at = join_at = -1 if self._mark in data else nowhere
        while True:
            position = position if self._begun else self._skip_to_start(data, position)
            if not self._begun:
                break
            end_at = _seek(data, self._end, position, end_at)
            join_at = _seek(data, self._join, position, join_at) if self._join else nowhere
            at = min(end_at, join_at)
            if at == nowhere:
                self._keep(data, position)
                break
            frames.append(self._take(data[position:at]))
            self._begun = join_at < end_at
            position = at + len(self._join if self._begun else self._end)
        return frames

    def _skip_to_start(self, data: bytes, position: int) -> int:
        """Return where content begins, and that it has begun; else the data's end, and carry what may be a start."""
        at = data.find(self._start, position)
        if at >= 0:
            self._begun = True
            self.skipped += at - position
            return at + self._start_size
        kept = _begins_with_end_of(data, position, (self._start,))
        self._carry = data[len(data) - kept :]
        self.skipped += len(data) - kept - position
        return len(data)

    def _keep(self, data: bytes, position: int) -> None:
        """Hold the content that stands from `position` on.  Raises: FrameTooLongError."""
        excess = self._held + len(data) - position - self._max_bytes
        if excess > 0 and excess > _begins_with_end_of(data, position, (self._end, self._join)):
            self._forget()
            raise FrameTooLongError(self._max_bytes)
        cut = max(position, len(data) - self._longest)
        self._carry = data[cut:]
        self._tail += memoryview(data)[position:cut]
        if len(self._tail) >= _CHUNK_BYTES:
            self._chunks.append(bytes(self._tail))
            self._chunks_size += len(self._tail)
            self._tail = bytearray()

    def _take(self, rest: bytes) -> Frame:
        """Return the frame whose content ends with `rest`, and hold nothing.  Raises: FrameTooLongError."""
        chunks, size = self._chunks, self._held + len(rest)
        if self._tail or rest or not chunks:
            chunks.append(bytes(self._tail) + rest if self._tail else rest)
        self._forget()
        if size > self._max_bytes:
            raise FrameTooLongError(self._max_bytes)
        return Frame(tuple(chunks), size)


def _seek(data: bytes, pattern: bytes, position: int, known: int) -> int:
    """Return where the pattern stands next, or the data's size; `known` is what the last call returned.

    Each pattern's search goes over the data once, however many frames the other one ends.
    """
    if known >= position:
        return known
    at = data.find(pattern, position)
    return at if at >= 0 else len(data)


def _begins_with_end_of(data: bytes, position: int, patterns: tuple[bytes, ...]) -> int:
    """Return how many of the last bytes, from `position` on, begin one of the patterns: the most that do."""
    longest = min(max(map(len, patterns)) - 1, len(data) - position)
    for size in range(longest, 0, -1):
        if any(pattern.startswith(data[-size:]) for pattern in patterns):
            return size
    return 0
