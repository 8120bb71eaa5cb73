"""The API's server on a Unix socket that only the owner and the group may open.

uvicorn would make the socket itself with mode 0666, so it is handed ours.  Requests that fail are reported to `on_bug`.
"""

import contextlib
import socket
import stat
from pathlib import Path

from equipoise.api.ports import Supervisor
from equipoise.api.quiet_server import OnBug, Serving, start, tell_the_loop
from equipoise.api.routes import application
from equipoise.api.stream import Followers
from equipoise.base.errors import EquipoiseError
from equipoise.base.paths import socket_path

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


class ApiServer:
    """A server that runs.  It ends with `close`, which also ends streams that clients hold open."""

    def __init__(self, serving: Serving, followers: Followers, listening: _Listening) -> None:
        self._serving = serving
        self._followers = followers
        self._listening = listening

    async def close(self) -> None:
        """Answer what is asked, end the streams, and remove the socket."""
        self._listening.remove()
        self._followers.release()
        await self._serving.close()


async def serve(supervisor: Supervisor, path: Path, on_bug: OnBug | None = None) -> ApiServer:
    """Serve the API on the Unix socket `path` until `close`; a socket left by a dead supervisor is replaced.

    The caller holds the supervisor's lock, so nobody else serves there.  Raises: EquipoiseError or OSError.
    """
    report = on_bug or tell_the_loop
    followers = Followers()
    listening = _Listening(path)
    app = application(supervisor, followers, report)
    try:
        serving = await start("api.serve", app, listening.socket, report, max_connections=MAX_CONNECTIONS)
    except BaseException:
        listening.remove()
        raise
    return ApiServer(serving, followers, listening)
