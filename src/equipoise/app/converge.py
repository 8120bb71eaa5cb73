"""Apply one plan to every engine: all agree before one changes, and all go back when one fails."""

from collections.abc import Sequence
from typing import Any

from equipoise.base.errors import EngineError
from equipoise.engines.base import Engine
from equipoise.plan.model import Plan


async def converge(plan: Plan, running: Plan | None, engines: Sequence[Engine[Any]]) -> None:
    """Apply one plan to every engine.

    Raises: EngineError, with `running` in force again; where there is none yet, nothing is taken back.
    """
    staged = [(engine, engine.render(plan)) for engine in engines]
    for engine, artifact in staged:
        if problems := await engine.check(artifact):
            raise EngineError("; ".join(problems))
    try:
        for engine, artifact in staged:
            await engine.apply(artifact)
    except EngineError as error:
        if running is not None:
            await _take_back(running, engines, error)
        raise


async def _take_back(running: Plan, engines: Sequence[Engine[Any]], error: EngineError) -> None:
    """Have every engine serve what it did, and add to the error what even that could not do."""
    for engine in engines:
        try:
            await engine.apply(engine.render(running))
        except EngineError as another:
            error.add_note(f"taking the change back: {engine.name}: {another}")
