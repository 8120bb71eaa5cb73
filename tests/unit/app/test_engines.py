"""Several engines told and asked as one: what one of them cannot do keeps no other from it."""

import asyncio

import pytest

from equipoise.app.engines import Engines
from equipoise.base.errors import EngineError
from equipoise.engines.base import NodeCount, Observation, Refusal, SharesNothing
from equipoise.plan.model import Plan
from equipoise.plan.states import NodeState, NodeStates

STATES = {"web/a": NodeState("drain", 100)}


class Engine(SharesNothing):
    """It keeps what it was told, in order."""

    adopted = 1

    def __init__(self, name: str, failure: BaseException | None = None) -> None:
        self.name = name
        self.told: list[object] = []
        self._failure = failure

    def render(self, plan: Plan) -> str:
        return plan.digest

    async def check(self, artifact: str) -> list[Refusal]:
        return []

    async def fault(self) -> str | None:
        return None

    async def apply(self, artifact: str) -> None: ...

    async def set_nodes(self, states: NodeStates) -> None:
        await asyncio.sleep(0)
        if self._failure is not None:
            raise self._failure
        self.told.append(dict(states))

    async def observe(self) -> Observation:
        return Observation({f"{self.name}/a": NodeCount(connections=2)}, {self.name: 2})

    async def adopt(self) -> dict[str, NodeState]:
        return {f"{self.name}/a": NodeState("up", 100)}

    def prepare(self, states: NodeStates) -> None:
        self.told.append("prepared")

    async def undo_start(self) -> None:
        self.told.append("undone")

    async def watch(self) -> None:
        self.told.append("watched")

    def leave(self) -> None:
        self.told.append("left")

    async def stop(self, drain_s: float) -> None:
        if self._failure is not None:
            raise self._failure
        await asyncio.sleep(0)
        self.told.append(f"stopped in {drain_s:g} s")

    def hurry(self) -> None:
        self.told.append("hurried")


def test_one_that_cannot_be_told_keeps_no_other_from_it() -> None:
    deaf, other, also_deaf = Engine("deaf", EngineError("no answer")), Engine("other"), Engine("x", EngineError("gone"))
    with pytest.raises(EngineError, match="no answer; gone"):
        asyncio.run(Engines([deaf, other, also_deaf]).set_nodes(STATES))
    assert other.told == [STATES]


def test_one_that_does_not_stop_in_order_keeps_no_other_from_it_and_no_address_here() -> None:
    """Rules that another program has flushed, for example: the addresses must not stay where nobody serves."""
    stuck, other, addresses = Engine("stuck", EngineError("no such table")), Engine("other"), Engine("addresses")
    engines = Engines([stuck, other], last=[addresses])
    assert asyncio.run(engines.stop(3.0)) == "no such table"
    assert other.told == addresses.told == ["stopped in 3 s"]


def test_a_bug_is_not_hidden_and_keeps_no_address_here() -> None:
    addresses = Engine("addresses")
    engines = Engines(
        [Engine("one", EngineError("no answer")), Engine("two", ZeroDivisionError())],
        last=[addresses],
    )
    with pytest.raises(ZeroDivisionError):
        asyncio.run(engines.set_nodes(STATES))
    with pytest.raises(ZeroDivisionError):
        asyncio.run(engines.stop(3.0))
    assert addresses.told[-1] == "stopped in 3 s"


def test_what_they_have_and_count_is_put_together() -> None:
    engines = Engines([Engine("one"), Engine("two")])
    assert asyncio.run(engines.adopt()) == {"one/a": NodeState("up", 100), "two/a": NodeState("up", 100)}
    assert (engines.adopted, engines.names) == (2, ("one", "two"))
    observed = asyncio.run(engines.observe())
    assert observed.connections == {"one": 2, "two": 2}
    assert observed.nodes["two/a"].connections == 2


def test_each_hears_of_what_is_to_happen() -> None:
    parts = [Engine("one"), Engine("two")]
    engines = Engines(parts)

    async def scene() -> None:
        engines.prepare(STATES)
        await engines.watch()
        engines.leave()
        engines.hurry()
        assert await engines.stop(3.0) is None
        await engines.undo_start()

    asyncio.run(scene())
    for part in parts:
        assert part.told == ["prepared", "watched", "left", "hurried", "stopped in 3 s", "undone"]
