"""A deadline counts the time in which this process ran; nothing is blamed on others that it slept through."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from equipoise.base.deadline import deadline

Act = Callable[[], Awaitable[None]]
LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
pytestmark = LOOPS


def play(new_loop: Callable[[], asyncio.AbstractEventLoop], act: Act) -> None:
    async def main() -> None:
        await act()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def stand_still(after_s: float, for_s: float) -> None:
    """Keep the loop from running, as a signal does that stops the process."""
    asyncio.get_running_loop().call_later(after_s, time.sleep, for_s)


def answer_after(after_s: float, answered: asyncio.Event) -> None:
    """Answer from outside, whether the loop runs or not."""
    threading.Timer(after_s, asyncio.get_running_loop().call_soon_threadsafe, (answered.set,)).start()


@pytest.mark.parametrize("still_s", [(0.05, 1.5), (0.45, 1.5), (0.2, 0.6)], ids=["early", "late", "middle"])
def test_an_answer_that_came_while_the_process_stood_still_is_in_time(
    new_loop: Callable[[], asyncio.AbstractEventLoop], still_s: tuple[float, float]
) -> None:
    async def act() -> None:
        answered = asyncio.Event()
        stand_still(*still_s)
        answer_after(still_s[0] + 0.1, answered)
        async with deadline(0.5):
            await answered.wait()

    play(new_loop, act)


def test_who_never_answers_has_the_time_and_no_more(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def act() -> None:
        began_s = time.monotonic()
        with pytest.raises(TimeoutError):
            async with deadline(0.6) as limit:
                await asyncio.Event().wait()
        assert limit.expired()
        assert 0.59 <= time.monotonic() - began_s < 5

    play(new_loop, act)


def test_a_loop_that_is_always_late_does_not_wait_for_ever(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def act() -> None:
        for number in range(40):
            stand_still(0.1 + number * 0.3, 0.29)
        began_s = time.monotonic()
        with pytest.raises(TimeoutError):
            async with deadline(1.0):
                await asyncio.Event().wait()
        assert 1.2 < time.monotonic() - began_s < 6

    play(new_loop, act)


def test_it_is_over_with_what_is_inside(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def act() -> None:
        async with deadline(0.3):
            pass
        with pytest.raises(ZeroDivisionError):
            async with deadline(0.3):
                raise ZeroDivisionError
        await asyncio.sleep(0.5)  # nobody is cancelled afterwards

    play(new_loop, act)
