"""One plan and several engines that keep what they were given: all of them, or none."""

import asyncio
from collections.abc import Sequence

import pytest

from equipoise.app.converge import converge
from equipoise.app.wiring import catalogue
from equipoise.base.errors import ConfigError, EngineError
from equipoise.config.loading import load
from equipoise.engines.base import Observation, Refusal, SharesNothing
from equipoise.plan.model import Plan
from equipoise.plan.states import NodeState, NodeStates


def plan(digest: str) -> Plan:
    return Plan(site="x", services=(), gateway_workers=1, drain_timeout_s=30.0, digest=digest)


OLD, NEW = plan("old"), plan("new")
SITE = """site: x
services:
  ct:
    protocol: dicom
    mode: l7_snat
    listen: 127.0.0.1
    nodes: {a: {address: 127.0.0.2}}
"""


class Engine(SharesNothing):
    """It serves the digest of a plan; `refuses` and `fails` are those that it does not take."""

    def __init__(self, name: str, refuses: Sequence[str] = (), fails: Sequence[str] = ()) -> None:
        self.name = name
        self._refuses, self._fails = refuses, fails
        self.serves = ["old"]

    def render(self, plan: Plan) -> str:
        return plan.digest

    async def check(self, artifact: str) -> list[Refusal]:
        if artifact not in self._refuses:
            return []
        return [Refusal(f"{self.name} does not like it", ("services", "ct", "mode")), Refusal("nor this")]

    async def fault(self) -> str | None:
        return None

    async def apply(self, artifact: str) -> None:
        if artifact in self._fails:
            raise EngineError(f"{self.name} cannot serve {artifact}")
        self.serves.append(artifact)

    async def set_nodes(self, states: NodeStates) -> None: ...

    async def observe(self) -> Observation:
        return Observation()

    adopted = 0

    async def adopt(self) -> dict[str, NodeState]:
        return {}

    def prepare(self, states: NodeStates) -> None: ...

    async def undo_start(self) -> None: ...

    async def watch(self) -> None: ...

    def leave(self) -> None: ...

    async def stop(self, drain_s: float) -> None: ...

    def hurry(self) -> None: ...


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
    assert str(failure(*engines)) == "services.ct.mode: two does not like it; nor this"
    assert [engine.serves for engine in engines] == [["old"], ["old"]]


def test_what_is_refused_is_told_at_its_place_in_the_document() -> None:
    document = load(SITE, "site.yaml", catalogue())
    with pytest.raises(ConfigError) as found:
        asyncio.run(converge(NEW, OLD, [Engine("one", refuses=["new"])], document))
    assert str(found.value).splitlines() == [
        "site.yaml:5:11: services.ct.mode: one does not like it",
        "site.yaml:1:1: nor this",
    ]


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
