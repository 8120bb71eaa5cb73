"""A simulated HL7 receiver: it takes messages over MLLP, keeps a ledger of them, and acknowledges.

A process of its own, so that it can be killed as a machine dies:

    python -m equipoise.sim.hl7_receiver --port 0 --ledger FILE --delay 5ms --serial --max-connections 1

It prints one JSON line with its port once it listens, and ends on SIGTERM.  The faults are those of real receivers, for
tests.  Leaves out what the messages mean.
Source: HL7 version 2.5.1, chapter 2.9; "Transport Specification: MLLP, Release 1 and Release 2".
"""

import argparse
import asyncio
import socket
import ssl
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

from equipoise.base.clock import Clock, SystemClock
from equipoise.base.errors import PeerError
from equipoise.base.tasks import Tasks
from equipoise.base.units import parse_duration
from equipoise.proto.hl7 import Header, read_header, read_patients
from equipoise.proto.mllp import ACK, NAK, Frame, FrameReader, Framing
from equipoise.sim.hl7_answers import answer, control_id
from equipoise.sim.hl7_ledger import ReceiverLedger, Taken
from equipoise.sim.hl7_messages import digest
from equipoise.sim.node_process import arguments_of, serve

_READ_BYTES = 1 << 18
_MAX_MESSAGE_BYTES = 1 << 30
_WRITE_S = 60.0


class Fault(StrEnum):
    """What goes wrong with a message.  All but `drop` have it in the ledger."""

    WRONG_ID = "wrong-id"  # MSA-2 of another message
    TWICE = "twice"  # two acknowledgements
    LATE = "late"
    CLOSE = "close"  # taken in, and closed without an answer
    DROP = "drop"  # closed before it is taken in
    HALF = "half"  # closed within the acknowledgement
    STOP = "stop"  # reads no more of this connection


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """How one receiver behaves.

    Attributes:
        delay_s: Work for each message.
        is_serial: Whether it works at one message at a time, whatever the number of connections.
        max_connections: Open at once; None for any number.
        refuses_more: Whether it closes further connections at once; else they wait, not accepted.
        error_every: Every so many messages is answered AE; 0 for none.
        reject_every: Likewise, AR.
        application_after_s: In enhanced mode, between the commit acknowledgement and the application's.
        fault: What goes wrong, with every `fault_every`th message.
        late_s: How late the fault `late` is.
        release: Of MLLP: with 2, every block is committed by one of its own.
    """

    framing: Framing = field(default_factory=Framing)
    delay_s: float = 0.0
    is_serial: bool = False
    max_connections: int | None = None
    refuses_more: bool = False
    error_every: int = 0
    reject_every: int = 0
    application_after_s: float = 0.0
    fault: Fault | None = None
    fault_every: int = 1
    late_s: float = 1.0
    release: int = 1


class Receiver:
    """One receiver; `start` and `stop` it."""

    def __init__(self, settings: ReceiverSettings, ledger: ReceiverLedger, clock: Clock) -> None:
        self._settings = settings
        self._ledger = ledger
        self._clock = clock
        self._tasks = Tasks(_report)
        self._turn = asyncio.Lock()
        self._room = asyncio.Semaphore(settings.max_connections or sys.maxsize)
        self._listener: socket.socket | None = None
        self._seen = 0
        self.accepted = 0

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen and return the port.  Raises: OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=512)
        self._listener.setblocking(False)
        self._tasks.spawn("accept", self._accept(self._listener, tls))
        return int(self._listener.getsockname()[1])

    def stop(self) -> None:
        """Stop listening; what is open ends with the process."""
        if self._listener is not None:
            self._listener.close()

    async def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        while listener.fileno() >= 0:
            if not self._settings.refuses_more:
                await self._room.acquire()
            connection, _ = await loop.sock_accept(listener)
            if self._settings.refuses_more:
                if self._room.locked():
                    connection.close()
                    continue
                await self._room.acquire()
            self.accepted += 1
            self._tasks.spawn(f"connection {self.accepted}", self._connection(connection, self.accepted, tls))

    async def _connection(self, connection: socket.socket, number: int, tls: ssl.SSLContext | None) -> None:
        try:
            with suppress(ConnectionError, TimeoutError, PeerError, ssl.SSLError):
                reader, writer = await _streams(connection, tls)
                try:
                    await _Talk(self, reader, writer, number).run()
                finally:
                    writer.close()
        finally:
            connection.close()
            self._room.release()

    async def take(self, frame: Frame, header: Header, connection: int) -> tuple[Taken, Fault | None]:
        """Work at a message and keep it, unless the fault is that it is dropped.  Raises: PeerError, OSError."""
        if not self._settings.is_serial:
            return await self._work(frame, header, connection)
        async with self._turn:
            return await self._work(frame, header, connection)

    async def _work(self, frame: Frame, header: Header, connection: int) -> tuple[Taken, Fault | None]:
        self._seen += 1
        number = self._seen
        await asyncio.sleep(self._settings.delay_s)
        fault = self._settings.fault if number % self._settings.fault_every == 0 else None
        patients = read_patients(frame.chunks)
        taken = Taken(
            at_s=self._clock.monotonic(),
            control_id=control_id(frame.head, header).decode(errors="replace"),
            kind=header.kind,
            patients=tuple(key.decode(errors="replace") for key in (*patients.current, *patients.merged)),
            digest=digest(frame.chunks),
            size_bytes=frame.size,
            code=self._code(number),
            connection=connection,
        )
        if fault is not Fault.DROP:
            self._ledger.write(taken)
        return taken, fault

    def _code(self, number: int) -> str:
        if self._settings.error_every and number % self._settings.error_every == 0:
            return "AE"
        if self._settings.reject_every and number % self._settings.reject_every == 0:
            return "AR"
        return "AA"

    @property
    def settings(self) -> ReceiverSettings:
        """How it behaves."""
        return self._settings


