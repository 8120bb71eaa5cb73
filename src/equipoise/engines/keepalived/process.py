"""keepalived's two processes: the one that we start, and the one that speaks VRRP, which it starts itself.

Both have the same command line, with our configuration in it: a number that the kernel gave to another program is never
signalled.  They run in a session of their own and outlive the supervisor.
"""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from equipoise.base import processes
from equipoise.base.errors import EngineError, EquipoiseError
from equipoise.engines.keepalived.files import Files

_READY_S = 10.0
_END_S = 5.0  # told to end it takes a second, so that the peer hears it
_LOOK_EVERY_S = 0.02
_STARTED, _RELOADED = "Startup complete", "Reload complete"
_NOT_RELOADED = ("reload failed", "permanent error")


class Keepalived:
    """The one that runs on our configuration; `pid` is 0 where none does."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._started: processes.Process | None = None  # by us, whose exit code we are told
        self.pid = 0

    @property
    def is_alive(self) -> bool:
        """Whether the first of the two is there; while a program begins it has no command line for a moment."""
        if self.pid == 0 or not self._is_there():
            return False
        return not processes.arguments(self.pid) or self._is_ours(self.pid)

    def find(self) -> bool:
        """Take over one that runs already; return whether there is one."""
        first = [pid for pid in self._ours() if processes.session(pid) == pid and processes.is_alive(pid)]
        self.pid = first[0] if first else 0
        return bool(first)

    def stopped(self) -> tuple[int, ...]:
        """Return which of the two somebody has stopped (SIGSTOP): they are there, and do nothing."""
        return tuple(pid for pid in self._both() if _stat(pid)[:1] == ["T"])

    @property
    def speaks(self) -> bool:
        """Whether the second one is there."""
        return len(self._both()) > 1

    async def start(self) -> None:
        """Start one on the configuration that is written.  Raises: EngineError, and none runs then."""
        await self.kill()
        self._files.remove_stale()
        found = program()
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
        command = [found, *_options(self._files)]
        try:
            self._files.trim_log()
            began = self._files.log_end()
            started = await asyncio.to_thread(processes.start_detached, command, self._files.log, environment)
        except OSError as error:
            raise EngineError(f"{found} cannot be started: {error.strerror} ({error.filename})") from None
        self._started, self.pid = started, started.pid
        try:
            await self._says(_STARTED, began)
        except EngineError:
            await self.kill()
            raise

    async def reload(self) -> None:
        """Have it read the configuration that is written.  Raises: EngineError; it may have ended then."""
        began = self._files.log_end()
        self._send((self.pid,), signal.SIGHUP)
        await self._says(_RELOADED, began)

    async def end(self) -> None:
        """Have it tell the peer that it leaves, and end it.  Raises: EngineError."""
        both = self._both()
        self._send((self.pid,), signal.SIGTERM)
        await self._gone(both)
        await self.kill()

    async def kill(self) -> None:
        """End at once whatever runs on our configuration.  Raises: EngineError."""
        left = self._ours()
        self._send(left, signal.SIGKILL)
        if not await self._gone(left):
            raise EngineError(f"keepalived cannot be ended (process {left[0]}); end it by hand")
        self.pid = 0

    def wake(self, pids: Sequence[int]) -> None:
        """Have processes go on that somebody has stopped."""
        self._send(pids, signal.SIGCONT)

    def last_words(self, began: int = 0) -> str:
        """Return the end of its log."""
        lines, _ = self._files.log_since(began)
        return "; ".join(line.partition(": ")[2] or line for line in lines[-4:]) or "it printed nothing"

    # Inside

    def _is_ours(self, pid: int) -> bool:
        return {"--vrrp", str(self._files.configuration)} <= set(processes.arguments(pid))

    def _ours(self) -> list[int]:
        return [pid for pid in processes.processes() if self._is_ours(pid)]

    def _both(self) -> tuple[int, ...]:
        """Return the two, as far as they are there."""
        if not self.is_alive:
            return ()
        with suppress(OSError, ValueError):
            second = int(self._files.vrrp_pid.read_text())
            if _stat(second)[1:2] == [str(self.pid)]:
                return self.pid, second
        return (self.pid,)

    def _send(self, pids: Sequence[int], number: signal.Signals) -> None:
        for pid in pids:
            if pid and self._is_ours(pid):
                processes.kill(pid, number)

    async def _says(self, word: str, began: int) -> None:
        """Wait until its log says this.  Raises: EngineError."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + _READY_S
        while loop.time() < deadline_s:
            lines, _ = self._files.log_since(began)
            if any(line.endswith(word) for line in lines):
                return
            if any(bad in line for line in lines for bad in _NOT_RELOADED):
                raise EngineError(f"keepalived does not take its configuration: {self.last_words(began)}")
            if not self.is_alive:
                how = _how(self._exit_code())
                raise EngineError(f"keepalived ended before it was ready, {how}: {self.last_words(began)}")
            await asyncio.sleep(_LOOK_EVERY_S)
        raise EngineError(f"keepalived is not ready after {_READY_S:g} s: {self.last_words(began)}")

    def _is_there(self) -> bool:
        if self._started is not None and self._started.pid == self.pid:
            return self._started.poll() is None  # which keeps how it ended, whoever asks first
        return processes.is_alive(self.pid)

    def _exit_code(self) -> int | None:
        """Return how it ended; None where it has not, or another supervisor started it."""
        started = self._started
        return started.poll() if started is not None and started.pid == self.pid else None

    async def _gone(self, pids: Sequence[int]) -> bool:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + _END_S
        while any(processes.is_alive(pid) and self._is_ours(pid) for pid in pids):
            if loop.time() > deadline_s:
                return False
            await asyncio.sleep(_LOOK_EVERY_S)
        return True


def program() -> str:
    """Return the path of keepalived.  Raises: EngineError where there is none."""
    found = processes.find_program("keepalived")
    if found is None:
        raise EngineError(
            "a pair needs the program keepalived, and there is none here; install it: apt install keepalived"
        )
    return found


def complaints(files: Files, text: str) -> list[str]:
    """Return what keepalived would not take of a configuration.  Blocks.  Raises: EngineError."""
    files.create()
    files.write(files.candidate, text)
    command = [program(), "--config-test", "--use-file", str(files.candidate)]
    try:
        ended = processes.run_to_end(command, _READY_S, {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"})
    except (OSError, EquipoiseError) as error:
        raise EngineError(f"keepalived cannot be asked: {error}") from None
    finally:
        with suppress(OSError):
            files.candidate.unlink(missing_ok=True)
    if ended.code == 0:
        return []
    said = [line.removeprefix(f"({files.candidate}: ") for line in ended.output.splitlines() if line.strip()]
    return said or [f"it ended with code {ended.code}"]


def _options(files: Files) -> list[str]:
    return [
        "--vrrp",
        "--dont-fork",
        "--log-console",
        "--no-syslog",
        "--log-detail",
        "--use-file",
        str(files.configuration),
        "--pid",
        str(files.pid),
        "--vrrp_pid",
        str(files.vrrp_pid),
    ]


def _how(code: int | None) -> str:
    """Say how a process ended; where that is by a signal, its number is negative, as subprocess has it."""
    if code is None:
        return "nobody knows how"
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"


def _stat(pid: int) -> list[str]:
    """Return state and parent of a process, as proc(5) writes them; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return []
