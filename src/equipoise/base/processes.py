"""Other programs: started in a session of their own, so that they outlive us and a terminal's Ctrl-C."""

import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from equipoise.base.errors import EquipoiseError
from equipoise.base.paths import append_to

Process: TypeAlias = subprocess.Popen[bytes]


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
    """Say whether a process with this number exists and is not a zombie of ours."""
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    except ChildProcessError:
        pass  # not our child: taken over from an earlier supervisor
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill(pid: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal; a process that is already gone is no error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def raise_file_limit() -> int:
    """Raise this process's limit on open files as far as it is allowed, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
