"""uvicorn's server as a part of a larger program: it catches no signals and logs nothing.

Leaves out sockets, which are handed in, and what is served.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from equipoise.base.tasks import Tasks

OnBug = Callable[[str, BaseException], None]


class QuietServer(uvicorn.Server):
    """uvicorn's server without its signal handlers, and with an event for having started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        try:
            await super().startup(sockets)
        finally:
            self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Catch none: SIGTERM and SIGINT mean more to the supervisor than to what it serves."""
        yield


class Serving:
    """A server that runs until `close`."""

    def __init__(self, server: QuietServer, running: asyncio.Task[None]) -> None:
        self._server = server
        self._running = running

    async def close(self) -> None:
        """Answer what is asked, and listen no more."""
        self._server.should_exit = True
        await asyncio.wait([self._running])


async def start(
    name: str, app: ASGIApp, listening: socket.socket, report: OnBug, *, max_connections: int, **more: Any
) -> Serving:
    """Serve `app` on a socket that is bound; `more` goes to uvicorn.  Raises: what kept it from starting."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=max_connections,
        timeout_graceful_shutdown=1,  # only for one that does not read: it is cut
        **more,
    )
    server = QuietServer(config)
    running = Tasks(report).spawn(name, server.serve(sockets=[listening]))
    await server.ready.wait()
    if not server.started:
        await running  # raises what kept it from starting
    return Serving(server, running)


def tell_the_loop(name: str, error: BaseException) -> None:
    """Report a bug where nobody else wants to hear of it."""
    asyncio.get_running_loop().call_exception_handler({"message": f"{name} failed", "exception": error})
