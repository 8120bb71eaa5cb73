"""Apply one plan to every engine: all agree before one changes, and all go back when one fails."""

from collections.abc import Iterable, Sequence
from typing import Any

from equipoise.base.errors import ConfigError, EngineError, EquipoiseError
from equipoise.config.loading import Document
from equipoise.engines.base import Engine, Refusal
from equipoise.plan.model import Plan


async def converge(
    plan: Plan, running: Plan | None, engines: Iterable[Engine[Any]], document: Document | None = None
) -> None:
    """Apply one plan to every engine.

    Args:
        plan: What is to be in force.
        running: What is; None at a start.
        engines: Those that are to serve it.
        document: What the plan was made of: there the place is of what an engine refuses.

    Raises: ConfigError or EngineError, with `running` in force again; where there is none yet, nothing is taken back.
    """
    engines = tuple(engines)
    staged = await checked(plan, engines, document)
    try:
        for engine, artifact in staged:
            await engine.apply(artifact)
    except EngineError as error:
        if running is not None:
            await _take_back(running, engines, error)
        raise


async def checked(
    plan: Plan, engines: Iterable[Engine[Any]], document: Document | None = None
) -> list[tuple[Engine[Any], Any]]:
    """Return each engine with what the plan means to it; every one would take it.  Raises: ConfigError, EngineError."""
    staged = [(engine, engine.render(plan)) for engine in engines]
    for engine, artifact in staged:
        if refusals := await engine.check(artifact):
            raise _refused(refusals, document)
    return staged


def _refused(refusals: Sequence[Refusal], document: Document | None) -> EquipoiseError:
    if document is None or not any(each.path for each in refusals):
        return EngineError("; ".join(map(str, refusals)))
    return ConfigError([document.problem(each.message, *each.path) for each in refusals])


async def _take_back(running: Plan, engines: Sequence[Engine[Any]], error: EngineError) -> None:
    """Have every engine serve what it did, and add to the error what even that could not do."""
    for engine in engines:
        try:
            await engine.apply(engine.render(running))
        except EngineError as another:
            error.add_note(f"taking the change back: {engine.name}: {another}")
