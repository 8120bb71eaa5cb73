"""A client that connects again and again, whatever became of its earlier attempts, and what it saw of an interruption.

It is a process of its own, so that a busy test does not slow it.  Clocks are CLOCK_MONOTONIC, which all processes of a
machine share.  Leaves out long transfers: `Call` of `machines.py`.
"""

import asyncio
import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType

from equipoise.proto.dicom.association import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
    PresentationContext,
    encode_request,
)
from equipoise.proto.dicom.pdu import RELEASE_RQ, PduType
from tests.system.netns import Host

_ROOT = Path(__file__).parents[2]
_PATIENCE_S = 8.0  # of one attempt: TCP asks again after 1, 3 and 7 seconds
_SENT_AGAIN_S = 1.0  # RFC 6298, section 2
_BEGINS_WITHIN_S = 60.0
_MOST_OPEN = 2000
_ASK = b"GET /who HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n"
_CALLED, _CALLING = "PACS", "PROBER"
_HEAD_BYTES = 6  # of a PDU, PS3.8 section 9.3.1


@dataclass(frozen=True, slots=True)
class Attempt:
    """One new connection.

    Attributes:
        took_to_connect_s: None where it was never connected.
        said: What the server answered: its name, and which client it saw; empty for DICOM.
        failure: Empty where it succeeded, else how it failed: `refused`, `reset`, `closed`, `timed out`, ...
    """

    began_s: float
    ended_s: float
    took_to_connect_s: float | None = None
    said: str = ""
    failure: str = ""

    @property
    def took_s(self) -> float:
        """How long it took."""
        return self.ended_s - self.began_s

    @property
    def was_connected_at_once(self) -> bool:
        """Whether its first packet was answered, and it need not be sent again, which takes a second."""
        return self.took_to_connect_s is not None and self.took_to_connect_s < _SENT_AGAIN_S


@dataclass(frozen=True, slots=True)
class Seen:
    """What a prober saw."""

    attempts: tuple[Attempt, ...]

    def failures(self) -> dict[str, int]:
        """Return how many attempts failed, by the way they did."""
        ways = [attempt.failure for attempt in self.attempts if attempt.failure]
        return {way: ways.count(way) for way in sorted(set(ways))}

    def answered(self) -> list[Attempt]:
        """Return the attempts that succeeded, in the order in which they ended."""
        return sorted((one for one in self.attempts if not one.failure), key=lambda one: one.ended_s)

    def longest_gap(self) -> float:
        """Return for how many seconds at the most nobody was answered: the interruption, as users see it."""
        ends = [attempt.ended_s for attempt in self.answered()]
        return max((later - sooner for sooner, later in pairwise(ends)), default=float("inf"))

    def slowest(self) -> float:
        """Return how long the slowest attempt took that succeeded, in seconds."""
        return max((attempt.took_s for attempt in self.answered()), default=float("inf"))

    def nodes(self, since_s: float = 0.0) -> set[str]:
        """Return the names of the nodes that answered attempts which began since then."""
        return {one.said.split()[0] for one in self.answered() if one.began_s >= since_s and one.said}

    def __str__(self) -> str:
        return (
            f"{len(self.attempts)} attempts, failed: {self.failures() or 'none'}, "
            f"longest gap {self.longest_gap():.2f} s, slowest {self.slowest():.2f} s"
        )


