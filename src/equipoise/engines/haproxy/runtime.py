"""Conversations with HAProxy's sockets: one line is sent, one answer read, within a deadline.

A line is at most a few KiB, as HAProxy reads it into one buffer; several commands share it, each is answered by a text
that ends with an empty line.  Because an old worker may still listen for a moment after a reload, commands for a worker
begin with the question who it is.  Source: HAProxy's management guide, section 9.3.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from equipoise.base.errors import EngineError

ANSWER_S = 2.0  # it answers in milliseconds; one that is this late does not serve either
_LINE_BYTES = 8 * 1024  # of commands: half of the smallest buffer that HAProxy is built with
_LONGEST_LINE_BYTES = 1 << 20  # of an answer: 2.8 writes 1 KiB for a row of statistics
_MOST_LINES = 500_000
_AGAIN_AFTER_S = 0.02


class NoAnswerError(EngineError):
    """Somebody listens and does not answer in time."""


class NobodyError(EngineError):
    """Nobody listens on the socket."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Who a worker is: `description` holds the digest of what it runs."""

    pid: int
    description: str
    version: str


async def ask(path: Path, command: str, timeout_s: float = ANSWER_S, most_lines: int = _MOST_LINES) -> list[str]:
    """Return the lines of an answer, at most so many.  Raises: EngineError."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path, limit=_LONGEST_LINE_BYTES)
            try:
                writer.write(f"{command}\n".encode())
                writer.write_eof()  # the master would wait for more: its answer ends with the connection
                return await _lines(reader, most_lines)
            finally:
                writer.close()
    except TimeoutError:
        raise NoAnswerError(f"HAProxy did not answer on {path} within {timeout_s:g} s") from None
    except (FileNotFoundError, ConnectionError) as error:
        raise NobodyError(f"no HAProxy answers on {path}: {error.strerror or 'it hung up'}") from None
    except (OSError, ValueError) as error:  # ValueError: a line that is too long
        raise EngineError(f"HAProxy cannot be asked on {path}: {error}") from None


async def _lines(reader: asyncio.StreamReader, most: int) -> list[str]:
    lines: list[str] = []
    while len(lines) < most and (line := await reader.readline()):
        lines.append(line.decode(errors="replace").rstrip("\n"))
    return lines


async def who(path: Path, timeout_s: float = ANSWER_S) -> Worker:
    """Return which worker answers on its socket.  Raises: EngineError."""
    return _worker(path, await ask(path, "show info", timeout_s))


async def ask_worker(path: Path, command: str, timeout_s: float = ANSWER_S) -> tuple[Worker, list[str]]:
    """Return who answers, and the lines of its answer.  Raises: EngineError."""
    answer = await ask(path, f"show info;{command}", timeout_s)
    end = answer.index("") if "" in answer else len(answer)
    return _worker(path, answer[:end]), answer[end + 1 :]


async def tell(path: Path, mark: str, commands: Sequence[str], timeout_s: float = ANSWER_S) -> None:
    """Have the worker that runs `mark` do these.  Raises: EngineError with the first that it did not take, and why.

    All are sent, whatever becomes of the first ones.
    """
    problems: list[str] = []
    for together in _in_lines(commands):
        problems += await _tell_line(path, mark, together, timeout_s)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise EngineError(f"HAProxy did not take {problems[0]}{more}")


async def _tell_line(path: Path, mark: str, commands: Sequence[str], timeout_s: float) -> list[str]:
    """Send one line, again where another worker took it: an old one listens until it is told that it is old."""
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while True:
        worker, answer = await ask_worker(path, ";".join(commands), timeout_s)
        if mark in worker.description:
            return list(refusals(commands, answer))
        if asyncio.get_running_loop().time() > deadline_s:
            raise EngineError(f"HAProxy's worker {worker.pid} runs {worker.description!r}, which is not {mark}")
        await asyncio.sleep(_AGAIN_AFTER_S)


def refusals(commands: Sequence[str], answer: Iterable[str]) -> Iterator[str]:
    """Yield what was said to commands that should be answered by nothing: each answer ends with an empty line."""
    number, told = 0, -1
    for line in answer:
        if not line:
            number += 1
        elif number < len(commands) and told < number:
            told = number  # the rest of its answer is the list of commands that there are
            yield f"`{commands[number]}`: {line}"


def _worker(path: Path, lines: Sequence[str]) -> Worker:
    facts = dict(line.split(": ", 1) for line in lines if ": " in line)
    try:
        return Worker(int(facts["Pid"]), facts.get("description", ""), facts.get("Version", ""))
    except (KeyError, ValueError):
        raise EngineError(f"what answers on {path} is no HAProxy: {' '.join(lines)[:80]!r}") from None


def _in_lines(commands: Sequence[str]) -> Iterator[list[str]]:
    together: list[str] = []
    size = 0
    for command in commands:
        if together and size + len(command) > _LINE_BYTES:
            yield together
            together, size = [], 0
        together.append(command)
        size += len(command) + 1
    if together:
        yield together
