"""One connection of an association on an uvloop transport: reads into the shared buffer, writes, watches, closes.

Every read of every connection goes into the same buffer, and has been handled when the next one begins: see ADR 0002.
"""

import asyncio
import os
import ssl
from contextlib import suppress
from typing import Protocol, cast

from equipoise.base.tls_problems import handshake_problem
from equipoise.engines.gateway.relay import Data, Event, WriteStalled
from equipoise.engines.gateway.sockets import borrowed, keep_alive, taken

READ_BUFFER_BYTES = 1024 * 1024  # one a process, not one a connection; see docs/adr/0002 for what sizes were tried
MAX_DROPPED_BYTES = 1 << 20  # what a peer may still send after the end: more than is on its way at once
LINGER_S = 2.0  # how long a side that was told of the end may take to close, and last bytes to leave


class Owner(Protocol):
    """What a side tells its association."""

    loop: asyncio.AbstractEventLoop

    @property
    def stall_timeout_s(self) -> float:
        """How long a peer may take nothing of what waits for it."""

    def event(self, event: Event) -> None:
        """Hear what happened."""

    def received(self, side: "Side", data: memoryview) -> None:
        """Take bytes; they are valid during the call."""

    def drained(self, side: "Side") -> None:
        """Hear that all that waited has left."""

    def lost(self, side: "Side", why: str | None) -> None:
        """Hear that the connection is gone, and why where TLS says so."""


class Side(asyncio.BufferedProtocol):
    """One connection of an association: the client's, or a node's."""

    __slots__ = (
        "_association",
        "_buffer",
        "_descriptor",
        "_dropped",
        "_kept_alive",
        "_secured",
        "_stall_timer",
        "_unsent",
        "counted",
        "discards",
        "is_client",
        "transport",
    )

    def __init__(self, association: Owner, buffer: memoryview, *, is_client: bool) -> None:
        self._association = association
        self._buffer = buffer
        self._descriptor = -1
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self.is_client = is_client
        self._kept_alive = False
        self._secured = False  # by TLS
        self._dropped = 0
        self.counted = False  # among the association's open connections
        self.discards = False  # the end has been said; what still comes is read and dropped
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        stream = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses of asyncio's
        self.transport = stream
        self._descriptor = stream.get_extra_info("socket").fileno()
        self._secured = stream.get_extra_info("ssl_object") is not None
        # To hear of a peer that is behind, and when it has caught up; with 0 uvloop's TLS holds back without need.
        stream.set_write_buffer_limits(high=1 if self._secured else 0)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next read goes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what was read; after the end drop it, and a peer that goes on and on is cut off."""
        if not self.discards:
            self._association.received(self, self._buffer[:nbytes])
            return
        self._dropped += nbytes
        if self._dropped > MAX_DROPPED_BYTES and self.transport is not None:
            self.transport.abort()

    def eof_received(self) -> bool:
        """Let the transport close: DICOM has no half-closed connections (PS3.8 section 9.1.4)."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the connection is gone."""
        self._cancel_stall_timer()
        why = handshake_problem(exc, server=self.is_client) if isinstance(exc, ssl.SSLError) else None
        self._association.lost(self, why)

    def send(self, data: Data) -> bool:
        """Send; say whether all of it has left.

        What the kernel takes at once goes straight to it; the rest is copied, so that the buffer is free in any case.
        Under TLS all goes to the transport: the descriptor would send it in the clear.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return True
        if not self._secured and transport.get_write_buffer_size() == 0:
            try:
                sent = os.write(self._descriptor, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return True  # it is gone: what it said last may still be read, and then the end
            if sent == len(data):
                return True
            data = data[sent:]
        transport.write(bytes(data))
        return transport.get_write_buffer_size() == 0  # it tries once more: only what then waits is told of later

    def pause_writing(self) -> None:
        """Watch a peer that does not take what is sent."""
        if self._stall_timer is None:
            self._watch()

    def resume_writing(self) -> None:
        """Go on: everything has left."""
        self._cancel_stall_timer()
        self._association.drained(self)

    def keep_alive(self) -> None:
        """Notice a peer that vanished without a word.  Clients' connections have it from their listener."""
        peer = None if self.transport is None else self.transport.get_extra_info("peername")
        if peer is not None and not self._kept_alive:  # None: it is gone, and connection_lost will say so
            self._kept_alive = True
            with borrowed(self._descriptor, peer[0]) as sock, suppress(OSError):
                keep_alive(sock)

    def taken(self) -> tuple[int, float] | None:
        """Return the bytes that the peer has acknowledged, and for how many seconds some were on their way to it.

        None where that cannot be asked any more.
        """
        if self.transport is None or self.transport.is_closing():
            return None
        return taken(self._descriptor)

    def close(self, *, linger: bool) -> None:
        """Close once everything has left; with `linger` let the peer do it, which keeps our last words from a reset."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self.discards = True
        if linger:
            transport.resume_reading()
            self._association.loop.call_later(LINGER_S, transport.abort)
        else:
            transport.close()
            if transport.get_write_buffer_size():
                self._association.loop.call_later(LINGER_S, transport.abort)

    def _watch(self) -> None:
        if self.transport is None:
            return
        self._unsent = self.transport.get_write_buffer_size()
        self._stall_timer = self._association.loop.call_later(self._association.stall_timeout_s, self._look)

    def _look(self) -> None:
        """Report a peer that took nothing since the last look."""
        if self.transport is not None and self.transport.get_write_buffer_size() < self._unsent:
            self._watch()
        else:
            self._association.event(WriteStalled(client=self.is_client))

    def _cancel_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
