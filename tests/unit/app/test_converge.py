"""One plan and several engines that keep what they were given: all of them, or none."""

import asyncio
from collections.abc import Sequence

import pytest

from equipoise.app.converge import converge
from equipoise.base.errors import EngineError
from equipoise.engines.base import Observation
from equipoise.plan.model import Plan
from equipoise.plan.states import NodeStates


def plan(digest: str) -> Plan:
    return Plan(site="x", services=(), gateway_workers=1, drain_timeout_s=30.0, digest=digest)


OLD, NEW = plan("old"), plan("new")


class Engine:
    """It serves the digest of a plan; `refuses` and `fails` are those that it does not take."""

    def __init__(self, name: str, refuses: Sequence[str] = (), fails: Sequence[str] = ()) -> None:
        self.name = name
        self._refuses, self._fails = refuses, fails
        self.serves = ["old"]

    def render(self, plan: Plan) -> str:
        return plan.digest

    async def check(self, artifact: str) -> list[str]:
        return [f"{self.name} does not like it", "nor this"] if artifact in self._refuses else []

    async def apply(self, artifact: str) -> None:
        if artifact in self._fails:
            raise EngineError(f"{self.name} cannot serve {artifact}")
        self.serves.append(artifact)

    async def set_nodes(self, states: NodeStates) -> None: ...

    async def observe(self) -> Observation:
        return Observation()


def turn(*engines: Engine, running: Plan | None = OLD) -> None:
    asyncio.run(converge(NEW, running, engines))


def failure(*engines: Engine, running: Plan | None = OLD) -> EngineError:
    with pytest.raises(EngineError) as found:
        turn(*engines, running=running)
    return found.value


def test_all_serve_it() -> None:
    engines = Engine("one"), Engine("two")
    turn(*engines)
    assert [engine.serves[-1] for engine in engines] == ["new", "new"]


def test_what_one_refuses_changes_none() -> None:
    engines = Engine("one"), Engine("two", refuses=["new"])
    assert str(failure(*engines)) == "two does not like it; nor this"
    assert [engine.serves for engine in engines] == [["old"], ["old"]]


def test_when_one_fails_all_go_back() -> None:
    engines = Engine("one"), Engine("two", fails=["new"]), Engine("three")
    assert str(failure(*engines)) == "two cannot serve new"
    assert [engine.serves[-1] for engine in engines] == ["old", "old", "old"]
    assert engines[0].serves == ["old", "new", "old"]


def test_one_that_cannot_even_go_back_does_not_keep_the_others_from_it() -> None:
    engines = Engine("one", fails=["old"]), Engine("two", fails=["new"])
    error = failure(*engines)
    assert error.__notes__ == ["taking the change back: one: one cannot serve old"]
    assert [engine.serves[-1] for engine in engines] == ["new", "old"]


def test_where_nothing_ran_nothing_is_taken_back() -> None:
    engines = Engine("one"), Engine("two", fails=["new"])
    failure(*engines, running=None)
    assert engines[0].serves == ["old", "new"]
