"""Check `script`: a program of the site.  Passes when it ends with exit code 0.

It is given four arguments behind its own: service address and port (`-` and 0 where the service has none), node address
and port.  No shell reads them.  It runs in a session of its own, without standard input, with a minimal environment.
Its whole process group is killed when it has ended or its time is over, so what it left in the background goes too.
It is started in a thread: a program on a network file system that does not answer holds up no other check.
Leaves out what makes itself a session of its own (`setsid`, a daemon): that is out of reach.
"""

import asyncio
import contextlib
import errno
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Annotated

from pydantic import Field

from equipoise.base.deadline import deadline
from equipoise.base.errors import EquipoiseError
from equipoise.base.processes import Process, start_closed
from equipoise.config.base import CheckParams
from equipoise.config.fields import FilePath
from equipoise.health.base import Check, Result, Visit, one_line
from equipoise.health.question import Question

_KEPT_BYTES = 4096  # of the end of what it prints; the rest is read and dropped, so that it never waits for us
_CHUNK_BYTES = 64 * 1024
_LAST_WAIT_S = 1.0  # for the kernel to end what was killed
_STARTER = "check script: start"  # the name of a thread, by which those that hang are counted
_MAX_STARTING = 64  # as many as there are checks at once; each that hangs holds a thread and a process
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})

Argument = Annotated[str, Field(max_length=1024, pattern=r"^[^\x00]*$")]


class Params(CheckParams):
    """The program."""

    NEEDS_SERVICE = True
    program: FilePath
    """The program's whole path.  It runs with the rights of the balancer: let nobody else write there."""
    arguments: Annotated[tuple[Argument, ...], Field(max_length=32)] = ()
    """Arguments before the four that every script is given: service address and port, node address and port."""


async def visit(visit: Visit, params: Params) -> Result:
    """Run the program once, within the time."""
    command = [params.program, *params.arguments, *_addresses(visit.question)]
    process: Process | None = None
    with _Output() as output:
        try:
            async with deadline(visit.timeout_s):
                process = await _started(command, output)
                output.read_in_background()
                await _end_of(process.pid)
        except TimeoutError:
            if process is None:
                raise _hangs(params.program, visit.timeout_s) from None
            said = f"{params.program} did not end within {visit.timeout_s:.3g} s and was killed"
            return Result.failed(said + output.last_line())
        except OSError as error:
            return Result.failed(_not_started(error, params.program))
        finally:
            code = await _collect(process) if process is not None else 0
        return _judged(code, params.program, output)


