"""The engine where there is nothing to manage; what it does with addresses: tests/system/test_addresses.py."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from equipoise.base.clock import SystemClock
from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.engines.addresses.render import Artifact
from equipoise.engines.addresses.runner import AddressesEngine
from equipoise.engines.base import Observation
from equipoise.state.events import Event, TaskHindered


class Alone:
    """An engine, what it said, and what it keeps."""

    def __init__(self, directory: Path) -> None:
        self.events: list[Event] = []
        self.failures: list[BaseException] = []
        self.record = directory / "addresses.json"
        tasks = Tasks(lambda _, error: self.failures.append(error))
        self.engine = AddressesEngine(Directories(directory, directory), tasks, SystemClock(), self.events.append)


@pytest.fixture
def alone(tmp_path: Path) -> Alone:
    return Alone(tmp_path)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_without_managed_addresses_nothing_is_looked_at_or_kept(alone: Alone) -> None:
    async def live() -> None:
        assert await alone.engine.adopt() == {}
        assert await alone.engine.check(Artifact()) == []
        await alone.engine.apply(Artifact())
        await alone.engine.set_nodes({})
        await alone.engine.watch()
        assert await alone.engine.observe() == Observation()
        assert alone.engine.adopted == 0
        await alone.engine.stop(30)

    run(live())
    assert (alone.events, alone.failures, alone.record.exists()) == ([], [], False)


def test_a_damaged_record_is_told_and_keeps_nobody_from_serving(alone: Alone) -> None:
    alone.record.write_text("{")

    async def live() -> None:
        assert await alone.engine.adopt() == {}
        await alone.engine.apply(Artifact())

    run(live())
    (event,) = alone.events
    assert isinstance(event, TaskHindered)
    assert event.task == "know which addresses are ours"


def test_once_it_was_let_go_nothing_is_applied(alone: Alone) -> None:
    async def live() -> None:
        alone.engine.leave()
        with pytest.raises(EngineError, match="is being stopped"):
            await alone.engine.apply(Artifact())

    run(live())
