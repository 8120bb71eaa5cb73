"""All engines, told and asked as one; what one of them cannot do keeps no other from it."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from equipoise.base.errors import EngineError
from equipoise.engines.base import Engine, Observation
from equipoise.plan.states import NodeState, NodeStates


class Engines:
    """The engines of one instance."""

    def __init__(self, engines: Sequence[Engine[Any]]) -> None:
        self._engines = tuple(engines)

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
        told = await asyncio.gather(*(engine.set_nodes(states) for engine in self._engines), return_exceptions=True)
        failures = [each for each in told if isinstance(each, BaseException)]
        for failure in failures:
            if not isinstance(failure, EngineError):
                raise failure
        if failures:
            raise EngineError("; ".join(map(str, failures)))

    async def observe(self) -> Observation:
        """Return what all have counted."""
        return sum(await asyncio.gather(*(engine.observe() for engine in self._engines)), Observation())

    async def watch(self) -> None:
        """Look whether what should run runs, and mend it."""
        await asyncio.gather(*(engine.watch() for engine in self._engines))

    def leave(self) -> None:
        """Let go: the processes serve on, and wait for the next supervisor."""
        for engine in self._engines:
            engine.leave()

    async def stop(self, drain_s: float) -> None:
        """Let open work go on for so long, end the rest, and every process."""
        await asyncio.gather(*(engine.stop(drain_s) for engine in self._engines))

    def hurry(self) -> None:
        """Have a stop that is under way end at once."""
        for engine in self._engines:
            engine.hurry()
