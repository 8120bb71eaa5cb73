"""A simulated HL7 sender: one message after the other on one connection, each again until it is acknowledged.

What interface engines do: when the connection closes before the answer, or none comes in time, or it is for another
message, the same message (the same MSH-10) goes out again on a new connection.  AE, AR, CE and CR are answers: the
message is not sent again.  What became of each message is written down for the audit (`hl7_audit.py`).
Source: HL7 version 2.5.1, chapter 2.9; "Transport Specification: MLLP, Release 1 and Release 2".
"""

import asyncio
import ssl
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from equipoise.base.clock import Clock
from equipoise.base.errors import PeerError
from equipoise.proto.hl7 import Acknowledgement, read_acknowledgement
from equipoise.proto.mllp import ACK, NAK, Frame, FrameReader, Framing
from equipoise.sim.hl7_ledger import Answered, Sent
from equipoise.sim.hl7_messages import Made, Mode, digest

_READ_BYTES = 1 << 16
_MAX_ANSWER_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class SenderSettings:
    """How one sender behaves.

    Attributes:
        ack_timeout_s: From the last byte of a message to its answer; interface engines have 5 to 30 seconds.
        stall_timeout_s: How long the peer may leave unread what is sent to it.
        before_retry_s: Before a message is sent again.
        most_attempts: How often a message is tried, connections that could not be opened included.
        release: Of MLLP: with 2, every block is committed by one of its own.
    """

    framing: Framing = field(default_factory=Framing)
    connect_timeout_s: float = 5.0
    ack_timeout_s: float = 10.0
    stall_timeout_s: float = 30.0
    before_retry_s: float = 0.2
    most_attempts: int = 200
    release: int = 1
    tls: ssl.SSLContext | None = None


class Sender:
    """One sender: `send` messages, then `close`.

    Attributes:
        sent: What became of each message, in the order in which they were first sent.
        failures: Why messages had to be sent again, and how often.
        accepted: How many messages were answered AA or CA.
        again: How often one was sent beyond its first time.
    """

    def __init__(self, name: str, host: str, port: int, clock: Clock, settings: SenderSettings | None = None) -> None:
        self._name = name
        self._address = (host, port)
        self._clock = clock
        self._settings = settings or SenderSettings()
        self._connection: _Connection | None = None
        self._is_stopped = False
        self.sent: list[Sent] = []
        self.failures: Counter[str] = Counter()
        self.accepted = 0
        self.again = 0

    async def send(self, made: Made) -> Sent:
        """Send a message until it is settled, given up or the sender is stopped; return what became of it."""
        sent = Sent(
            made.control_id.decode(),
            made.kind,
            self._name,
            tuple(patient.decode() for patient in made.patients),
            digest(made.chunks()),
        )
        self.sent.append(sent)
        for _ in range(self._settings.most_attempts):
            try:
                await self._once(made, sent)
                break
            except (OSError, PeerError, TimeoutError) as failure:
                self.failures[_reason(failure)] += 1
                await self.close()
            if self._is_stopped:
                break
            await asyncio.sleep(self._settings.before_retry_s)
        self.accepted += sent.accepted_at_s is not None
        return sent

    def stop(self) -> None:
        """Let the attempt that is under way be the last one."""
        self._is_stopped = True

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _once(self, made: Made, sent: Sent) -> None:
        if self._connection is None:
            self._connection = await _open(self._address, self._settings)
        connection = self._connection
        self.again += bool(sent.sends_s)
        sent.sends_s.append(self._clock.monotonic())
        await connection.write(made)
        if self._settings.release == 2:
            await connection.read_commit()
        while not _is_settled(made.answers, [answer.code for answer in sent.answers]):
            told = await connection.read_answer(made.control_id)
            sent.answers.append(Answered(told.code, self._clock.monotonic()))


async def send_all(
    host: str, port: int, lists: Sequence[Iterable[Made]], clock: Clock, settings: SenderSettings | None = None
) -> list[Sender]:
    """Send each list over a connection of its own, all at once, and return the senders: they are closed."""
    senders = [Sender(f"sender-{number}", host, port, clock, settings) for number in range(1, len(lists) + 1)]
    async with asyncio.TaskGroup() as group:
        for sender, messages in zip(senders, lists, strict=True):
            group.create_task(_send_list(sender, messages))
    return senders


async def _send_list(sender: Sender, messages: Iterable[Made]) -> None:
    try:
        for made in messages:
            await sender.send(made)
    finally:
        await sender.close()


class _Connection:
    """One connection to the peer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, settings: SenderSettings) -> None:
        self._reader = reader
        self._writer = writer
        self._settings = settings
        self._frames = FrameReader(settings.framing, _MAX_ANSWER_BYTES)
        self._whole: deque[Frame] = deque()

    async def write(self, made: Made) -> None:
        """Write a message, piece by piece.  Raises: OSError, TimeoutError."""
        held = self._settings.framing.start
        for chunk in made.chunks():
            if len(held) > _READ_BYTES:
                await self._write(held)
                held = b""
            held += chunk
        await self._write(held + self._settings.framing.end)  # a short message is one packet

    async def read_commit(self) -> None:
        """Read the block that commits ours.  Raises: PeerError, OSError, TimeoutError."""
        content = (await self._next()).content
        if content != ACK:
            raise PeerError("block not committed" if content == NAK else "answered before the block was committed")

    async def read_answer(self, control_id: bytes) -> Acknowledgement:
        """Read the acknowledgement of a message.  Raises: PeerError, OSError, TimeoutError."""
        told = read_acknowledgement((await self._next()).content)
        if told is None:
            raise PeerError("answered without an MSA segment")
        if told.control_id != control_id:
            raise PeerError("answered another message")
        if self._settings.release == 2:
            await self._write(self._settings.framing.wrap(ACK))
        return told

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await self._writer.wait_closed()

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        async with asyncio.timeout(self._settings.stall_timeout_s):
            await self._writer.drain()

    async def _next(self) -> Frame:
        async with asyncio.timeout(self._settings.ack_timeout_s):
            while not self._whole:
                data = await self._reader.read(_READ_BYTES)
                if not data:
                    raise PeerError("closed before the answer")
                self._whole.extend(self._frames.feed(data))
        return self._whole.popleft()


async def _open(address: tuple[str, int], settings: SenderSettings) -> _Connection:
    async with asyncio.timeout(settings.connect_timeout_s):
        reader, writer = await asyncio.open_connection(*address, ssl=settings.tls)
    return _Connection(reader, writer, settings)


def _is_settled(asked: Mode, codes: list[str]) -> bool:
    """Say whether the answers that a message asked for have come."""
    if asked is Mode.NONE:
        return True
    if asked is Mode.BOTH:  # what is not committed to gets no further answer
        return any(code != "CA" for code in codes)
    return bool(codes)


def _reason(failure: OSError | PeerError | TimeoutError) -> str:
    match failure:
        case PeerError():
            return str(failure)
        case ConnectionRefusedError():
            return "connection refused"
        case ConnectionError():
            return "closed before the answer"
        case TimeoutError():
            return "no answer in time"
    return type(failure).__name__
