"""Simulated nodes, in a thread of this process: a fixture starts them, and ends them."""

import asyncio
import ssl
import threading
from concurrent.futures import Future

from equipoise.sim.http_server import Handler, HttpServer
from equipoise.sim.node_process import Server


class Running:
    """A server at work; `port` is where it listens."""

    def __init__(
        self, server: Server, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = server
        started: Future[int] = asyncio.run_coroutine_threadsafe(self._server.start(host, port, tls), self._loop)
        self.port = started.result(10)

    def close(self) -> None:
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.stop()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class RunningNode(Running):
    """A node that speaks HTTP."""

    def __init__(
        self, handler: Handler, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(HttpServer(handler), host, port, tls)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"