class _Output:
    """The pipe that a program prints into, and the end of what it printed.

    A pipe of our own: asyncio's would keep us waiting for what the program leaves behind in the background.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reading = False
        self._kept = b""
        self._read, self._write = _pipe()
        os.set_blocking(self._read, False)

    def __enter__(self) -> "_Output":
        return self

    def __exit__(self, *_: object) -> None:
        if self._write >= 0:
            os.close(self._write)
        if self._reading:
            self._loop.remove_reader(self._read)
        os.close(self._read)

    def hand_over(self) -> int:
        """Return the end to print into; whoever has it closes it."""
        handed, self._write = self._write, -1
        return handed

    def read_in_background(self) -> None:
        """Read what comes, from now on."""
        self._loop.add_reader(self._read, self._take)
        self._reading = True

    def last_line(self) -> str:
        """Return the last line that was printed as the end of a reason; empty where nothing was."""
        self._take()  # what the program wrote just before its end
        lines = [line.strip() for line in self._kept.decode("utf-8", "replace").splitlines() if line.strip()]
        return f"; it said: {one_line(lines[-1])}" if lines else ""

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._read, _CHUNK_BYTES)
            self._kept = (self._kept + data)[-_KEPT_BYTES:]
            if not data and self._reading:
                self._reading = False
                self._loop.remove_reader(self._read)


def _pipe() -> tuple[int, int]:
    try:
        return os.pipe()
    except OSError as error:
        raise _no_room("open a pipe", error) from None


async def _started(command: list[str], output: _Output) -> Process:
    """Start the program.  Raises: OSError, and EquipoiseError where this machine has no room for one more.

    Not in asyncio's own threads: those that hang would keep all others waiting, and the supervisor from its end.
    """
    if sum(thread.name == _STARTER for thread in threading.enumerate()) >= _MAX_STARTING:
        raise EquipoiseError(f"cannot run {command[0]}: {_MAX_STARTING} programs before it hang in their start")
    starting: Future[Process] = Future()
    write = output.hand_over()
    starter = threading.Thread(target=_start, args=(command, write, starting), name=_STARTER, daemon=True)
    try:
        starter.start()
    except RuntimeError as error:
        os.close(write)
        raise EquipoiseError(
            f"cannot run {command[0]}: {error} on this machine, so nothing is known of the node"
        ) from None
    try:
        return await asyncio.shield(asyncio.wrap_future(starting))
    except asyncio.CancelledError:
        starting.add_done_callback(_discard)
        raise
    except OSError as error:
        if error.errno in _OUR_OWN:
            raise _no_room(f"run {command[0]}", error) from None
        raise


def _start(command: list[str], write: int, starting: "Future[Process]") -> None:
    try:
        try:
            process = start_closed(command, write, _ENVIRONMENT)
        finally:
            os.close(write)
    except (OSError, ValueError) as error:
        starting.set_exception(error)
    else:
        starting.set_result(process)


def _discard(starting: "Future[Process]") -> None:
    """End a program whose start took longer than anybody waits for it."""
    if starting.exception() is None:
        process = starting.result()
        _kill_group(process)
        process.wait()


def _hangs(program: str, timeout_s: float) -> EquipoiseError:
    return EquipoiseError(
        f"cannot run {program}: it was not started within {timeout_s:.3g} s, so nothing is known of the node; "
        "put it on a disk of this machine, if it is on a network file system"
    )


def _no_room(what: str, error: OSError) -> EquipoiseError:
    return EquipoiseError(f"cannot {what}: {error.strerror} on this machine, so nothing is known of the node")


async def _end_of(pid: int) -> None:
    """Return when a child has ended; it is not collected yet, so that its number stays its own."""
    try:
        watched = os.pidfd_open(pid)
    except OSError as error:
        raise _no_room("watch a program", error) from None
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(watched, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(watched)
        os.close(watched)


async def _collect(process: Process) -> int:
    """Kill the program's group, whatever is left of it, and return its exit code; a signal is negative."""
    _kill_group(process)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WAIT_S):
            await _end_of(process.pid)
    code = process.poll()
    return -signal.SIGKILL if code is None else code


def _kill_group(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it may have another user's rights
        os.killpg(process.pid, signal.SIGKILL)


def _addresses(question: Question) -> Iterator[str]:
    service = question.service
    yield from (service.host, str(service.port)) if service is not None else ("-", "0")
    yield from (question.host or question.name, str(question.port))


def _judged(code: int, program: str, output: _Output) -> Result:
    if code == 0:
        return Result.passed(f"{program} ended with 0{output.last_line()}")
    how = f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with {code}, 0 is up"
    return Result.failed(f"{program} {how}{output.last_line()}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _not_started(error: OSError, program: str) -> str:
    if isinstance(error, FileNotFoundError):
        if os.path.exists(program):
            return f"{program} cannot run: the program in its first line (#!) does not exist; install or correct that"
        return f"{program} does not exist on this balancer; put it there, or correct health.program"
    if isinstance(error, PermissionError):
        return f"{program} is not executable for this balancer; chmod +x it, and let its folders be entered"
    if error.errno == errno.ENOEXEC:
        return f"{program} is no program; write '#!/bin/sh' into its first line"
    return f"{program} cannot run: {os.strerror(error.errno) if error.errno else error}"


CHECK = Check(name="script", params=Params, visit=visit)
