"""The receivers of HL7 messages: `hl7_receiver.c` is run; and a proof that the senders notice every fault of theirs.

Leaves out what is between senders and receivers.
"""

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from bench.contenders import DIRECT, Contender
from bench.hl7_load import Hl7Load, send
from bench.programs import BenchError, build

# What each fault is counted as; a second acknowledgement may also come when the next message waits for its own.
FAULTS = {
    "wrong_id": {"wrong_id"},
    "not_accepted": {"not_accepted"},
    "closed": {"closed"},
    "silent": {"timeouts"},
    "twice": {"malformed", "wrong_id"},
}
_EVERY, _PATIENCE_S, _SECONDS = 50, 0.5, 0.3  # one that answers late by chance must not look like one that is silent


class Receivers:
    """One process with a listener for each of `ports`; 0 takes a free one.  Raises: BenchError."""

    def __init__(self, ports: Sequence[int], **options: str | float) -> None:
        command = [str(build("hl7_receiver")), *(f"--port={port}" for port in ports)]
        command += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ports: list[int] = self._read()["ports"]

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("a receiver ended; run bench/build/hl7_receiver by hand to see why")
        return dict(json.loads(line))

    def counters(self) -> dict[str, Any]:
        """Return what it has counted since it started.  Raises: BenchError."""
        assert self._process.stdin is not None
        self._process.stdin.write("counters\n")
        self._process.stdin.flush()
        return self._read()

    def messages(self) -> int:
        """Return how many messages came whole so far, at all its ports.  Raises: BenchError."""
        counted = self.counters()
        if counted["errors"] or counted["junk"]:
            raise BenchError(f"a receiver got what is no message: {counted['first_error'] or 'bytes between messages'}")
        return sum(counted["messages"])

    def kill(self) -> None:
        """End it without a word, as a machine that fails."""
        self._process.kill()
        self._process.communicate()


def unnoticed_faults() -> list[str]:
    """Return which deliberate faults of a receiver the senders did not count, each once.  Raises: BenchError."""
    found = []
    for fault, counted_as in FAULTS.items():
        receiver = Receivers([0], fault=fault, fault_every=_EVERY)
        try:
            sent = send(Hl7Load(fault, 4, 1000), Contender(DIRECT, receiver.ports[0]), _SECONDS, patience_s=_PATIENCE_S)
            faults = receiver.counters()["faults"]
        finally:
            receiver.kill()
        right = sum(sent.faults[kind] for kind in counted_as)
        # The last acknowledgement of a connection may be the doubled one, and nobody reads it.
        slack = 4 if fault == "twice" else 0
        if not faults or sent.errors != right or not faults - slack <= right <= faults:
            found.append(
                f"the receiver did {fault} {faults} times, the senders counted {right} of {sent.errors} errors"
            )
    return found
