"""The real API over a real Unix socket, in a thread with its own event loop: commands are run beside it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from equipoise.api.server import ApiServer, serve
from tests.unit.api.fake_supervisor import FakeSupervisor

T = TypeVar("T")


class RunningApi:
    def __init__(self, socket: Path, supervisor: FakeSupervisor | None = None) -> None:
        self.socket = socket
        self.supervisor = supervisor or FakeSupervisor()
        self.bugs: list[tuple[str, BaseException]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: ApiServer | None = None

    def start(self) -> "RunningApi":
        self._thread.start()
        self._server = self._wait(serve(self.supervisor, self.socket, lambda *bug: self.bugs.append(bug)))
        return self

    def call(self, function: Callable[[], T]) -> T:
        """Call `function` in the supervisor's own loop."""

        async def called() -> T:
            return function()

        return self._wait(called())

    def close(self) -> None:
        if self._server is not None:
            self._wait(self._server.close())
            self._server = None
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
            self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
