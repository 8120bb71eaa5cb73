"""All engines, told and asked as one; what one of them cannot do keeps no other from it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from equipoise.base.errors import EngineError
from equipoise.engines.base import Engine, Observation
from equipoise.plan.soft import SoftState
from equipoise.plan.states import NodeState, NodeStates


class Engines:
    """The engines of one instance.

    Args:
        engines: What carries traffic.
        last: What brings traffic here: it is changed when the others can carry it, and stopped when they have.  Among
            them who gives an address up comes before who may want it.
    """

    def __init__(self, engines: Sequence[Engine[Any]], last: Sequence[Engine[Any]] = ()) -> None:
        self._carrying, self._last = tuple(engines), tuple(last)
        self._engines = (*engines, *last)

    def __iter__(self) -> Iterator[Engine[Any]]:
        return iter(self._engines)

    @property
    def names(self) -> tuple[str, ...]:
        """What they are called."""
        return tuple(engine.name for engine in self._engines)

    @property
    def adopted(self) -> int:
        """How many processes were taken over."""
        return sum(engine.adopted for engine in self._engines)

    async def adopt(self) -> dict[str, NodeState]:
        """Take over what serves already; return the node states that it has.  Raises: EngineError."""
        states: dict[str, NodeState] = {}
        for engine in self._engines:
            states |= await engine.adopt()
        return states

    def prepare(self, states: NodeStates) -> None:
        """Have these node states ready for the first plan, telling nobody yet."""
        for engine in self._engines:
            engine.prepare(states)

    async def undo_start(self) -> None:
        """End what was started, leave alone what was adopted."""
        for engine in self._engines:
            await engine.undo_start()

    async def set_nodes(self, states: NodeStates) -> None:
        """Tell every engine.  Raises: EngineError for those that could not be told, when all others have been."""
        if failures := _said(await _failures(engine.set_nodes(states) for engine in self._engines)):
            raise EngineError(failures)

    async def observe(self) -> Observation:
        """Return what all have counted."""
        return sum(await asyncio.gather(*(engine.observe() for engine in self._engines)), Observation())

    async def watch(self) -> None:
        """Look whether what should run runs, and mend it."""
        await asyncio.gather(*(engine.watch() for engine in self._engines))

    async def fault(self) -> str | None:
        """Return why one of them cannot carry now what it should; None where all can."""
        found = await asyncio.gather(*(engine.fault() for engine in self._engines))
        return "; ".join(filter(None, found)) or None

    def share(self, tell: Callable[[SoftState], None] | None) -> None:
        """Have `tell` called with what they learn of clients and flows; None: with nothing more."""
        for engine in self._engines:
            engine.share(tell)

    async def merge(self, state: SoftState) -> None:
        """Have each take over what a peer knows, of its own tables.  Raises: EngineError, when all others have."""
        failures = []
        for engine in self._engines:
            theirs = {table: entries for table, entries in state.items() if table.startswith(f"{engine.name}/")}
            try:
                if theirs:
                    await engine.merge(theirs)
            except EngineError as error:
                failures.append(str(error))
        if failures:
            raise EngineError("; ".join(failures))

    def leave(self) -> None:
        """Let go: the processes serve on, and wait for the next supervisor."""
        for engine in self._engines:
            engine.leave()

    async def stop(self, drain_s: float) -> str | None:
        """Let open work go on for so long, end the rest, and every process; return what could not be ended in order.

        Whatever becomes of the others, what brings traffic here is stopped: nobody would serve it.
        """
        failures = await _failures(engine.stop(drain_s) for engine in self._carrying)
        failures += await _failures(engine.stop(drain_s) for engine in self._last)
        return _said(failures) or None

    def hurry(self) -> None:
        """Have a stop that is under way end at once."""
        for engine in self._engines:
            engine.hurry()


async def _failures(work: Iterable[Awaitable[None]]) -> list[BaseException]:
    """Do all of it, and return what of it failed."""
    return [each for each in await asyncio.gather(*work, return_exceptions=True) if isinstance(each, BaseException)]


def _said(failures: Sequence[BaseException]) -> str:
    """Return failures in words.  Raises: the first that is no EngineError, a bug."""
    for failure in failures:
        if not isinstance(failure, EngineError):
            raise failure
    return "; ".join(map(str, failures))
