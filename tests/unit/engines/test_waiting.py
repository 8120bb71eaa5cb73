"""The queue alone: who is next, who has to go, and that no caller is forgotten or told twice."""

import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from equipoise.engines.gateway.driver import Association
from equipoise.engines.gateway.pool import Full
from equipoise.engines.gateway.relay import Event, NoNode
from equipoise.engines.gateway.waiting import MAX_WAITING, MAX_WAITING_PER_SOURCE, Queue
from equipoise.policy.base import Client
from tests.unit.engines.running import eventually

LONG_S = 60.0


class Caller(Association):
    """Hears what the queue says, and does nothing else."""

    __slots__ = ("heard", "name", "source", "tried")

    def __init__(self, name: str, source: str = "192.0.2.1", tried: tuple[str, ...] = ()) -> None:
        self.name, self.source, self.tried = name, source, tried
        self.heard: list[Event] = []

    def event(self, event: Event) -> None:
        self.heard.append(event)

    @property
    def refusal(self) -> str:
        """Why it was sent away, in the one word that it heard."""
        (said,) = self.heard
        assert isinstance(said, NoNode)
        assert said.limit
        return said.reason


class Desk:
    """Nodes with so many places, by name, and the queue before them; `given` are the callers that got one."""

    def __init__(self, **places: int) -> None:
        self.places = places or {"a": 0}
        self.given: list[str] = []
        self.then: Callable[[Caller], None] = lambda caller: None
        self.queue = Queue(self.give)

    def give(self, association: Association, client: Client, tried: tuple[str, ...]) -> Full | None:
        free = [name for name, places in self.places.items() if places and name not in tried]
        if not free:
            return Full("both are full")
        self.places[free[0]] -= 1
        self.queue.forget(association)
        assert isinstance(association, Caller)
        self.given.append(association.name)
        self.then(association)
        return None

    def ask(self, *callers: Caller, wait_s: float = LONG_S) -> None:
        for caller in callers:
            self.queue.ask(caller, Client(caller.source, "CT"), caller.tried, wait_s)

    def free(self, places: int = 1, node: str = "a") -> None:
        self.places[node] += places
        self.queue.serve()


def crowd(count: int, source: str) -> list[Caller]:
    return [Caller(f"{source}#{number}", source) for number in range(count)]


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(scene())


def test_of_one_address_first_come_is_first_served() -> None:
    async def scene() -> None:
        desk = Desk(a=1)
        desk.ask(*[Caller(name) for name in "pqrs"])
        assert desk.given == ["p"]
        assert len(desk.queue) == 3
        desk.free()
        desk.free(2)
        assert desk.given == ["p", "q", "r", "s"]
        assert len(desk.queue) == 0

    run(scene)


def test_two_hundred_of_one_address_do_not_delay_the_first_of_another() -> None:
    async def scene() -> None:
        desk = Desk()
        desk.ask(*crowd(200, "192.0.2.66"))
        desk.ask(Caller("ct", "192.0.2.1"), Caller("mr", "192.0.2.2"), Caller("ct again", "192.0.2.1"))
        for _ in range(7):
            desk.free()
        assert desk.given == [
            "192.0.2.66#0",
            "ct",
            "mr",
            "192.0.2.66#1",
            "ct again",
            "192.0.2.66#2",
            "192.0.2.66#3",
        ]

    run(scene)


def test_many_places_at_once_go_round_as_well() -> None:
    async def scene() -> None:
        desk = Desk()
        desk.ask(*crowd(3, "x"), *crowd(2, "y"), *crowd(1, "z"))
        desk.free(6)
        assert desk.given == ["x#0", "y#0", "z#0", "x#1", "y#1", "x#2"]

    run(scene)


def test_one_address_has_a_bound_and_all_of_them_have_one() -> None:
    async def scene() -> None:
        desk = Desk()
        first = crowd(MAX_WAITING_PER_SOURCE + 2, "192.0.2.66")
        desk.ask(*first)
        assert len(desk.queue) == MAX_WAITING_PER_SOURCE == 256
        assert {each.refusal for each in first[256:]} == {"256 callers from 192.0.2.66 wait already"}
        assert not any(each.heard for each in first[:256])
        others = [each for number in range(3) for each in crowd(256, f"192.0.2.{number}")]
        desk.ask(*others)
        assert len(desk.queue) == MAX_WAITING == 1024
        late = Caller("late", "192.0.2.99")
        desk.ask(late)
        assert late.refusal == "1024 callers wait already"
        desk.queue.forget(first[100])
        desk.ask(one_more := Caller("one more", "192.0.2.99"))
        assert one_more.heard == []
        for each in [*first[:256], *others, one_more]:
            desk.queue.forget(each)
        assert len(desk.queue) == 0

    run(scene)


