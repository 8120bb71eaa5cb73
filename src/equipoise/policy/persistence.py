"""Which node a client had: a bounded table in which an entry lives `ttl_s` from the start of the last connection."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network

from equipoise.policy.base import Client

MAX_ENTRIES = 65536  # a hospital's workstations many times over; 10 MB at the most


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


class PersistenceTable:
    """Key to node.  All times are of one monotonic clock, in seconds; the oldest entry leaves when it is full."""

    def __init__(self, ttl_s: float, max_entries: int = MAX_ENTRIES) -> None:
        self.ttl_s = ttl_s
        self._max_entries = max_entries
        self._entries: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def node_of(self, key: str, now_s: float) -> str | None:
        """Return the client's node, or None where it has none or its time is over."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        node, expires_s = entry
        if expires_s <= now_s:
            del self._entries[key]
            return None
        return node

    def keep(self, key: str, node: str, now_s: float) -> None:
        """Remember the node; the time starts anew."""
        self._put(key, node, now_s + self.ttl_s)

    def forget(self, key: str) -> None:
        """Drop an entry, if there is one: its node may not take work."""
        self._entries.pop(key, None)

    def entries(self, now_s: float) -> Iterator[tuple[str, str, float]]:
        """Yield key, node and seconds left of every entry that is alive, oldest first."""
        return ((key, node, end - now_s) for key, (node, end) in self._entries.items() if end > now_s)

    def merge(self, entries: Iterable[tuple[str, str, float]], now_s: float) -> None:
        """Take another table's entries: of two for a key the one that lives longer stays, of too many likewise."""
        for key, node, left_s in entries:
            own = self._entries.get(key)
            expires_s = now_s + min(left_s, self.ttl_s)
            if own is None or own[1] < expires_s:
                self._entries[key] = (node, expires_s)
        by_end = sorted(self._entries.items(), key=lambda item: item[1][1])
        self._entries = OrderedDict(by_end[-self._max_entries :])

    def _put(self, key: str, node: str, expires_s: float) -> None:
        self._entries[key] = (node, expires_s)
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
