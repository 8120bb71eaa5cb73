"""What is known of one map that packets fill: what the peer was told of it, and what packets here have renewed.  Pure.

A look finds what the peer is to be told.  What the peer says gives way to what packets do here: a flow, or a client,
that was heard of here within the last seconds keeps its node, whatever the peer says of it.  And what is here only
because the peer said so is never said back.
Leaves out reading and writing (`sharing.py`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

# By key: the mark as the kernel has it, and the milliseconds left.
Seen = Mapping[bytes, tuple[bytes, int]]

_LIVE_S = 5.0  # a flow that carries anything is heard of more often
_SLACK_S = 1.0  # looks take time, so that what nobody renewed may seem to have a little more left
_NEVER_S = float("-inf")


class Entry(NamedTuple):
    """Where a key leads, and for how long; for 0 s where that is over."""

    key: bytes
    mark: bytes
    left_s: float


class Change(NamedTuple):
    """What is to be done to an element: it is to lead to `after` for so long; before it led to `before`."""

    key: bytes
    before: bytes | None
    after: bytes | None
    left_s: float


@dataclass(slots=True)
class _Known:
    """One element.

    Attributes:
        until_s: When its time was over when it was last renewed.
        told_s: When its time is over, as far as the peer knows.
        heard_s: When a packet here was last seen to have made or renewed it; never, where only the peer said so.
    """

    mark: bytes
    until_s: float
    told_s: float
    heard_s: float


class Ledger:
    """One map.

    Args:
        span_s: For how long an element is remembered after the last packet.
    """

    def __init__(self, span_s: float) -> None:
        self.span_s = span_s
        self._known: dict[bytes, _Known] = {}

    def look(self, seen: Seen, now_s: float, *, whole: bool = True) -> list[Entry]:
        """Take what is there now, and return what the peer is to be told.

        Args:
            seen: The elements.
            now_s: The time just before they were read.
            whole: Whether these are all, so that others are gone.
        """
        gone = self._known.keys() - seen.keys()
        over = list(self._ended(gone, now_s)) if whole else []
        for key in gone:
            del self._known[key]
        return [*over, *self._news(seen, now_s)]

    def own(self, now_s: float) -> Iterator[Entry]:
        """Yield what packets made or renewed here."""
        for key, known in self._known.items():
            if known.heard_s != _NEVER_S and known.until_s > now_s:
                yield Entry(key, known.mark, known.until_s - now_s)

    def changes(self, said: Iterable[Entry], seen: Seen, now_s: float) -> Iterator[Change]:
        """Yield what to change because the peer says so; what was `seen` has just been looked at."""
        for key, mark, left_s in said:
            before, left_ms = seen.get(key, (None, 0))
            lasts_s = min(left_s, self.span_s)
            if before is None:
                if lasts_s > 0:
                    yield Change(key, None, mark, lasts_s)
            elif lasts_s <= 0:
                if before == mark and not self._is_live(key, now_s):
                    yield Change(key, before, None, 0.0)
            elif before == mark:
                if lasts_s > left_ms / 1000 + _SLACK_S:
                    yield Change(key, before, mark, lasts_s)
            elif not self._is_live(key, now_s):
                yield Change(key, before, mark, lasts_s)

    def note(self, changes: Iterable[Change], now_s: float) -> None:
        """Take down that this was done: the peer knows it."""
        for key, before, after, left_s in changes:
            if after is None:
                self._known.pop(key, None)
                continue
            known, until_s = self._known.get(key), now_s + left_s
            heard_s = known.heard_s if known is not None and before == after else _NEVER_S
            self._known[key] = _Known(after, until_s, until_s, heard_s)

    def _news(self, seen: Seen, now_s: float) -> Iterator[Entry]:
        third_s = self.span_s / 3
        for key, (mark, left_ms) in seen.items():
            left_s = left_ms / 1000
            until_s = now_s + left_s
            known = self._known.get(key)
            if known is None or known.mark != mark:
                self._known[key] = _Known(mark, until_s, until_s, now_s)
                yield Entry(key, mark, left_s)
                continue
            if until_s > known.until_s + _SLACK_S:  # not at every look, so that steady small growth is seen
                known.until_s, known.heard_s = until_s, now_s
            elif until_s < known.until_s:
                known.until_s = until_s
            if until_s > known.told_s + third_s:
                known.told_s = until_s
                yield Entry(key, mark, left_s)

    def _ended(self, gone: Iterable[bytes], now_s: float) -> Iterator[Entry]:
        """Yield what packets ended here: what only ran out, the peer forgets by itself."""
        for key in gone:
            known = self._known[key]
            if known.heard_s != _NEVER_S and known.until_s > now_s + _SLACK_S:
                yield Entry(key, known.mark, 0.0)

    def _is_live(self, key: bytes, now_s: float) -> bool:
        known = self._known.get(key)
        return known is not None and now_s - known.heard_s < _LIVE_S
