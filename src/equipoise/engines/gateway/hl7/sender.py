"""One connection of a sender: its bytes become messages, one under way at a time, and answers go back to it.

What a sender says while a message is under way waits: a little of it here, the rest in its own socket.
Source: HL7 "Transport Specification: MLLP, Release 1" and "Release 2"; IHE ITI TF-2, appendix C.2.1.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from equipoise.base.errors import PeerError
from equipoise.engines.gateway.arrival import Arrival
from equipoise.engines.gateway.hl7.dispatch import SILENCE_S, Dispatch
from equipoise.engines.gateway.hl7.exchange import Exchange, Stage
from equipoise.engines.gateway.hl7.large import LARGE_BYTES, Large
from equipoise.engines.gateway.hl7.stream import READ_BYTES, Sent, Stream
from equipoise.engines.gateway.side import LINGER_S, MAX_DROPPED_BYTES
from equipoise.plan.model import Endpoint
from equipoise.policy.base import Client
from equipoise.proto.hl7 import Header, read_acknowledgement, read_header
from equipoise.proto.mllp import ACK, NAK, Frame, FrameReader, FrameTooLongError, Framing

# Of an unfinished message within stall_timeout, and of one that has a place among the long ones, for which others wait.
_PROGRESS_BYTES, _LONG_PROGRESS_BYTES = 16 * 1024, 1024 * 1024
_MOST_SKIPPED_BYTES = 64 * 1024  # in no frame, in a row: blanks between two messages are far fewer
_FEW_SKIPPED_BYTES = 16
_MOST_TYPES = 64  # of messages that a connection's end tells of; more are counted together


class Host(Protocol):
    """What a sender's connection needs of its service."""

    buffer: memoryview
    now: Callable[[], float]
    dispatch: Dispatch
    large: Large
    is_leaving: bool

    @property
    def stall_timeout_s(self) -> float:
        """How long a peer may leave something unfinished, or unread."""

    def watch(self, sender: "SenderConnection") -> None:
        """Have `sweep` called until it says that there is nothing to watch."""

    def ended(self, sender: "SenderConnection", ended: str, reason: str) -> None:
        """Hear how a connection ended; it may take a moment to be closed."""

    def gone(self, sender: "SenderConnection") -> None:
        """Hear that it is closed."""


