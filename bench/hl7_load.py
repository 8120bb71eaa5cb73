"""The senders of HL7 messages: `hl7_load.c` is run, and what it says is read.

Its head says what is counted.  Leaves out whom it sends to.
"""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from bench.contenders import Contender
from bench.programs import BenchError, build

PATIENCE_S = 10.0
BIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Hl7Load:
    """Messages of one size over so many connections, one in flight on each.

    Attributes:
        rate: Messages a second on each connection; 0 means the next one as soon as the last is acknowledged.
    """

    name: str
    senders: int
    message_bytes: int
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Sent:
    """What was acknowledged; times in seconds and milliseconds.

    Attributes:
        started_at_s: On the machine's monotonic clock, as `time.monotonic`.
        messages: Acknowledged between warm-up and end; `answered` are all.
        faults: The errors by kind.
        cpu_s: The generator's own.
        good_by_100_ms: With `timeline`, how many were acknowledged in each 100 ms; `bad_by_100_ms`: how many failed.
    """

    seconds: float
    started_at_s: float
    messages: int
    answered: int
    opened: int
    errors: int
    faults: dict[str, int]
    first_error: str
    cpu_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    good_by_100_ms: list[int]
    bad_by_100_ms: list[int]

    @property
    def per_s(self) -> float:
        """Messages a second."""
        return self.messages / max(self.seconds, 1e-6)

    def good_between(self, begin_s: float, end_s: float) -> float:
        """Return messages a second between two times of the monotonic clock, to the nearest 100 ms."""
        return sum(_cut(self.good_by_100_ms, self.started_at_s, begin_s, end_s)) / (end_s - begin_s)

    def bad_between(self, begin_s: float, end_s: float) -> int:
        """Return how many failed between two times of the monotonic clock."""
        return sum(_cut(self.bad_by_100_ms, self.started_at_s, begin_s, end_s))


def _cut(bins: list[int], started_at_s: float, begin_s: float, end_s: float) -> list[int]:
    first, last = (max(0, round((when - started_at_s) / BIN_S)) for when in (begin_s, end_s))
    return bins[first:last]


def _command(load: Hl7Load, to: Contender, seconds: float, warm_up_s: float, patience_s: float) -> list[str]:
    wishes = {"port": to.port, "connections": load.senders, "message-bytes": load.message_bytes, "rate": load.rate}
    wishes |= {"seconds": seconds, "warm-up": warm_up_s, "patience": patience_s}
    return [str(build("hl7_load")), *(f"--{name}={value}" for name, value in {**wishes, **to.options}.items())]


def read(said: str) -> Sent:
    """Return what `hl7_load` said.  Raises: BenchError."""
    try:
        told: dict[str, Any] = json.loads(said)
        return Sent(**{name: told[name] for name in Sent.__dataclass_fields__})
    except (ValueError, KeyError) as error:
        raise BenchError(f"hl7_load said {said!r}, not a result: {error}") from None


def send(load: Hl7Load, to: Contender, seconds: float, warm_up_s: float = 0.0, patience_s: float = PATIENCE_S) -> Sent:
    """Send for so long; what is under way then goes on to its end.  Raises: BenchError."""
    limit_s = seconds + warm_up_s + 3 * patience_s
    try:
        done = subprocess.run(
            _command(load, to, seconds, warm_up_s, patience_s),
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"hl7_load did not end within {limit_s:.0f} s") from None
    if done.returncode != 0:
        raise BenchError(f"hl7_load failed: {done.stderr.strip()}")
    return read(done.stdout)


class Sending:
    """Senders that go on beside what else happens, until they are told to end."""

    def __init__(self, load: Hl7Load, to: Contender, limit_s: float) -> None:
        command = [*_command(load, to, limit_s, 0.0, PATIENCE_S), "--timeline"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def finish(self) -> Sent:
        """Let what is under way go to its end, and return the result.  Raises: BenchError."""
        self._process.terminate()
        try:
            return read(self._process.communicate(timeout=3 * PATIENCE_S)[0])
        except subprocess.TimeoutExpired:
            raise BenchError(f"hl7_load did not end within {3 * PATIENCE_S:.0f} s after it was told to") from None

    def stop(self) -> None:
        """End it if it still runs."""
        self._process.kill()
        self._process.wait()
