"""Other programs: started in a session of their own, so that they outlive us and a terminal's Ctrl-C."""

import asyncio
import os
import resource
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from equipoise.base.errors import EquipoiseError
from equipoise.base.paths import append_to

Process: TypeAlias = subprocess.Popen[bytes]
_USUAL_PLACES = "/usr/sbin:/sbin:/usr/local/sbin"  # often not in the PATH of who is not root


def find_program(name: str, path: str | None = None) -> str | None:
    """Return where a program is; None where it is not.  `path`: where to look, by default PATH and the usual places."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_USUAL_PLACES}" if path is None else path)


def start_detached(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `command` in its own session, its output appended to `log`.  Raises: OSError."""
    with append_to(log) as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=None if environment is None else dict(environment),
        )


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit code, and both its outputs together."""

    code: int
    output: str


def run_to_end(
    command: Sequence[str], timeout_s: float, environment: Mapping[str, str], *, given: bytes = b""
) -> Ended:
    """Run a program and wait for its end; `given` is what it reads.  Raises: OSError, EquipoiseError when too late.

    Where it is too late the program is killed, so it is one that does what it does at once or not at all.
    """
    try:
        ended = subprocess.run(
            list(command),
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            timeout=timeout_s,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EquipoiseError(f"{command[0]} did not end within {timeout_s:g} s") from None
    return Ended(ended.returncode, ended.stdout.decode(errors="replace"))


def start_closed(command: Sequence[str], output: int, environment: Mapping[str, str]) -> Process:
    """Start `command` in its own session at `/`, without input, printing into the descriptor `output`.

    It has no other descriptor of ours and no other environment.  It may lie on a file system that does not answer: this
    thread waits then, and no other.  Raises: OSError.
    """
    return subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env=dict(environment),
        start_new_session=True,
        user=os.geteuid(),  # no change, but with it Popen forks; its vfork stops every thread until the program runs
    )


def start_ready(
    command: Sequence[str], log: Path, timeout_s: float, environment: Mapping[str, str] | None = None
) -> tuple[Process, bytes]:
    """Start `command` in its own session and return it with the first line that it prints, which says it is ready.

    Its standard input is a pipe that ends when we end, so that it can end with us.  Raises: OSError, and EquipoiseError
    where no line comes in time.
    """
    with append_to(log) as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
            env=None if environment is None else dict(environment),
        )
    try:
        return process, _first_line(process, timeout_s, log)
    except BaseException:
        process.kill()
        process.wait()
        raise


def _first_line(process: Process, timeout_s: float, log: Path) -> bytes:
    if process.stdout is None:
        raise ValueError(f"process {process.pid} was started without a pipe")
    deadline, line = time.monotonic() + timeout_s, b""
    while not line.endswith(b"\n"):
        left_s = max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([process.stdout], [], [], left_s)
        if not ready or not (byte := os.read(process.stdout.fileno(), 1)):
            raise EquipoiseError(
                f"process {process.pid} did not say within {timeout_s:g} s that it is ready; see {log}"
            )
        line += byte
    return line


def is_alive(pid: int) -> bool:
    """Say whether a process with this number exists and has not ended: a zombie has, whoever its parent is."""
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    except ChildProcessError:
        pass  # not our child: taken over from an earlier supervisor
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"


async def has_ended(pid: int) -> None:
    """Wait until a process has ended, whoever started it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, over.set)  # pidfd_open(2): readable once it has
    try:
        await over.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def kill(pid: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal; a process that is already gone is no error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def arguments(pid: int) -> tuple[str, ...]:
    """Return the command line of a process; nothing where it is gone, has ended, or begins a program right now."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(word) for word in line.split(b"\0")[:-1])


def processes() -> Iterator[int]:
    """Yield the number of every process of this machine."""
    yield from (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def session(pid: int) -> int | None:
    """Return the session of a process, which is the number of the process that began it; None where it is gone."""
    try:
        return os.getsid(pid)
    except OSError:
        return None


def raise_file_limit() -> int:
    """Raise this process's limit on open files as far as it is allowed, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