class _Talk:
    """One connection."""

    def __init__(
        self, receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self._receiver = receiver
        self._settings = receiver.settings
        self._reader = reader
        self._writer = writer
        self._number = number
        self._answers = 0

    async def run(self) -> None:
        """Take messages until the sender closes, or a fault ends it."""
        frames = FrameReader(self._settings.framing, _MAX_MESSAGE_BYTES)
        while data := await self._reader.read(_READ_BYTES):
            for frame in frames.feed(data):
                if frame.head not in {ACK, NAK} and not await self._message(frame):
                    return

    async def _message(self, frame: Frame) -> bool:
        """Take and answer one message; say whether the connection goes on."""
        header = read_header(frame.head)
        taken, fault = await self._receiver.take(frame, header, self._number)
        if fault in {Fault.DROP, Fault.CLOSE}:
            return False
        if fault is Fault.STOP:
            await asyncio.Event().wait()  # until the process ends
        if fault is Fault.LATE:
            await asyncio.sleep(self._settings.late_s)
        if self._settings.release == 2:
            await self._send(ACK)
        if fault is Fault.WRONG_ID:
            header = msgspec.structs.replace(header, control_id=b"ANOTHER")
        for code in _codes(header, taken.code):
            if code.startswith("A") and not header.original:
                await asyncio.sleep(self._settings.application_after_s)
            if not await self._answer(frame, header, code, fault):
                return False
        return True

    async def _answer(self, frame: Frame, header: Header, code: str, fault: Fault | None) -> bool:
        self._answers += 1
        content = answer(frame.head, header, code, self._answers)
        if fault is Fault.HALF:
            self._writer.write(self._settings.framing.wrap(content)[: len(content) // 2])
            await self._writer.drain()
            return False
        for _ in range(2 if fault is Fault.TWICE else 1):
            await self._send(content)
        return True

    async def _send(self, content: bytes) -> None:
        self._writer.write(self._settings.framing.wrap(content))
        async with asyncio.timeout(_WRITE_S):
            await self._writer.drain()


def _codes(header: Header, code: str) -> list[str]:
    """Return the answers that the message asks for: HL7 table 0155, always, never, on errors, on success."""
    if header.original:
        return [code]
    wanted = {b"AL", b"SU" if code == "AA" else b"ER"}
    codes = [f"C{code[1]}"] if header.accept in wanted else []
    # What was not committed to is not worked at.
    is_worked_at = code == "AA" or not codes
    return codes + ([code] if header.application in wanted and is_worked_at else [])


async def _streams(
    connection: socket.socket, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_READ_BYTES)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection, ssl=tls)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def _report(name: str, failure: BaseException) -> None:
    sys.stderr.write(f"{name}: {failure!r}\n")


def _parser() -> argparse.ArgumentParser:
    parser = arguments_of("hl7_receiver", "A simulated HL7 receiver.")
    parser.add_argument("--ledger", type=Path, required=True, help="file of what was taken in; it is continued")
    parser.add_argument("--delay", type=parse_duration, default=0.0, help="work for each message: 5ms")
    parser.add_argument("--serial", action="store_true", help="one message at a time")
    parser.add_argument("--max-connections", type=int, help="further ones wait, not accepted")
    parser.add_argument("--refuse-more", action="store_true", help="further connections are closed at once")
    parser.add_argument("--error-every", type=int, default=0, metavar="N", help="answer every Nth message AE")
    parser.add_argument("--reject-every", type=int, default=0, metavar="N", help="answer every Nth message AR")
    parser.add_argument("--application-after", type=parse_duration, default=0.0, help="AA so long after CA")
    parser.add_argument("--fault", type=Fault, choices=list(Fault), help="what goes wrong")
    parser.add_argument("--fault-every", type=int, default=1, metavar="N", help="with every Nth message")
    parser.add_argument("--late", type=parse_duration, default=1.0, help="how late the fault `late` is")
    parser.add_argument("--release", type=int, choices=(1, 2), default=1, help="of MLLP")
    return parser


def main() -> None:
    """Serve until told to stop."""
    arguments = _parser().parse_args()
    settings = ReceiverSettings(
        delay_s=arguments.delay,
        is_serial=arguments.serial,
        max_connections=arguments.max_connections,
        refuses_more=arguments.refuse_more,
        error_every=arguments.error_every,
        reject_every=arguments.reject_every,
        application_after_s=arguments.application_after,
        fault=arguments.fault,
        fault_every=arguments.fault_every,
        late_s=arguments.late,
        release=arguments.release,
    )
    serve(Receiver(settings, ReceiverLedger(arguments.ledger), SystemClock()), arguments)


if __name__ == "__main__":
    main()
