"""One connection to a receiver: it carries one message at a time, and is kept for the next one.

Source: IHE ITI TF-2, appendix C.2.1 (a connection may be kept and used again, and be closed by either side).
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, cast

from equipoise.base.tls_problems import handshake_problem
from equipoise.engines.gateway.hl7.exchange import Exchange, Sender
from equipoise.engines.gateway.hl7.stream import READ_BYTES, Sent, Stream
from equipoise.engines.gateway.member import Counters
from equipoise.engines.gateway.sockets import keep_alive
from equipoise.proto.mllp import Frame, FrameReader, FrameTooLongError, Framing

_MOST_EXPECTED = 256  # later answers that one connection may still bring
_ESTABLISHED = b"\x01"  # tcpi_state, the first byte of linux/tcp.h's tcp_info


class Host(Protocol):
    """What a connection needs of its service."""

    buffer: memoryview
    now: Callable[[], float]


class Owner(Protocol):
    """Whom a connection tells."""

    def all_sent(self, link: "Link") -> None:
        """Hear that the message has left."""

    def received(self, link: "Link", frame: Frame) -> None:
        """Take a frame from the receiver."""

    def settled(self, link: "Link") -> None:
        """Hear that it has said several things, and no message is under way."""

    def broken(self, link: "Link", why: str, reason: str) -> None:
        """Hear that what the receiver sends can not be read."""

    def lost(self, link: "Link", reason: str) -> None:
        """Hear that the connection is gone."""


class Link(asyncio.BufferedProtocol):
    """One connection to a node.

    Attributes:
        node: The node's name.
        port: The port that it is for: nodes without one are called at the port that the sender came to.
        exchange: The message that it carries.
        expects: Senders of messages that may be answered once more, by control ID.
        is_open: Whether it can be used.
        is_speaking: Whether more of what came at once is yet to be handed on.
        made_s: When it began to be opened.
        heard_s: When the last piece of an unfinished answer came.
    """

    __slots__ = (
        "_buffer",
        "_framing",
        "_is_cancelled",
        "_now",
        "_owner",
        "_reader",
        "_sock",
        "_stream",
        "_task",
        "answer_seen_bytes",
        "counters",
        "exchange",
        "expects",
        "heard_s",
        "is_open",
        "is_speaking",
        "made_s",
        "node",
        "port",
        "progress",
        "used_s",
    )

    def __init__(self, host: Host, owner: Owner, at: tuple[str, int], reader: FrameReader, framing: Framing) -> None:
        self._owner = owner
        self._buffer = host.buffer[:READ_BYTES]
        self._now = host.now
        self._framing = framing
        self._reader = reader
        self._stream: Stream | None = None
        self._sock: socket.socket | None = None
        self.node, self.port = at
        self.made_s = host.now()
        self.counters = Counters()
        self.exchange: Exchange | None = None
        self.expects: dict[bytes, Sender] = {}
        self.is_open = False
        self.used_s = self.heard_s = 0.0
        self.answer_seen_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._is_cancelled = self.is_speaking = False
        self.progress = 0

    # What asyncio asks of it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, unless it comes too late."""
        if self._is_cancelled:
            cast(asyncio.Transport, transport).abort()
            return
        self._stream = Stream(transport, self._drained)
        # Lent to us: it is looked at before every message, and making one each time would cost more than the look.
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=self._stream.descriptor)
        with suppress(OSError):
            keep_alive(self._sock)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_open = True

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next read goes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on whole frames; what comes after our end is dropped."""
        if not self.is_open:
            return
        self.counters.bytes_out += nbytes
        try:
            frames = self._reader.feed(bytes(self._buffer[:nbytes]))
        except FrameTooLongError as error:
            self._owner.broken(self, "too_long", f"sent an answer that {error}")
            return
        if self._reader.unfinished:
            self.heard_s = self._now()
        if len(frames) == 1 and not self._reader.unfinished:
            self._owner.received(self, frames[0])
        elif frames:
            self._speak(frames)

    def eof_received(self) -> bool:
        """Let the transport close: a receiver that sends no more acknowledges no more."""
        if self.is_open and self.may_have_answered:
            self.finish_answer()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the connection is gone."""
        self.is_open = False
        if self._stream is not None:
            self._stream.drop()
        if self._sock is not None:
            self._sock.detach()
            self._sock = None
        if isinstance(exc, ssl.SSLError):
            reason = handshake_problem(exc, server=False)
        elif isinstance(exc, OSError) and exc.strerror:
            reason = exc.strerror
        else:
            reason = "closed by the receiver"
        self._owner.lost(self, reason)

    def pause_writing(self) -> None:
        """Wait: `resume_writing` says when it goes on."""

    def resume_writing(self) -> None:
        """Go on with what waits."""
        if self._stream is not None:
            self._stream.caught_up()

    # What its owner asks of it

    @property
    def unsent_bytes(self) -> int:
        """What of the message has not left."""
        return 0 if self._stream is None else self._stream.unsent_bytes

    @property
    def answer_bytes(self) -> int:
        """What is here of an answer that is not whole."""
        return self._reader.unfinished

    @property
    def may_have_answered(self) -> bool:
        """Whether an answer is whole but for the last byte of its frame."""
        return self._reader.may_be_whole

    def finish_answer(self) -> None:
        """Take the answer that is here as whole."""
        self._owner.received(self, self._reader.finish())

    def send(self, frame: Frame) -> Sent:
        """Send a message."""
        stream = self._stream
        if stream is None or not self.is_open:
            return Sent.NOTHING
        self.answer_seen_bytes = 0
        self.counters.bytes_in += frame.size
        return stream.send_frame(self._framing, frame)

    def send_aside(self, frame: Frame) -> None:
        """Send something small that belongs to an earlier message."""
        if self._stream is not None and self.is_open:
            self._stream.send_frame(self._framing, frame)

    def is_usable(self) -> bool:
        """Look whether the receiver has closed it, and the event loop has not heard of that yet."""
        stream, sock = self._stream, self._sock
        if stream is None or sock is None or not self.is_open or self._reader.unfinished:
            return False
        if stream.transport.is_closing():
            return False
        try:
            return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == _ESTABLISHED
        except OSError:  # within TLS the descriptor is closed a moment before we hear of it
            return False

    def expect(self, control_id: bytes, sender: Sender) -> None:
        """Remember that a message may be answered once more."""
        self.expects[control_id] = sender
        if len(self.expects) > _MOST_EXPECTED:
            del self.expects[next(iter(self.expects))]

    def opening(self, task: asyncio.Task[None], counters: Counters) -> None:
        """Know the task that opens it, and what its bytes are counted in."""
        self._task, self.counters = task, counters

    def cancel(self) -> None:
        """Open it no further; it may stand already, and nobody have heard of it."""
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel()
        self.close()

    def close(self) -> None:
        """Close at once: what has not left does not matter any more."""
        self.is_open = False
        if self._stream is not None:
            self._stream.transport.abort()

    def part(self) -> None:
        """Close as one does who has nothing more to say."""
        self.is_open = False
        if self._stream is not None:
            self._stream.transport.close()

    def _speak(self, frames: list[Frame]) -> None:
        """Hand on several frames: the connection is free for another message only behind the last."""
        self.is_speaking = True
        for frame in frames:
            if self.is_open:
                self._owner.received(self, frame)
        self.is_speaking = False
        if self.is_open and self.exchange is None:
            self._owner.settled(self)

    def _drained(self) -> None:
        self._owner.all_sent(self)
