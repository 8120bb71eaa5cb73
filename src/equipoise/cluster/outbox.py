"""Soft state that awaits the peer: the last word on each key, bounded, and whether all has to be told anew.

Clients go before flows, which are more, and shorter: of a flow that the peer was not told, the client knows the node.
"""

from collections.abc import Callable
from itertools import chain, islice

from equipoise.cluster.messages import SoftPush
from equipoise.plan.soft import SoftEntry, SoftState, is_of_flows

MOST_PENDING = 200_000  # while the peer is away; beyond that it is told all when it is back
MOST_AT_FIRST = 150_000  # of all that is known; the rest is for what is learned meanwhile
MOST_IN_A_PUSH = 5000  # some 400 kB

_Pending = dict[tuple[str, str], tuple[str, float]]  # by table and key: the node, and when it is forgotten


class Outbox:
    """What the peer was not told yet.

    Args:
        session: Of this supervisor.
        now_s: The monotonic clock, for the time that entries spend here.
    """

    def __init__(self, session: str, now_s: Callable[[], float]) -> None:
        self._session = session
        self._now_s = now_s
        self._clients: _Pending = {}
        self._flows: _Pending = {}
        self._number = 0
        self.whole = True  # whether the peer has to be told all, not just what is new
        self._is_first = True

    def __len__(self) -> int:
        return len(self._clients) + len(self._flows)

    def add(self, state: SoftState) -> None:
        """Have the peer told."""
        self._put(state)
        if len(self) > MOST_PENDING:
            self.restart()

    def restart(self) -> None:
        """Forget what awaits: the peer has to be told all."""
        self._clients, self._flows = {}, {}
        self.whole = True

    def begin(self, state: SoftState) -> None:
        """Have the peer told all of this, as far as there is room; what has come meanwhile is newer, and stays."""
        clients, flows = self._clients, self._flows
        self.restart()
        self.whole, self._is_first = False, True
        if sum(map(len, state.values())) > MOST_AT_FIRST:
            state = {table: entries[: MOST_AT_FIRST // len(state)] for table, entries in state.items()}
        self._put(state)
        self._clients |= clients
        self._flows |= flows

    def next_push(self) -> SoftPush | None:
        """Return what to say next and take it for said; None where there is nothing."""
        if not (self._clients or self._flows or self._is_first):
            return None
        now_s, tables = self._now_s(), dict[str, list[SoftEntry]]()
        for table, key in list(islice(chain(self._clients, self._flows), MOST_IN_A_PUSH)):
            node, until_s = self._waiting(table).pop((table, key))
            left_s = round(until_s - now_s, 3) if until_s else 0.0
            if left_s > 0 or not until_s:
                tables.setdefault(table, []).append(SoftEntry(key, node, left_s))
        first, self._is_first = self._is_first, False
        self._number += 1
        said = {table: tuple(entries) for table, entries in tables.items()}
        return SoftPush(session=self._session, number=self._number, tables=said, whole=first)

    def _put(self, state: SoftState) -> None:
        now_s = self._now_s()
        for table, entries in state.items():
            waiting = self._waiting(table)
            for entry in entries:
                waiting[table, entry.key] = entry.node, now_s + entry.left_s if entry.left_s > 0 else 0.0

    def _waiting(self, table: str) -> _Pending:
        return self._flows if is_of_flows(table) else self._clients


class Inbox:
    """Whether what the peer pushes follows on what it pushed before."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None

    def follows(self, push: SoftPush) -> bool:
        """Say whether nothing was lost before this one; after a gap nothing follows until all is told anew."""
        expected = push.whole or self._last == (push.session, push.number - 1)
        self._last = (push.session, push.number) if expected else None
        return expected
