"""Callers of one service that wait for a node: addresses in turn, and of one address first come, first served.

In turn, so that a device that floods the service delays itself: of another address the first caller is next.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from equipoise.engines.gateway.driver import Association
from equipoise.engines.gateway.pool import Full
from equipoise.engines.gateway.relay import NoNode
from equipoise.policy.base import Client

MAX_WAITING = 1024  # callers in one queue; each holds a connection and its request
MAX_WAITING_PER_SOURCE = 256  # one address must not take the whole queue


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """One caller; `tried` are the nodes that it had already."""

    association: Association
    client: Client
    tried: tuple[str, ...]
    timer: asyncio.TimerHandle


Give = Callable[[Association, Client, tuple[str, ...]], Full | None]


class Queue:
    """The callers of one service that wait.

    Args:
        give: Answers a caller; returns why it has to wait, where it has to.
    """

    def __init__(self, give: Give) -> None:
        self._give = give
        self._waiting: dict[Association, str] = {}  # to its address
        self._sources: OrderedDict[str, dict[Association, _Waiting]] = OrderedDict()
        self._serving = self._serve_again = False

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, association: Association, client: Client, tried: tuple[str, ...], wait_s: float) -> None:
        """Answer a caller, in turn with those who came before."""
        if not self._waiting and self._give(association, client, tried) is None:
            return
        if (reason := self._no_place(client.source_ip)) is not None:
            association.event(NoNode(limit=True, reason=reason))
            return
        timer = asyncio.get_running_loop().call_later(wait_s, self._waited_enough, association, wait_s)
        self._waiting[association] = client.source_ip
        place = self._sources.setdefault(client.source_ip, {})
        place[association] = _Waiting(association, client, tried, timer)
        self.serve()  # those before it may wait for other nodes: they had the one that is free already

    def forget(self, association: Association) -> None:
        """Take a caller out: it was answered, or has ended."""
        source = self._waiting.pop(association, None)
        if source is None:
            return
        place = self._sources[source]
        place.pop(association).timer.cancel()
        if not place:
            del self._sources[source]

    def serve(self) -> None:
        """Give every caller that can have a node one.

        Giving may end an association, which frees a place and brings us here again: that is noted and not nested, for
        the queue is longer than Python's stack.
        """
        self._serve_again = True
        if self._serving:
            return
        self._serving = True
        try:
            while self._serve_again:
                self._serve_again = self._serve_each_source()
        finally:
            self._serving = False

    def _no_place(self, source_ip: str) -> str | None:
        if len(self._waiting) >= MAX_WAITING:
            return f"{MAX_WAITING} callers wait already"
        if len(self._sources.get(source_ip, ())) >= MAX_WAITING_PER_SOURCE:
            return f"{MAX_WAITING_PER_SOURCE} callers from {source_ip} wait already"
        return None

    def _serve_each_source(self) -> bool:
        """Answer one caller of each address; say whether another round may help."""
        self._serve_again = False
        for source in list(self._sources):
            if self._serve_source(source):
                break
        return self._serve_again

    def _serve_source(self, source: str) -> bool:
        """Answer the first caller of an address that can have a node; say whether all nodes are full."""
        for waiting in list(self._sources.get(source, {}).values()):
            if waiting.association not in self._waiting:
                continue  # it ended while an earlier one was served
            full = self._give(waiting.association, waiting.client, waiting.tried)
            if full is None:
                self._serve_again = True
                if source in self._sources:
                    self._sources.move_to_end(source)
                return False
            if not waiting.tried:
                return True  # every node is full, for all others, too
        return False

    def _waited_enough(self, association: Association, wait_s: float) -> None:
        waiting = self._sources[self._waiting[association]][association]
        full = self._give(association, waiting.client, waiting.tried)
        if full is None:
            return
        self.forget(association)
        association.event(NoNode(limit=True, reason=f"waited {wait_s:g} s: {full.reason}"))
