"""Which node a client had: a bounded table in which an entry lives `ttl_s` from the start of the last connection.

Another machine may be told what is learned, and its table merged into this one: entries travel as key, node and seconds
left, because clocks of two machines differ.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from equipoise.policy.base import Client

MAX_ENTRIES = 65536  # a hospital's workstations many times over; 10 MB at the most
_TOLD_AGAIN_S = 1.0  # or a tenth of the time that an entry lives: so much of it the other machine may miss
_NEVER = float("-inf")


def persistence_key(by: str, client: Client, mask: int, mask6: int) -> str | None:
    """Return what stands for this client in the table, or None without persistence.

    Args:
        by: none, source_ip or calling_ae.
        client: Who asks.
        mask: Prefix length for IPv4 sources: 24 keeps a subnet together.
        mask6: The same for IPv6.
    """
    if by == "source_ip":
        address = ip_address(client.source_ip)
        length = mask if address.version == 4 else mask6
        if length == address.max_prefixlen:
            return client.source_ip
        return str(ip_network(f"{address}/{length}", strict=False))
    return client.calling_ae if by == "calling_ae" else None


class _Entry(NamedTuple):
    """`told_s` is the end that the other machine knows, or came with the entry from there."""

    node: str
    end_s: float
    told_s: float


class PersistenceTable:
    """Key to node.  All times are of one monotonic clock, in seconds; the oldest entry leaves when it is full."""

    def __init__(self, ttl_s: float, max_entries: int = MAX_ENTRIES) -> None:
        self.ttl_s = ttl_s
        self._told_again_s = max(_TOLD_AGAIN_S, ttl_s / 10)
        self._max_entries = max_entries
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._is_sorted = True  # but for so much as the other machine may miss
        self._newest_s = _NEVER  # no entry ends later
        self._news: dict[str, str] | None = None  # key to the node it had, while somebody wants to know

    def __len__(self) -> int:
        return len(self._entries)

    def node_of(self, key: str, now_s: float) -> str | None:
        """Return the client's node, or None where it has none or its time is over."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.end_s <= now_s:
            del self._entries[key]
            return None
        return entry.node

    def keep(self, key: str, node: str, now_s: float) -> None:
        """Remember the node; the time starts anew."""
        own, end_s = self._entries.get(key), now_s + self.ttl_s
        told_s = own.told_s if own is not None and own.node == node else _NEVER
        self._append(key, _Entry(node, end_s, told_s))
        if len(self._entries) > self._max_entries:
            self._drop_oldest()
        if end_s - told_s >= self._told_again_s:
            self._note(key, node)

    def forget(self, key: str) -> None:
        """Drop an entry, if there is one: its node may not take work."""
        if (own := self._entries.pop(key, None)) is not None:
            self._note(key, own.node)

    def entries(self, now_s: float) -> Iterator[tuple[str, str, float]]:
        """Yield key, node and seconds left of every entry that is alive, oldest first to within a tenth of its life."""
        self._sort()
        return ((key, own.node, own.end_s - now_s) for key, own in self._entries.items() if own.end_s > now_s)

    def youngest(self, now_s: float) -> Iterator[tuple[str, str, float]]:
        """Yield the same, youngest first."""
        self._sort()
        return ((key, own.node, own.end_s - now_s) for key, own in reversed(self._entries.items()) if own.end_s > now_s)

    def merge(self, entries: Iterable[tuple[str, str, float]], now_s: float) -> None:
        """Take another table's entries: of two for a key the one that lives longer stays, of too many likewise.

        One with no time left takes away what leads to its node.  Nothing of this is news.
        """
        for key, node, left_s in entries:
            own, end_s = self._entries.get(key), now_s + min(left_s, self.ttl_s)
            if left_s <= 0:
                self._drop_told(key, node)
            elif own is None or own.end_s < end_s:
                # What was just learned elsewhere is as good as in order; to sort for it would take 30 ms each time.
                self._is_sorted = self._is_sorted and end_s + self._told_again_s >= self._newest_s
                self._append(key, _Entry(node, end_s, end_s))
                self._forget_news(key)
        while len(self._entries) > self._max_entries:
            self._drop_oldest()

    def inherit(self, other: "PersistenceTable", now_s: float) -> None:
        """Take over all of the table that this one replaces, and what of it is still to be told."""
        self.merge(other.entries(now_s), now_s)
        self._news = other._news

    # What is told to another machine

    def record(self, *, on: bool) -> None:
        """Note from now on what is learned, or no more."""
        if on != (self._news is not None):
            self._news = {} if on else None

    def take_news(self, most: int, now_s: float) -> list[tuple[str, str, float]]:
        """Return what was learned and not yet taken, at most so many: key, node, seconds left; 0 where it is over."""
        news: list[tuple[str, str, float]] = []
        while self._news and len(news) < most:
            key = next(iter(self._news))
            node = self._news.pop(key)
            own = self._entries.get(key)
            if own is None or own.end_s <= now_s:
                news.append((key, node, 0.0))
            else:
                self._entries[key] = own._replace(told_s=own.end_s)
                news.append((key, own.node, own.end_s - now_s))
        return news

    # Inside

    def _note(self, key: str, node: str) -> None:
        if self._news is None:
            return
        self._news[key] = node
        if len(self._news) > self._max_entries:  # nobody took them for long: the whole table will be asked for
            del self._news[next(iter(self._news))]

    def _forget_news(self, key: str) -> None:
        if self._news is not None:
            self._news.pop(key, None)

    def _drop_told(self, key: str, node: str) -> None:
        if (own := self._entries.get(key)) is not None and own.node == node:
            del self._entries[key]
            self._forget_news(key)

    def _append(self, key: str, entry: _Entry) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        self._newest_s = max(self._newest_s, entry.end_s)

    def _drop_oldest(self) -> None:
        self._sort()
        self._entries.popitem(last=False)

    def _sort(self) -> None:
        if not self._is_sorted:
            self._entries = OrderedDict(sorted(self._entries.items(), key=lambda item: item[1].end_s))
            self._is_sorted = True
