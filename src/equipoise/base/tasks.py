"""Background work that is never lost: each task has a name, an owner, and an end that somebody hears of."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

OnFailure = Callable[[str, BaseException], None]


class Tasks:
    """The tasks of one owner.

    A task that ends with an exception is reported to `on_failure(name, exception)`; that is always a bug, so the
    report is loud and the other tasks go on.
    """

    def __init__(self, on_failure: OnFailure) -> None:
        self._on_failure = on_failure
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, name: str, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Start `work` and return its task, so that it can be cancelled."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def repeat(self, name: str, interval_s: float, step: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run `step` again and again, `interval_s` seconds between ends and starts; one that fails is reported."""

        async def forever() -> None:
            while True:
                try:
                    await step()
                except Exception as failure:  # noqa: BLE001 the one place where any failure is caught: a task's end
                    self._on_failure(name, failure)
                await asyncio.sleep(interval_s)

        return self.spawn(name, forever())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._on_failure(task.get_name(), failure)

    async def cancel_all(self) -> None:
        """Cancel what runs and wait for it to end."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