class Prober:
    """Connects from a host, from when it is entered until it is left; then `seen` says how it went.

    Args:
        host: Where it is.
        address: Whom it calls.
        port: Of it.
        kind: `web`, which asks `/who`; or `dicom`, which opens an association and releases it.
        every_s: Between two attempts.
    """

    def __init__(self, host: Host, address: str, port: int, kind: str = "web", every_s: float = 0.01) -> None:
        asked = (address, str(port), kind, str(every_s))
        self._command = [*host.prefix, sys.executable, "-m", "tests.lab.prober", *asked]
        self._process: subprocess.Popen[str] | None = None
        self._seen: Seen | None = None

    def __enter__(self) -> "Prober":
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True, cwd=_ROOT)
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _BEGINS_WITHIN_S)
        if not ready or self._process.stdout.readline() != "answered\n":
            self.kill()
            raise AssertionError(f"{self._command}: nobody answered within {_BEGINS_WITHIN_S:g} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self._seen is None and error is not None:
            self.kill()
        elif self._seen is None:
            self.stop()

    def stop(self) -> Seen:
        """End it, once what it has begun has ended, and return what it saw."""
        assert self._process is not None
        said, _ = self._process.communicate(timeout=_PATIENCE_S + 30)  # closes what it reads, which ends it
        self._seen = Seen(tuple(Attempt(**each) for each in json.loads(said)))
        return self._seen

    def kill(self) -> None:
        """End it, whatever it has begun."""
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    @property
    def seen(self) -> Seen:
        """Return what it saw."""
        return self._seen if self._seen is not None else self.stop()


# The process

Ask = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[str]]


async def _web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    writer.write(_ASK)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    if not head:
        raise ProbeError("closed")
    if (status := head.split()[1]) != b"200":
        raise ProbeError(f"answered {status.decode()}")
    return body.decode()


async def _dicom(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    context = PresentationContext(1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,))
    writer.write(encode_request(_CALLED, _CALLING, [context]))
    kind, body = await _pdu(reader)
    if kind == PduType.ASSOCIATE_RJ:
        raise ProbeError(f"rejected {', '.join(str(number) for number in body[1:4])}")
    if kind != PduType.ASSOCIATE_AC:
        raise ProbeError("aborted")
    writer.write(RELEASE_RQ)
    kind, _ = await _pdu(reader)
    if kind != PduType.RELEASE_RP:
        raise ProbeError("aborted")
    return ""


async def _pdu(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    try:
        head = await reader.readexactly(_HEAD_BYTES)
        return head[0], await reader.readexactly(int.from_bytes(head[2:], "big"))
    except asyncio.IncompleteReadError:
        raise ProbeError("closed") from None


class ProbeError(Exception):
    """The attempt failed; the text says how."""


async def _attempt(address: str, port: int, ask: Ask) -> Attempt:
    began_s, connect_s, said, failure = time.monotonic(), None, "", ""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            reader, writer = await asyncio.open_connection(address, port)
            connect_s = time.monotonic() - began_s
            said = await ask(reader, writer)
    except (OSError, ProbeError) as error:
        failure = _way(error)
    finally:
        if writer is not None:
            writer.close()
    return Attempt(began_s, time.monotonic(), connect_s, said, failure)


def _way(error: Exception) -> str:
    known: dict[type[Exception], str] = {
        ConnectionRefusedError: "refused",
        ConnectionResetError: "reset",
        TimeoutError: "timed out",
    }
    return known.get(type(error), str(error))


async def _probe(address: str, port: int, kind: str, every_s: float) -> list[Attempt]:
    ask = {"web": _web, "dicom": _dicom}[kind]
    ended, told = asyncio.Event(), False
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), ended.set)  # its end: nothing is ever written there
    begun: list[asyncio.Task[Attempt]] = []
    under_way: set[asyncio.Task[Attempt]] = set()
    next_s = loop.time()
    while not ended.is_set():
        if len(under_way) < _MOST_OPEN:
            begun.append(loop.create_task(_attempt(address, port, ask)))
            under_way.add(begun[-1])
            begun[-1].add_done_callback(under_way.discard)
        next_s = max(next_s + every_s, loop.time())  # what was missed is not made up for: it would come in a crowd
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), max(next_s - loop.time(), 0.001))
        if not told and any(task.done() and not task.result().failure for task in begun):
            told = True
            print("answered", flush=True)
    return list(await asyncio.gather(*begun))


def main(arguments: Sequence[str]) -> None:
    """Connect until standard input ends, then print the attempts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the test, which then ends it
    address, port, kind, every_s = arguments
    attempts = asyncio.run(_probe(address, int(port), kind, float(every_s)))
    print(json.dumps([asdict(attempt) for attempt in attempts]))


if __name__ == "__main__":
    main(sys.argv[1:])