def test_who_ends_in_the_middle_is_not_served_and_costs_nobody_a_turn() -> None:
    async def scene() -> None:
        desk = Desk()
        callers = [Caller(name) for name in "pqr"]
        alone = Caller("alone", "192.0.2.2")
        desk.ask(*callers, alone)
        desk.queue.forget(callers[1])
        desk.queue.forget(callers[1])  # twice is once
        desk.queue.forget(alone)
        desk.free(4)
        assert desk.given == ["p", "r"]
        assert callers[1].heard == alone.heard == []

    run(scene)


def test_one_who_ends_while_an_earlier_one_is_served_is_passed_over() -> None:
    async def scene() -> None:
        desk = Desk()
        callers = [Caller(name) for name in "pqr"]
        desk.then = lambda caller: desk.queue.forget(callers[1])
        desk.ask(*callers)
        desk.free(3)
        assert desk.given == ["p", "r"]

    run(scene)


def test_ends_that_free_a_place_each_do_not_nest() -> None:
    """Each one's end serves the next: a thousand of them are more than Python's stack."""

    async def scene() -> None:
        desk = Desk()
        desk.then = lambda caller: desk.free()
        assert sys.getrecursionlimit() <= MAX_WAITING
        desk.ask(*[each for number in range(4) for each in crowd(256, f"192.0.2.{number}")])
        desk.free()
        assert len(desk.given) == MAX_WAITING
        assert len(set(desk.given)) == MAX_WAITING

    run(scene)


def test_one_who_asks_while_another_is_served_is_served_in_turn() -> None:
    async def scene() -> None:
        desk = Desk()
        desk.then = lambda caller: desk.ask(Caller("another")) if caller.name == "p" else None
        desk.ask(Caller("p"), Caller("q"))
        desk.free(3)
        assert desk.given == ["p", "q", "another"]

    run(scene)


def test_one_that_cannot_use_what_is_free_does_not_hold_up_the_others() -> None:
    """It had node a and waits for b; whoever waits, or comes, for the first time can have a."""

    async def scene() -> None:
        desk = Desk(a=0, b=0)
        desk.ask(Caller("had a", tried=("a",)), Caller("new"), Caller("of another", "192.0.2.2"))
        desk.free(2, "a")
        assert desk.given == ["new", "of another"]
        desk.places["a"] = 1
        desk.ask(Caller("came later"))
        assert desk.given[2:] == ["came later"]
        desk.free(1, "b")
        assert desk.given[3:] == ["had a"]

    run(scene)


def test_who_waited_long_enough_hears_for_what_and_the_others_wait_on() -> None:
    async def scene() -> None:
        desk = Desk()
        short, long = Caller("short"), Caller("long")
        desk.ask(short, wait_s=0.05)
        desk.ask(long)
        await eventually(lambda: short.heard, "its time is over")
        assert short.refusal == "waited 0.05 s: both are full"
        assert long.heard == []
        desk.free()
        assert desk.given == ["long"]

    run(scene)


def test_who_is_served_hears_nothing_when_its_time_would_be_over() -> None:
    async def scene() -> None:
        desk = Desk()
        served, gone, later = Caller("served"), Caller("gone"), Caller("later")
        desk.ask(served, gone, wait_s=0.05)
        desk.free()
        desk.queue.forget(gone)
        desk.ask(later, wait_s=0.06)  # timers go off in their order
        await eventually(lambda: later.heard, "a later one's time is over")
        assert served.heard == gone.heard == []

    run(scene)


@pytest.mark.parametrize("count", [1, 300])
def test_all_whose_time_is_over_at_once_are_told_once(count: int) -> None:
    async def scene() -> None:
        desk = Desk()
        callers = [Caller(str(number), f"192.0.2.{number % 3}") for number in range(count)]
        later = Caller("later", "192.0.2.9")
        desk.ask(*callers, wait_s=0.05)
        desk.ask(later, wait_s=0.06)
        await eventually(lambda: later.heard, "a later one's time is over")
        assert {each.refusal for each in callers} == {"waited 0.05 s: both are full"}
        assert len(desk.queue) == 0

    run(scene)
