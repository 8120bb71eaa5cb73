"""Ask every worker of HAProxy what it counts: the one that serves, and old ones that still have connections."""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace

from equipoise.base.errors import EngineError
from equipoise.engines.base import NodeCount, Observation
from equipoise.engines.haproxy import master
from equipoise.engines.haproxy.files import Files
from equipoise.engines.haproxy.runtime import Worker, ask, ask_worker
from equipoise.engines.haproxy.statistics import Row, Tally, refused, rows


class Counting:
    """What HAProxy counted so far; `serving` is the worker that was asked last."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._tally = Tally()
        self.serving: Worker | None = None

    async def observe(self, services: Collection[str], takes_part: Callable[[str], bool]) -> Observation:
        """Return what these services count; nodes that take no part are refused by nobody.  Raises: EngineError."""
        if not services:
            return Observation()
        mine, counted = await self._serving()
        observed = self._tally.take({mine.pid: counted, **await self._old()}, services)
        reasons = {key: reason for key, reason in refused(counted).items() if takes_part(key)}
        nodes = {key: _with_reason(count, reasons.get(key)) for key, count in observed.nodes.items()}
        return replace(observed, nodes=nodes)

    async def refused(self) -> dict[str, str]:
        """Return by "SERVICE/NODE" why HAProxy's own checks hold nodes to be down.  Raises: EngineError."""
        return refused((await self._serving())[1])

    async def _serving(self) -> tuple[Worker, list[Row]]:
        self.serving, lines = await ask_worker(self._files.worker_socket, "show stat")
        return self.serving, rows(lines)

    async def _old(self) -> dict[int, list[Row]]:
        """Return what old workers count; one that ends at this moment is left out."""
        counted: dict[int, list[Row]] = {}
        with suppress(EngineError):
            for pid in (await master.family(self._files)).old:
                with suppress(EngineError):
                    counted[pid] = rows(await ask(self._files.master_socket, f"@!{pid} show stat"))
        return counted


def _with_reason(count: NodeCount, reason: str | None) -> NodeCount:
    return count if reason is None else replace(count, refused=reason)
