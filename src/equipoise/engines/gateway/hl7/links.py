"""The connections of one service to its receivers: those that are free, and how many there are at each node."""

from collections.abc import Iterator

from equipoise.engines.gateway.hl7.link import Link


class Links:
    """All connections to nodes, those that are being opened or closed included."""

    def __init__(self) -> None:
        self._free: dict[tuple[str, int], list[Link]] = {}
        self._all: dict[str, set[Link]] = {}

    def __iter__(self) -> Iterator[Link]:
        return iter([link for links in self._all.values() for link in links])

    def __bool__(self) -> bool:
        return bool(self._all)

    def count(self, node: str) -> int:
        """Connections to a node."""
        return len(self._all.get(node, ()))

    def add(self, link: Link) -> None:
        """Count a connection that is about to be opened."""
        self._all.setdefault(link.node, set()).add(link)

    def gone(self, link: Link) -> None:
        """Forget a connection that is closed on both sides."""
        links = self._all.get(link.node, set())
        links.discard(link)
        if not links:
            self._all.pop(link.node, None)
        self._unfree(link)

    def take(self, node: str, port: int, control_id: bytes) -> Link | None:
        """Return a connection that is free and can be used, the one last used first; close those that cannot.

        One that may still bring an answer to another message of this control ID is of no use.
        """
        free = self._free.get((node, port), [])
        for place in range(len(free) - 1, -1, -1):
            if control_id in free[place].expects:
                continue
            link = free.pop(place)
            if link.is_usable():
                return link
            link.close()
        return None

    def free(self, link: Link, now_s: float) -> None:
        """Keep a connection for the next message."""
        link.used_s = now_s
        key = (link.node, link.port)
        links = self._free.get(key)
        if links is None:
            links = self._free[key] = []
        links.append(link)

    def make_room(self, node: str, limit: int | None) -> bool:
        """Say whether one more connection to a node may be opened; where not, close a free one of another port."""
        if limit is None or self.count(node) < limit:
            return True
        link = next((links[0] for (name, _), links in self._free.items() if name == node and links), None)
        if link is not None:
            self._unfree(link)
            link.part()
        return False

    def close_free(self, node: str | None = None, unused_since_s: float = float("inf")) -> None:
        """Close free connections: of one node or all, and of these the ones not used since."""
        for (name, _), links in list(self._free.items()):
            if node in (None, name):
                for link in [link for link in links if link.used_s < unused_since_s]:
                    links.remove(link)
                    link.part()

    def _unfree(self, link: Link) -> None:
        links = self._free.get((link.node, link.port), [])
        if link in links:
            links.remove(link)
        if not links:
            self._free.pop((link.node, link.port), None)
