"""Writing to one peer: at once where the kernel takes it, else piece by piece as the peer takes it.

Source: ADR 0002 (reads go into one shared buffer, small writes straight to the descriptor).
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import cast

from equipoise.proto.mllp import Frame, Framing

READ_BYTES = 64 * 1024  # a read: a loop turn may make 32 of one connection, and others wait for it
_WRITE_BYTES = 2 * 1024 * 1024  # written in one loop turn, likewise


class Sent(Enum):
    """What became of bytes that were to be sent."""

    ALL = auto()
    SOME = auto()  # the rest follows
    NOTHING = auto()  # the connection is gone, and not a byte has left


class Stream:
    """The writing half of one connection.

    Args:
        drained: Called when all that waited has left.
    """

    __slots__ = ("_descriptor", "_drained", "_finish", "_left_bytes", "_pieces", "_secured", "transport")

    def __init__(self, transport: asyncio.BaseTransport, drained: Callable[[], None]) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses of asyncio's
        self._drained = drained
        self._pieces: deque[bytes] = deque()
        self._left_bytes = 0
        self._finish: Callable[[], None] | None = None
        self._descriptor: int = self.transport.get_extra_info("socket").fileno()
        self._secured = self.transport.get_extra_info("ssl_object") is not None
        # To hear when a peer that is behind has caught up; with 0 uvloop's TLS holds back without need.
        self.transport.set_write_buffer_limits(high=1 if self._secured else 0)

    @property
    def is_plain(self) -> bool:
        """Whether there is no TLS."""
        return not self._secured

    @property
    def descriptor(self) -> int:
        """The connection's file descriptor."""
        return self._descriptor

    @property
    def unsent_bytes(self) -> int:
        """What has not left yet."""
        return self._left_bytes + self.transport.get_write_buffer_size()

    def send(self, data: bytes) -> Sent:
        """Send bytes behind those that wait."""
        if self.transport.is_closing():
            return Sent.NOTHING
        if self._pieces:
            self._keep(data)
            return Sent.SOME
        if self._secured or self.transport.get_write_buffer_size():
            return self._hand_over(data)
        try:
            sent = os.write(self._descriptor, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.transport.abort()
            return Sent.NOTHING
        if sent == len(data):
            return Sent.ALL
        return self._hand_over(data[sent:])

    def send_frame(self, framing: Framing, frame: Frame) -> Sent:
        """Send a frame behind what waits; a long one is not copied to be put between its start and end."""
        if len(frame.chunks) == 1:
            return self.send(framing.wrap(frame.head))
        return self.send_pieces((framing.start, *frame.chunks, framing.end))

    def send_pieces(self, pieces: Iterable[bytes]) -> Sent:
        """Send what is too much to be copied into the transport at once."""
        if self.transport.is_closing():
            return Sent.NOTHING
        for piece in pieces:
            self._keep(piece)
        return self._pump()

    def caught_up(self) -> None:
        """Hear that the peer has taken what was handed over: the transport's `resume_writing`."""
        if self._pieces and self._pump() is not Sent.ALL:
            return
        if self._finish is not None and not self._pieces:
            finish, self._finish = self._finish, None
            finish()
        self._drained()

    def end(self, finish: Callable[[], None]) -> None:
        """Call `finish` when the transport has all that was to be sent."""
        if self._pieces:
            self._finish = finish
        else:
            finish()

    def drop(self) -> None:
        """Forget what has not left: the connection is gone."""
        self._pieces.clear()
        self._left_bytes = 0

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._left_bytes += len(piece)

    def _hand_over(self, data: bytes) -> Sent:
        self.transport.write(data)
        return Sent.SOME if self.transport.get_write_buffer_size() else Sent.ALL

    def _pump(self) -> Sent:
        """Hand pieces over until the transport holds one that the peer has not taken, or others should have a turn."""
        most_left_bytes = self._left_bytes - _WRITE_BYTES
        while self._pieces:
            if self.transport.is_closing():
                self.drop()
                return Sent.SOME
            piece = self._pieces.popleft()
            self._left_bytes -= len(piece)
            if self._hand_over(piece) is Sent.SOME:
                return Sent.SOME
            if self._pieces and self._left_bytes <= most_left_bytes:
                asyncio.get_running_loop().call_soon(self.caught_up)
                return Sent.SOME
        return Sent.ALL
