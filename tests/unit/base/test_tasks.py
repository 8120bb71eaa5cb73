import asyncio

import pytest

from equipoise.base.tasks import Tasks


def test_a_failure_is_reported_with_its_name_and_others_go_on() -> None:
    async def fails() -> None:
        raise LookupError("gone")

    async def work() -> None:
        failures: list[tuple[str, str]] = []
        tasks, released = Tasks(lambda name, error: failures.append((name, str(error)))), asyncio.Event()

        async def waits() -> None:
            await released.wait()

        failing, waiting = tasks.spawn("broken", fails()), tasks.spawn("good", waits())
        await asyncio.wait([failing])
        assert failures == [("broken", "gone")]
        assert len(tasks) == 1
        released.set()
        await waiting
        assert len(tasks) == 0

    asyncio.run(work())


def test_cancelling_is_no_failure() -> None:
    async def work() -> None:
        failures: list[str] = []
        tasks = Tasks(lambda name, error: failures.append(name))
        tasks.spawn("long", asyncio.sleep(3600))
        await asyncio.sleep(0)
        await tasks.cancel_all()
        assert failures == []
        assert len(tasks) == 0

    asyncio.run(work())


def test_a_step_that_fails_is_done_again() -> None:
    async def work() -> None:
        failures, done = list[str](), asyncio.Event()

        async def step() -> None:
            if len(failures) == 3:
                done.set()
            raise RuntimeError("again")

        tasks = Tasks(lambda name, error: failures.append(f"{name}: {error}"))
        task = tasks.repeat("look", 0.001, step)
        await asyncio.wait_for(done.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert failures[:3] == ["look: again"] * 3

    asyncio.run(work())
