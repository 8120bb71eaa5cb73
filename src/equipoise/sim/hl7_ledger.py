"""What both sides of simulated HL7 traffic know: of each message, when it was sent and answered, and who took it in.

A receiver writes a line for each message to a file before it acknowledges it.  Each line is one write to the end of the
file, so a receiver that is killed leaves whole lines, and goes on behind them when it returns.  A machine that loses
its power is not simulated: nothing is forced to the disk.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

_ACCEPTED = frozenset({"AA", "CA"})


@dataclass(frozen=True, slots=True)
class Answered:
    """An acknowledgement that its sender got: MSA-1, and when, on the machine's monotonic clock."""

    code: str
    at_s: float


@dataclass(slots=True)
class Sent:
    """One message, as its sender knows it: times on the machine's monotonic clock, `sends_s` before the first byte.

    Attributes:
        sender: Of all messages with the same one, the next is sent when the one before is settled.
        patients: As in Taken.
        digest: See `hl7_messages.digest`.
    """

    control_id: str
    kind: str
    sender: str
    patients: tuple[str, ...]
    digest: str
    sends_s: list[float] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)

    @property
    def accepted_at_s(self) -> float | None:
        """When the sender first heard that it is taken care of; None where it never did."""
        return next((answer.at_s for answer in self.answers if answer.code in _ACCEPTED), None)


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """One message that a receiver got.

    Attributes:
        at_s: When, on the machine's monotonic clock, which is the same for all its processes.
        code: What the receiver answers; it keeps those that it answers AA or CA.
        patients: As `proto.hl7.read_patients` gives them, those of MRG at the end.
        digest: See `hl7_messages.digest`.
    """

    at_s: float
    control_id: str
    kind: str
    patients: tuple[str, ...]
    digest: str
    size_bytes: int
    code: str
    connection: int = 0

    @property
    def is_kept(self) -> bool:
        """Whether the receiver took charge of it."""
        return self.code in _ACCEPTED


class ReceiverLedger:
    """One file; a receiver has one alone.  Raises: OSError."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        os.ftruncate(self._file, _whole(path))  # a disk that was full may have left half a line

    def write(self, taken: Taken) -> None:
        """Keep a line: it is there when this returns, whatever becomes of this process.  Raises: OSError."""
        line = msgspec.json.encode(taken) + b"\n"
        if os.write(self._file, line) != len(line):
            raise OSError(f"a line of {len(line)} bytes did not fit on the disk")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def read_ledger(path: Path) -> list[Taken]:
    """Return the lines of a ledger, oldest first; none where it is not there.  Half a line at its end is left out."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    decoder = msgspec.json.Decoder(Taken)
    return [decoder.decode(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def _whole(path: Path) -> int:
    """Return how much of a file is whole lines."""
    return path.read_bytes().rfind(b"\n") + 1
