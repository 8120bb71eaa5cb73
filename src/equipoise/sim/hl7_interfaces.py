"""The HL7 interfaces of the simulated site at work: HIS, RIS, laboratory and others, each a sender of its own.

They know the same patients.  `run` in a thread, until told to stop; what became of each message is there to be audited.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from equipoise.base.clock import Clock
from equipoise.sim.hl7_ledger import Sent
from equipoise.sim.hl7_messages import Made, Messages
from equipoise.sim.hl7_sender import Sender, SenderSettings
from equipoise.sim.peers import Peer

_PATIENTS = range(1, 61)
_MOST_BYTES = 20_000

INTERFACES: Mapping[str, tuple[str, ...]] = {
    "HIS": ("ADT^A01", "ADT^A02", "ADT^A03", "ADT^A04", "ADT^A08", "ADT^A31", "ADT^A40"),
    "RIS": ("ORM^O01", "OMI^O23", "SIU^S12"),
    "LAB": ("ORU^R01",),
    "REPORTS": ("MDM^T02", "ORU^R01"),
    "BILLING": ("DFT^P03", "BAR^P01"),
}


@dataclass(frozen=True, slots=True)
class MessageTally:
    """What the interfaces counted: `again` are attempts beyond the first one of each message.

    Attributes:
        failures: Why an attempt failed, and how often.
    """

    sent: int = 0
    acknowledged: int = 0
    again: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)


class Interfaces:
    """All interfaces of one site; the same seed gives the same messages.

    Args:
        fronts: Where the balancer takes HL7; the interfaces are spread over them.
        pause_s: Of each interface, between an answer and its next message.
    """

    def __init__(
        self, fronts: Sequence[Peer], clock: Clock, stop: threading.Event, *, seed: int, pause_s: float = 0.15
    ) -> None:
        self._seed = seed
        self._stop = stop
        self._pause_s = pause_s
        settings = SenderSettings(ack_timeout_s=5.0)
        self._senders = {
            name: Sender(name, front.host, front.port, clock, settings)
            for name, front in zip(INTERFACES, [*fronts] * len(INTERFACES), strict=False)
        }

    def run(self) -> None:
        """Send until told to stop; a message that is under way then gets one more answer, or none."""
        asyncio.run(self._run())

    def sent(self) -> list[Sent]:
        """Return what became of each message, by sender."""
        return [one for sender in self._senders.values() for one in sender.sent]

    def tally(self) -> MessageTally:
        """Return the counts now."""
        senders = list(self._senders.values())
        failures: Counter[str] = Counter()
        for sender in senders:
            failures.update(sender.failures)
        return MessageTally(
            sum(len(sender.sent) for sender in senders),
            sum(sender.accepted for sender in senders),
            sum(sender.again for sender in senders),
            dict(failures),
        )

    def accepted_between(self, start_s: float, end_s: float) -> int:
        """Return how many messages were acknowledged in a stretch of the clock's monotonic time."""
        moments = (one.accepted_at_s for one in self.sent())
        return sum(1 for at_s in moments if at_s is not None and start_s <= at_s < end_s)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name, sender in self._senders.items():
                group.create_task(self._interface(name, sender))
            await asyncio.to_thread(self._stop.wait)
            for sender in self._senders.values():
                sender.stop()

    async def _interface(self, name: str, sender: Sender) -> None:
        messages = Messages(name, self._seed, patients=_PATIENTS)
        rng = Random(f"{self._seed} {name}")  # noqa: S311 messages are invented, not secret
        try:
            while not self._stop.is_set():
                await sender.send(_made(messages, rng, INTERFACES[name]))
                await asyncio.sleep(self._pause_s * rng.uniform(0.5, 1.5))
        finally:
            await sender.close()


def _made(messages: Messages, rng: Random, kinds: Sequence[str]) -> Made:
    kind = rng.choice(kinds)
    return messages.make(kind, rng.randrange(300, _MOST_BYTES) if kind == "ORU^R01" else None)
