"""Simulated senders and receivers of HL7 messages under load, and what the audit says of them at the end.

Receivers are processes, so that they can be killed, stopped and continued; senders share a thread.
"""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from types import TracebackType

from equipoise.base.clock import SystemClock
from equipoise.sim.hl7_audit import Key, MessageAudit, audit_messages
from equipoise.sim.hl7_ledger import Sent, Taken, read_ledger
from equipoise.sim.hl7_messages import Messages
from equipoise.sim.hl7_sender import Sender, SenderSettings
from equipoise.sim.ports import free_port


class ReceiverProcess:
    """One `equipoise.sim.hl7_receiver`: it keeps its port and its ledger when it is killed and started again."""

    def __init__(self, folder: Path, name: str, *options: str) -> None:
        self.name, self.port = name, free_port()
        self._ledger = folder / f"{name}.jsonl"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def taken(self) -> list[Taken]:
        """Return what it has taken in."""
        return read_ledger(self._ledger)

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [sys.executable, "-m", "equipoise.sim.hl7_receiver", "--port", str(self.port)]
        command += ["--ledger", str(self._ledger), "--end-with-input", *self._options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert json.loads(self._process.stdout.readline())["port"] == self.port

    def kill(self) -> None:
        """End it as a machine dies."""
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    def pause(self) -> None:
        """Stop it where it is."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class Load:
    """Senders at one port, all at once, each one message after the other, until `finish`.

    Args:
        name: What their control IDs begin with.
        pause_s: Between an answer and the next message, on average.
        patients: How many patients each sender has, of its own.
        leave_s: How long, on average, until one of them leaves in the middle of what it does, and returns; 0: never.
    """

    def __init__(
        self,
        port: int,
        senders: int,
        name: str,
        *,
        seed: int,
        pause_s: float = 0.02,
        patients: int = 5,
        leave_s: float = 0.0,
        settings: SenderSettings | None = None,
    ) -> None:
        self._port, self._name, self._seed = port, name, seed
        self._pause_s, self._patients, self._leave_s = pause_s, patients, leave_s
        self._stop = threading.Event()
        self.senders = [
            Sender(f"{name}{number}", "127.0.0.1", port, SystemClock(), settings) for number in range(senders)
        ]
        self._executor = ThreadPoolExecutor(1)
        self._job = self._executor.submit(asyncio.run, self._send_all())

    def __enter__(self) -> "Load":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for sender in self.senders:
            sender.stop()
        self._executor.shutdown()

    @property
    def sent(self) -> list[Sent]:
        """Return the records of all senders."""
        return [one for sender in self.senders for one in sender.sent]

    @property
    def failures(self) -> dict[str, int]:
        """Return why messages had to be sent again."""
        total: dict[str, int] = {}
        for sender in self.senders:
            for why, count in sender.failures.items():
                total[why] = total.get(why, 0) + count
        return total

    def finish(self, within_s: float = 60) -> list[Sent]:
        """Let what is under way be acknowledged, end the senders and return their records.  Raises: TimeoutError."""
        self._stop.set()
        self._job.result(within_s)
        return self.sent

    async def _send_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number, sender in enumerate(self.senders):
                group.create_task(self._send(number, sender))
            if self._leave_s:
                group.create_task(self._leave(Random(f"{self._seed} {self._name} leaves")))

    async def _send(self, number: int, sender: Sender) -> None:
        own = range(1 + number * self._patients, 1 + (number + 1) * self._patients)
        rng = Random(f"{self._seed} {self._name} {number}")
        messages = Messages(f"{self._name}{number}", self._seed, patients=own)
        try:
            while not self._stop.is_set():
                await sender.send(messages.any())
                await asyncio.sleep(rng.uniform(0, 2 * self._pause_s))
        finally:
            await sender.close()

    async def _leave(self, rng: Random) -> None:
        """End connections, as senders do that are killed and return; a message that is under way is sent again."""
        while not self._stop.is_set():
            await asyncio.sleep(rng.uniform(0, 2 * self._leave_s))
            await rng.choice(self.senders).close()


class Site:
    """Receivers in a folder of their own; they end with it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="eq-hl7-", dir="/tmp")
        self.receivers: list[ReceiverProcess] = []

    def __enter__(self) -> "Site":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for receiver in self.receivers:
            receiver.kill()
        self._folder.cleanup()

    def receiver(self, name: str, *options: str) -> ReceiverProcess:
        """Return a receiver that listens."""
        receiver = ReceiverProcess(Path(self._folder.name), name, *options)
        self.receivers.append(receiver)
        return receiver


def audit(
    sent: Sequence[Sent], receivers: Sequence[ReceiverProcess], key: Key, *, receivers_deduplicate: bool = False
) -> MessageAudit:
    """Hold what the receivers took in, of any senders, against what these senders know."""
    known = {one.control_id for one in sent}
    taken = {receiver.name: [line for line in receiver.taken if line.control_id in known] for receiver in receivers}
    return audit_messages(sent, taken, key=key, receivers_deduplicate=receivers_deduplicate)
