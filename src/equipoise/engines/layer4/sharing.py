"""What a peer is told of clients and flows, and what is taken over from it.

Maps that packets fill are read several times a second, rarer where reading takes long, and what has changed is told;
what the peer says is written in transactions of bounded length.
Leaves out what is news and who is right (`ledger.py`), and flows whose client has ended its side: for their rest they
are not worth a look at a further map.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import islice

from equipoise.base.clock import Clock
from equipoise.base.errors import EngineError
from equipoise.base.tasks import Tasks
from equipoise.engines.base import MOST_SHARED
from equipoise.engines.layer4 import flow_keys
from equipoise.engines.layer4.artifact import Pool
from equipoise.engines.layer4.flow_keys import Form
from equipoise.engines.layer4.kernel import Kernel
from equipoise.engines.layer4.kernel_elements import MOST_CHANGES
from equipoise.engines.layer4.ledger import Change, Entry, Ledger
from equipoise.plan.soft import FLOWS, SoftEntry, SoftState, soft_table

_TICK_S = 0.25
_AFTER_FAILURE_S = 5.0
_LONGEST_PAUSE_S = 10.0  # what the peer does not know of yet is what a failure costs
_SHARE_OF_A_CORE = 0.5  # that looking may take: 10 000 flows take 0.04 s of it, 65 000 half a second
_MOST_ATTEMPTS = 40  # transactions that fail, in one merge: halves of halves, down to the elements that are to blame

Tell = Callable[[SoftState], None]


@dataclass(frozen=True, slots=True)
class SharedMap:
    """A map that packets fill: what a peer calls it, what its keys are, and which node each mark is."""

    table: str
    family: str
    name: str
    form: Form
    span_s: float
    nodes: Mapping[bytes, str]


def shared_maps(pools: Sequence[Pool]) -> tuple[SharedMap, ...]:
    """Return what of these pools a peer should know."""
    found = []
    for pool in pools:
        nodes = {member.mark.to_bytes(4, sys.byteorder): member.name for member in pool.members}
        for kind, name, span_s, forms in (  # clients first: of a flow that is not known, they know the node
            ("persist", pool.persists, pool.ttl_s, (flow_keys.CLIENT, flow_keys.CLIENT6)),
            (FLOWS, pool.flows, pool.idle_s, (flow_keys.FLOW, flow_keys.FLOW6)),
        ):
            if name:
                form = forms[name.startswith(f"{kind}6-")]
                table = soft_table("layer4", kind, pool.service)
                found.append(SharedMap(table, pool.family, name, form, span_s, nodes))
    return tuple(found)


class Sharing:
    """What one instance shares.

    Args:
        kernel: Has the maps.
        tasks: Runs the looks.
        clock: Time.
        writing: Is held for each transaction.
        wrote: Is called after each; blocks.
    """

    def __init__(
        self,
        kernel: Kernel,
        tasks: Tasks,
        clock: Clock,
        writing: AbstractAsyncContextManager[object],
        wrote: Callable[[], None],
    ) -> None:
        self._kernel = kernel
        self._tasks = tasks
        self._clock = clock
        self._writing = writing
        self._wrote = wrote
        self._shared: tuple[tuple[SharedMap, Ledger], ...] = ()
        self._lock = asyncio.Lock()  # one look, with what follows from it, at a time
        self._reading = threading.Lock()  # of ledgers: the thread of who was cancelled may still be at work
        self._tell: Tell | None = None
        self._looks: asyncio.Task[None] | None = None
        self._spent_s = 0.0  # of a core, by the last look

    def carry(self, pools: Sequence[Pool], *, anew: bool = False) -> None:
        """Share what is learned at these pools; `anew` where their maps may have been emptied: that tells nothing."""
        before = {(each.family, each.name, each.span_s): ledger for each, ledger in self._shared if not anew}
        self._shared = tuple(
            (each, before.get((each.family, each.name, each.span_s), Ledger(each.span_s)))
            for each in shared_maps(pools)
        )

    def share(self, tell: Tell | None) -> None:
        """Have `tell` called with what is learned from now on."""
        self._tell = tell
        if tell is None:
            self.leave()
        elif self._looks is None or self._looks.done():
            self._looks = self._tasks.spawn("layer4.share", self._follow())

    def leave(self) -> None:
        """Look no more."""
        if self._looks is not None:
            self._looks.cancel()
            self._looks = None

    async def everything(self) -> SoftState:
        """Return what packets have taught this machine, as far as it is still remembered.  Raises: EngineError."""
        async with self._lock:
            found: dict[str, tuple[SoftEntry, ...]] = {}
            for each, ledger in self._shared:
                await self._look(each, ledger)
                found[each.table] = await asyncio.to_thread(self._own, each, ledger)
        return {table: entries for table, entries in found.items() if entries}

    async def merge(self, state: SoftState) -> None:
        """Write what a peer knows into the maps.  Raises: EngineError."""
        async with self._lock:
            for each, ledger in self._shared:
                said = await asyncio.to_thread(_heard, each, state.get(each.table, ())[:MOST_SHARED])
                if said:
                    await self._look(each, ledger, said)

    async def _follow(self) -> None:
        """Look again and again; one map that cannot be read is left alone until the rules were mended."""
        while True:
            pause_s, self._spent_s = _TICK_S, 0.0
            try:
                async with self._lock:
                    for each, ledger in self._shared:
                        await self._look(each, ledger)
            except EngineError:
                pause_s = _AFTER_FAILURE_S
            await asyncio.sleep(max(pause_s, min(self._spent_s / _SHARE_OF_A_CORE, _LONGEST_PAUSE_S)))

    async def _look(self, each: SharedMap, ledger: Ledger, said: Sequence[Entry] = ()) -> None:
        """Read a map, tell what is new there, and write what the peer said.  Raises: EngineError."""
        news, changes = await asyncio.to_thread(self._compared, each, ledger, said)
        # That maps were emptied which are carried anew meanwhile is no news.
        if news and self._tell is not None and any(ledger is current for _, current in self._shared):
            self._tell({each.table: news})
        waiting = [changes[start : start + MOST_CHANGES] for start in range(0, len(changes), MOST_CHANGES)]
        attempts = _MOST_ATTEMPTS
        while waiting and attempts:
            part = waiting.pop(0)
            if await self._write(each, part):
                await asyncio.to_thread(self._note, ledger, part)
                continue
            attempts -= 1
            half = len(part) // 2
            waiting += [part[:half], part[half:]] if half else []

    def _compared(
        self, each: SharedMap, ledger: Ledger, said: Sequence[Entry]
    ) -> tuple[tuple[SoftEntry, ...], list[Change]]:
        """Return what is new in a map, and what to change for what the peer said."""
        with self._reading:
            now_s, began_s = self._clock.monotonic(), time.thread_time()
            seen, whole = self._kernel.elements(each.family, each.name, MOST_SHARED)
            news = tuple(_soft(each, ledger.look(seen, now_s, whole=whole)))
            changes = list(ledger.changes(said, seen, now_s))
            self._spent_s += time.thread_time() - began_s  # not by the clock: a busy machine need not look less often
            return news, changes

    def _own(self, each: SharedMap, ledger: Ledger) -> tuple[SoftEntry, ...]:
        with self._reading:
            return tuple(islice(_soft(each, ledger.own(self._clock.monotonic())), MOST_SHARED))

    def _note(self, ledger: Ledger, changes: Sequence[Change]) -> None:
        with self._reading:
            ledger.note(changes, self._clock.monotonic())

    async def _write(self, each: SharedMap, changes: Sequence[Change]) -> bool:
        """Change elements, all of these or none; return whether it was done.  Raises: EngineError."""
        async with self._writing:
            done = await asyncio.to_thread(self._kernel.change, each.family, each.name, changes)
            if done:
                await asyncio.to_thread(self._wrote)
        return done


def _soft(each: SharedMap, entries: Iterable[Entry]) -> Iterator[SoftEntry]:
    """Yield what a peer is told; what leads to a node that has left the plan is not."""
    for key, mark, left_s in entries:
        if (node := each.nodes.get(mark)) is not None:
            yield SoftEntry(flow_keys.said(each.form, key), node, left_s)


def _heard(each: SharedMap, said: Iterable[SoftEntry]) -> list[Entry]:
    """Return what the peer said that makes sense here, each key once; of several the last is right."""
    marks = {node: mark for mark, node in each.nodes.items()}
    found: dict[bytes, Entry] = {}
    for entry in said:
        mark, key = marks.get(entry.node), flow_keys.heard(each.form, entry.key)
        if mark is not None and key is not None and entry.left_s >= 0:
            found[key] = Entry(key, mark, entry.left_s)
    return list(found.values())
