"""HAProxy's processes: a master, which forks workers, and the master's command line.

Processes are ours when their command line names our sockets and our configuration: a number that the kernel gave to
another program is never signalled.  Source: HAProxy's management guide, sections 3, 4 and 9.4.
"""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from equipoise.base import processes
from equipoise.base.errors import EngineError
from equipoise.engines.haproxy.blame import last_words
from equipoise.engines.haproxy.files import Files
from equipoise.engines.haproxy.program import Program
from equipoise.engines.haproxy.runtime import ANSWER_S, NobodyError, Worker, ask, who

_READY_S = 10.0  # to read a configuration: half a second for ten thousand lines
_LOOK_EVERY_S = 0.02
_TERM_S = 3.0  # a master that is told to end does so at once; one that does not is killed


@dataclass(frozen=True, slots=True)
class Family:
    """A master with its workers; `old` ones serve only what is open.

    `failed` counts what it could not load since the last time that it could.
    """

    master: int
    failed: int
    workers: tuple[int, ...]
    old: tuple[int, ...]


async def family(files: Files, timeout_s: float = ANSWER_S) -> Family:
    """Return who runs; between two configurations a master of 2.6 answers nobody for a moment.  Raises: EngineError."""
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while True:
        try:
            return parse_family(await ask(files.master_socket, "show proc", timeout_s))
        except NobodyError:
            if not files.master_socket.exists() or asyncio.get_running_loop().time() > deadline_s:
                raise
        await asyncio.sleep(_LOOK_EVERY_S)


def parse_family(lines: Sequence[str]) -> Family:
    """Return the processes in an answer to `show proc`.  Raises: NobodyError where it names none."""
    master, failed, part = 0, 0, ""
    found: dict[str, list[int]] = {}
    for line in lines:
        words = line.split()
        if line.startswith("# "):
            part = line.removeprefix("# ").strip()
        elif len(words) > 2 and words[1] == "master":
            master, failed = int(words[0]), int(line.partition("[failed: ")[2].partition("]")[0] or 0)
        elif len(words) > 2 and words[1] == "worker":
            found.setdefault(part, []).append(int(words[0]))
    if not master:
        raise NobodyError(f"HAProxy's master does not say who it is: {' '.join(lines)[:80]!r}")
    return Family(master, failed, tuple(found.get("workers", ())), tuple(found.get("old workers", ())))


async def start(files: Files, program: Program, mark: str) -> tuple[int, Worker]:
    """Start a HAProxy on the configuration that is written; return its master's number and its worker.

    Raises: EngineError, and none runs then.
    """
    began = files.log_end()
    command = [program.path, "-W", "-S", f"{files.master_socket},mode,600", "-f", str(files.configuration)]
    try:
        started = await asyncio.to_thread(processes.start_detached, command, files.log, files.environment())
    except OSError as error:
        raise EngineError(f"{program.path} cannot be started: {error.strerror} ({error.filename})") from None
    try:
        return started.pid, await _serving(files, mark, started.pid, began)
    except EngineError:
        await end(files, started.pid)
        raise


async def reload(files: Files, pid: int, mark: str) -> Worker:
    """Have the configuration that is written loaded anew; return the new worker.

    Raises: EngineError; the old worker serves on then.
    """
    began, before = files.log_end(), (await family(files)).failed
    with suppress(NobodyError):  # 2.6 hangs up, then loads; later versions answer when it is done
        answer = await ask(files.master_socket, "reload", _READY_S)
        if answer[:1] == ["Success=0"]:
            raise EngineError(f"HAProxy did not load its configuration: {last_words(answer)}")
    return await _serving(files, mark, pid, began, failed_before=before)


async def _serving(files: Files, mark: str, master: int, began: int, failed_before: int | None = None) -> Worker:
    """Wait until a worker answers that runs `mark`, and its master too, and return it.  Raises: EngineError.

    A worker may be there before its master listens to signals: one that is sent then is lost.
    """
    deadline_s = asyncio.get_running_loop().time() + _READY_S
    while asyncio.get_running_loop().time() < deadline_s:
        with suppress(EngineError):
            worker = await who(files.worker_socket)
            if mark in worker.description and (await family(files)).master == master:
                return worker
        if not processes.is_alive(master):
            raise EngineError(f"HAProxy ended at once: {last_words(files.log_since(began))}")
        if failed_before is not None and await _has_failed(files, failed_before):
            raise EngineError(f"HAProxy did not load its configuration: {last_words(files.log_since(began))}")
        await asyncio.sleep(_LOOK_EVERY_S)
    told = last_words(files.log_since(began))
    raise EngineError(f"HAProxy does not serve the new configuration after {_READY_S:g} s: {told}")


async def _has_failed(files: Files, before: int) -> bool:
    with suppress(EngineError):
        return (await family(files)).failed > before
    return False


def ours(files: Files) -> list[int]:
    """Return every process that runs on our sockets and our configuration."""
    return [pid for pid in processes.processes() if is_ours(files, pid)]


def is_ours(files: Files, pid: int) -> bool:
    """Say whether a process is a HAProxy of this directory: numbers of those that ended are given to others."""
    words = processes.arguments(pid)
    return "-W" in words and {f"{files.master_socket},mode,600", str(files.configuration)} <= set(words)


def send(files: Files, pid: int, number: signal.Signals) -> None:
    """Send a signal to a process, if it is ours."""
    if is_ours(files, pid):
        processes.kill(pid, number)


async def end(files: Files, master: int) -> None:
    """End a master and its workers at once: told to first, killed where that does not help."""
    members = members_of(files, master)
    send(files, master, signal.SIGTERM)
    if not await gone(files, members, _TERM_S):
        for pid in members_of(files, master):
            send(files, pid, signal.SIGKILL)
        await gone(files, members, _TERM_S)


def members_of(files: Files, master: int) -> list[int]:
    """Return a master and its workers; these are in its session, also when it is gone."""
    return [pid for pid in ours(files) if pid == master or processes.session(pid) == master]


def masters(files: Files) -> list[int]:
    """Return every master that is ours: one that drains may still be there beside another."""
    return [pid for pid in ours(files) if processes.session(pid) == pid]


async def gone(files: Files, pids: Sequence[int], timeout_s: float, hurried: asyncio.Event | None = None) -> bool:
    """Wait until these processes are gone, for so long at most or until somebody is in a hurry; return whether."""
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while any(processes.is_alive(pid) and is_ours(files, pid) for pid in pids):
        if asyncio.get_running_loop().time() > deadline_s or (hurried is not None and hurried.is_set()):
            return False
        await asyncio.sleep(_LOOK_EVERY_S)
    return True
