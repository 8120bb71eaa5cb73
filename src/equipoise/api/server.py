"""The API's server on a Unix socket that only the owner and the group may open.

uvicorn would make the socket itself with mode 0666, so it is handed ours.  It catches no signals, which are the
supervisor's, and logs nothing: requests that fail are reported to `on_bug`.
"""

import asyncio
import contextlib
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from equipoise.api.ports import Supervisor
from equipoise.api.routes import OnBug, application
from equipoise.api.stream import Followers
from equipoise.base.errors import EquipoiseError
from equipoise.base.paths import socket_path
from equipoise.base.tasks import Tasks

# A few consoles and followers for each operator; beyond that a client is answered 503.
MAX_CONNECTIONS = 128


class _Listening:
    """The socket and the name that it has in the file system."""

    def __init__(self, path: Path) -> None:
        self._path = path
        name = socket_path(path)
        if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
            raise EquipoiseError(f"{path} is no socket, so it is not replaced; remove it or set EQUIPOISE_RUNTIME_DIR")
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.bind(name)
            path.chmod(0o660)  # nobody can connect before the server listens, so there is no moment of another mode
            self._inode = path.stat().st_ino
        except OSError:
            self.socket.close()
            raise

    def remove(self) -> None:
        """Remove the name, unless another supervisor has already put its own there."""
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


class _Server(uvicorn.Server):
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
        """Catch none: SIGTERM and SIGINT mean more to the supervisor than to its API."""
        yield


class ApiServer:
    """A server that runs.  It ends with `close`, which also ends streams that clients hold open."""

    def __init__(self, server: _Server, running: asyncio.Task[None], followers: Followers, listening: _Listening):
        self._server = server
        self._running = running
        self._followers = followers
        self._listening = listening

    async def close(self) -> None:
        """Answer what is asked, end the streams, and remove the socket."""
        self._listening.remove()
        self._followers.release()
        self._server.should_exit = True
        await asyncio.wait([self._running])


async def serve(supervisor: Supervisor, path: Path, on_bug: OnBug | None = None) -> ApiServer:
    """Serve the API on the Unix socket `path` until `close`; a socket left by a dead supervisor is replaced.

    The caller holds the supervisor's lock, so nobody else serves there.  Raises: EquipoiseError or OSError.
    """
    report = on_bug or _tell_the_loop
    followers = Followers()
    listening = _Listening(path)
    config = uvicorn.Config(
        application(supervisor, followers, report),
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=1,  # only for a follower that does not read: it is cut
    )
    server = _Server(config)
    running = Tasks(report).spawn("api.serve", server.serve(sockets=[listening.socket]))
    await server.ready.wait()
    if not server.started:
        listening.remove()
        await running  # raises what kept it from starting
    return ApiServer(server, running, followers, listening)


def _tell_the_loop(name: str, error: BaseException) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": f"{name} failed", "exception": error})
