"""The process around the supervisor: directories, lock, signals, and the way it ends.

SIGTERM and SIGINT drain and stop everything, a second one at once.  SIGHUP reads the document again.  SIGUSR2 ends the
supervisor alone.
"""

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import uvloop

from equipoise.app.document import DocumentStore
from equipoise.app.pair.connection import Server
from equipoise.app.pair.pair import Serving
from equipoise.app.supervisor import Supervisor
from equipoise.base.clock import SystemClock
from equipoise.base.errors import EquipoiseError
from equipoise.base.paths import Directories, socket_path
from equipoise.base.processes import raise_file_limit
from equipoise.state.journal import Journal


class Servers(Serving, Protocol):
    """What serves the API, and the pair."""

    async def api(self, supervisor: Any, socket_path: Path) -> Server:
        """Serve the API.  Raises: EquipoiseError or OSError."""


def run(site: Path, directories: Directories, servers: Servers) -> int:
    """Be the balancer until a signal ends it; return the exit code.  Raises: EquipoiseError where it cannot start."""
    socket_path(directories.api_socket)
    directories.create()
    raise_file_limit()
    with _lock(directories):
        uvloop.run(_serve(site.absolute(), directories, servers))
    return 0


async def _serve(site: Path, directories: Directories, servers: Servers) -> None:
    clock = SystemClock()
    journal = Journal(directories.state / "events.jsonl", clock)
    store = DocumentStore(site, directories.state, clock)
    supervisor = Supervisor(store, directories, clock, journal, _announce, serving=servers)
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(supervisor.callback_failed)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        loop.add_signal_handler(number, signals.put_nowait, number)
    try:
        await supervisor.start()
        try:
            api = await servers.api(supervisor, directories.api_socket)
        except (EquipoiseError, OSError):
            await supervisor.fail_to_start()
            raise
        last = await _until_the_end(supervisor, signals)
        if last is signal.SIGUSR2:
            await api.close()
            await supervisor.leave("SIGUSR2")
        else:
            await _drain(supervisor, signals, last)
            await api.close()
    finally:
        journal.close()


async def _until_the_end(supervisor: Supervisor, signals: "asyncio.Queue[signal.Signals]") -> signal.Signals:
    """Return the signal that ends us."""
    while (number := await signals.get()) is signal.SIGHUP:
        await supervisor.reload()
    return number


async def _drain(supervisor: Supervisor, signals: "asyncio.Queue[signal.Signals]", last: signal.Signals) -> None:
    """Stop the engines; a second signal makes it quick."""

    async def second() -> None:
        while True:
            if await signals.get() in (signal.SIGTERM, signal.SIGINT):
                supervisor.hurry()

    async with asyncio.TaskGroup() as group:
        hurry = group.create_task(second())
        await supervisor.stop(last.name, supervisor.drain_timeout_s)
        hurry.cancel()


@contextmanager
def _lock(directories: Directories) -> Iterator[None]:
    """Hold the lock of this runtime directory.  Raises: EquipoiseError where another supervisor has it."""
    descriptor = os.open(directories.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise EquipoiseError(
            f"another supervisor (process {holder}) runs with {directories.runtime}; "
            "stop it, or set EQUIPOISE_RUNTIME_DIR and EQUIPOISE_STATE_DIR for a second instance"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    try:
        yield
    finally:
        os.close(descriptor)


def _announce(fields: dict[str, Any]) -> None:
    """Tell a person, or systemd's journal, in one line.  Without a terminal to tell, go on."""
    rest = " ".join(f"{key}={_shown(value)}" for key, value in fields.items() if key not in ("kind", "traceback"))
    try:
        sys.stderr.write(f"{fields['kind']} {rest}\n{fields.get('traceback', '')}")
        sys.stderr.flush()
    except OSError:
        return


def _shown(value: object) -> str:
    """Return a value in one word: what has blanks is quoted, and nothing that a peer sent reaches a terminal raw."""
    text = str(value)
    return text if text and text.isprintable() and " " not in text else repr(text)