class SenderConnection(asyncio.BufferedProtocol):
    """One sender's connection; to messages it is `exchange.Sender`, to where it arrives an `entrance.Guest`.

    Attributes:
        said: What it calls itself: MSH-3 and MSH-4 of its last message.
        counts: Messages by type and what was answered.
    """

    def __init__(self, host: Host, arrival: Arrival, framing: Framing, max_bytes: int, refusal: str | None) -> None:
        self._host, self._framing, self._refusal = host, framing, refusal
        self._buffer = host.buffer[:READ_BYTES]
        self._reader = FrameReader(framing, max_bytes)
        self._frames: deque[Frame] = deque()
        self._stream: Stream | None = None
        self._exchange: Exchange | None = None
        self._advancing = self._paused = self._half_closed = self._is_long = self._is_behind = False
        self._dropped_bytes = self._framed_at = 0
        self._heard_s = self._mark_s = 0.0
        self._mark_bytes, self._unsent_bytes = -1, 0
        self.arrival = arrival
        self.name = str(Endpoint(*arrival.client))
        self.client = Client(arrival.client[0], "")
        self.home: str | None = None
        self.looked_s = self.began_s = host.now()
        self.is_gone = False
        self.owes: dict[bytes, Callable[[Frame], None]] = {}
        self.uncount: Callable[[], None] | None = None
        self.said = (b"", b"")
        self.counts: dict[tuple[str, str], int] = {}
        self.bytes_in = self.bytes_out = 0

    # What its entrance asks of it

    @property
    def client_side(self) -> asyncio.BaseProtocol:
        """The protocol for the connection."""
        return self

    def begin(self) -> None:
        """Start: the connection stands."""
        if self._refusal is not None:
            self.close("refused", self._refusal)
        elif self._host.is_leaving:
            self.part()  # it was entering when the gateway began to drain

    # What asyncio asks of it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._stream = Stream(transport, self._answers_left)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next read goes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read; after the end it is dropped, and a sender that goes on and on is cut off."""
        if self.is_gone:
            self._drop(nbytes)
            return
        self.bytes_in += nbytes
        try:
            frames = self._reader.feed(bytes(self._buffer[:nbytes]))
        except FrameTooLongError as error:
            self.close("too_long", f"a message {error}")
            return
        if frames:
            self._framed_at = (
                self._reader.skipped
            )  # interfaces live for days, and many send a line end behind each message
            self._frames.extend(frames)
            self._advance()
        elif self._skipped_bytes > _MOST_SKIPPED_BYTES:
            self.close("malformed", self._not_framed)
            return
        if self._reader.unfinished:
            self._heard_s = self._host.now()
            self._host.watch(self)
        if self._frames or self._reader.unfinished > LARGE_BYTES:
            self._hold_back()

    def eof_received(self) -> bool:
        """Keep a connection open whose sender sends no more and waits for its answers."""
        if self._reader.may_be_whole:
            self._finish_frame()
        self._half_closed = True
        return self._exchange is not None and self._stream is not None and self._stream.is_plain

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the sender has left."""
        if self._stream is not None:
            self._stream.drop()
        if self._exchange is not None:
            self._end("gone", f"the sender left before it had an answer to {self._exchange.said}")
        elif self._reader.unfinished:
            self._end("gone", "the sender left in the middle of a message")
        elif not self.counts and self._skipped_bytes > _FEW_SKIPPED_BYTES:
            self._end("malformed", self._not_framed)
        else:
            self._end("closed", "closed by the sender")
        self._host.gone(self)

    def pause_writing(self) -> None:
        """Watch a sender that does not take its answer."""
        if self._stream is not None:
            self._unsent_bytes, self._mark_s = self._stream.unsent_bytes, self._host.now()
        self._host.watch(self)

    def resume_writing(self) -> None:
        """Go on with what waits."""
        if self._stream is not None:
            self._stream.caught_up()

    # What messages ask of it: see exchange.Sender

    def answer(self, frame: Frame) -> None:
        """Send an answer."""
        stream = self._stream
        if stream is None or self.is_gone:
            return
        self.bytes_out += frame.size
        self._is_behind = stream.send_frame(self._framing, frame) is Sent.SOME

    def finished(self, kind: str, answer: str) -> None:
        """Go on to the next message."""
        self._exchange = None
        self._count(kind, answer)
        if self.is_gone:
            self._leave_large()
            return
        if self._host.is_leaving:
            self.part()
        elif self._half_closed and not self._frames:
            self.close("closed", "closed by the sender")
        elif not self._advancing and (self._frames or self._paused or self._is_long):
            self._advance()

    def look_again(self) -> None:
        """Go on to what waits and need not wait any more."""
        if self._frames and not self._advancing:
            self._advance()

    def close(self, ended: str, reason: str) -> None:
        """Close: what was answered before still leaves."""
        self._end(ended, reason)
        stream = self._stream
        if stream is None or stream.transport.is_closing():
            return
        linger_s = self._host.stall_timeout_s if stream.unsent_bytes else LINGER_S
        asyncio.get_running_loop().call_later(linger_s, stream.transport.abort)
        stream.end(stream.transport.close)

    # What its service asks of it

    @property
    def is_busy(self) -> bool:
        """Whether a message is under way."""
        return self._exchange is not None

    def part(self) -> None:
        """Close between two messages, and let the sender hear it before a reset could take its last answer away."""
        stream = self._stream
        self._end("drained", "this gateway drains: the sender is to connect again")
        if stream is None or stream.transport.is_closing():
            return
        linger_s = self._host.stall_timeout_s if stream.unsent_bytes else LINGER_S
        asyncio.get_running_loop().call_later(linger_s, stream.transport.abort)
        stream.end(stream.transport.write_eof if stream.is_plain else stream.transport.close)
        self._resume()

    def read_on(self) -> None:
        """Go on with a long message that had to wait for others."""
        if not self._frames:
            self._resume()

    def sweep(self, now_s: float) -> bool:
        """Look after what is unfinished; say whether there is anything left to watch."""
        if self.is_gone or self._stream is None:
            return False
        if self._reader.may_be_whole and now_s - self._heard_s >= SILENCE_S:
            self._finish_frame()
        self._look_at_answers(self._stream, now_s)
        self._look_at_message(now_s)
        return bool(self._reader.unfinished or self._stream.unsent_bytes) and not self.is_gone

    # Inside

    def _advance(self) -> None:
        """Begin messages until one is under way."""
        self._advancing = True
        try:
            while self._frames and not self.is_gone and self._is_ready_for(self._frames[0]):
                if self._exchange is None and self._frames:
                    self._take(self._frames.popleft())
        finally:
            self._advancing = False
        if self._is_long and self._exchange is None and self._reader.unfinished <= LARGE_BYTES:
            self._leave_large()
        if not self._frames:
            self._resume()

    def _is_ready_for(self, frame: Frame) -> bool:
        """Say whether a frame can be taken now; it may itself end what is under way."""
        exchange = self._exchange
        if exchange is None:
            return not self._is_behind
        delivery = self._host.dispatch.delivery
        if exchange.stage is Stage.CONFIRMATION:
            if frame.size == 1 and frame.head in (ACK, NAK):
                self._frames.popleft()
                delivery.confirmed(exchange, frame)
            else:
                delivery.unconfirmed(exchange)
        elif exchange.stage is Stage.ANSWER:
            delivery.hurry(exchange)
        return self._exchange is None

    def _take(self, frame: Frame) -> None:
        """Begin a message."""
        if frame.size == 1 and frame.head in (ACK, NAK):
            return  # it commits what nobody asked it to
        try:
            header = read_header(frame.head)
            self.said = header.sending
            if self.owes and self._acknowledges(frame, header):
                return
            exchange = self._host.dispatch.begin(self, frame, header)
        except PeerError as error:
            self.close("malformed", str(error))
            return
        self._exchange = None if exchange.stage is Stage.OVER else exchange

    def _acknowledges(self, frame: Frame, header: Header) -> bool:
        """Pass on what a sender says to a later answer; say whether this was that, rather than a message.

        While such an answer is remembered, an acknowledgement of another is dropped; else it is a message: the service
        carries what receivers of the other direction send by connections of their own.
        """
        acknowledgement = read_acknowledgement(frame.head)
        pass_on = self.owes.pop(acknowledgement.control_id, None) if acknowledgement else None
        if pass_on is not None:
            pass_on(frame)
        elif not header.kind.startswith("ACK"):
            return False
        self._count(header.kind, "passed" if pass_on is not None else "dropped")
        return True

    def _count(self, kind: str, answer: str) -> None:
        key = (kind, answer) if len(self.counts) < _MOST_TYPES else ("other", answer)
        self.counts[key] = self.counts.get(key, 0) + 1

    def _end(self, ended: str, reason: str) -> None:
        """Have nothing more to do with the sender; its connection may take a moment to be closed."""
        if self.is_gone:
            return
        self.is_gone = True
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.stage is Stage.OVER:
            self._count(exchange.header.kind, "closed")
        self._frames.clear()
        self._host.ended(self, ended, reason)
        if exchange is None or exchange.stage not in (Stage.WRITING, Stage.ANSWER):
            self._leave_large()  # else its message is still held
        self._host.dispatch.sender_gone(self, exchange)

    @property
    def _skipped_bytes(self) -> int:
        """Bytes in no frame since the last one."""
        return self._reader.skipped - self._framed_at

    @property
    def _not_framed(self) -> str:
        return (
            f"{self._skipped_bytes} bytes came in no frame; are frame_start and frame_end the sender's, and is it TLS "
            "on a plain port?"
        )

    def _drop(self, nbytes: int) -> None:
        self._dropped_bytes += nbytes
        if self._dropped_bytes > MAX_DROPPED_BYTES and self._stream is not None:
            self._stream.transport.abort()

    def _finish_frame(self) -> None:
        try:
            self._frames.append(self._reader.finish())
        except FrameTooLongError as error:
            self.close("too_long", f"a message {error}")
            return
        self._advance()

    def _hold_back(self) -> None:
        """Read no more while messages wait, or while too many others are long."""
        if not self._frames and self._exchange is None:
            self._is_long = True
            if self._host.large.enter(self):
                return
        if not self._paused and self._stream is not None and not self._stream.transport.is_closing():
            self._paused = True
            self._stream.transport.pause_reading()

    def _leave_large(self) -> None:
        self._is_long = False
        self._host.large.leave(self)

    def _resume(self) -> None:
        if self._paused and self._stream is not None and not self._stream.transport.is_closing():
            self._paused = False
            self._mark_s, self._mark_bytes = self._host.now(), self.bytes_in
            self._stream.transport.resume_reading()

    def _answers_left(self) -> None:
        """Go on: the sender has taken its answers."""
        self._unsent_bytes = 0
        self._is_behind = False
        self.look_again()

    def _look_at_answers(self, stream: Stream, now_s: float) -> None:
        unsent_bytes = stream.unsent_bytes
        if not unsent_bytes or unsent_bytes < self._unsent_bytes or not self._unsent_bytes:
            self._unsent_bytes, self._mark_s = unsent_bytes, now_s if unsent_bytes else self._mark_s
        elif now_s - self._mark_s >= self._host.stall_timeout_s:
            self.close("stalled", f"took nothing of its answer for {self._host.stall_timeout_s:g} s")
            stream.transport.abort()

    def _look_at_message(self, now_s: float) -> None:
        """End a connection that leaves its message unfinished; one that we hold back is not to blame."""
        waits = self._paused and self._is_long and self._exchange is None
        if not self._reader.unfinished or (self._paused and not waits) or self.is_gone or self._unsent_bytes:
            self._mark_bytes = -1
        elif self._mark_bytes < 0:
            self._mark_s, self._mark_bytes = now_s, self.bytes_in
        elif now_s - self._mark_s >= self._host.stall_timeout_s:
            if waits:
                self.close("full", f"a long message waited {self._host.stall_timeout_s:g} s for other long ones")
            elif self.bytes_in - self._mark_bytes < (_LONG_PROGRESS_BYTES if self._is_long else _PROGRESS_BYTES):
                self.close("stalled", f"left a message unfinished for {self._host.stall_timeout_s:g} s")
            self._mark_s, self._mark_bytes = now_s, self.bytes_in
