"""Carry out what a relay says, on uvloop transports: one `Association` for each client, with one node at a time.

Hot path: a read lands in the shared buffer, the relay looks on, the other side's transport writes from that same
buffer.  Back-pressure: what the kernel does not take at once keeps its buffer, and the side it came from is not read
until it has gone.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from equipoise.engines.gateway.buffers import BufferPool
from equipoise.engines.gateway.pool import Counters, Picked
from equipoise.engines.gateway.relay import (
    ClientClosed,
    CloseClient,
    CloseNode,
    Command,
    Data,
    Ended,
    Event,
    FromClient,
    FromNode,
    NodeClosed,
    NodeFailed,
    NodeOpened,
    NodePicked,
    OpenNode,
    PickNode,
    StartTimer,
    TimerExpired,
    ToClient,
    ToNode,
    WriteStalled,
)
from equipoise.engines.gateway.sockets import borrowed, keep_alive

_TIMER_RESOLUTION_S = 0.002  # libuv counts in milliseconds and may wake one early
MAX_DROPPED_BYTES = 1 << 20  # what a peer may still send after the end: more than is on its way at once
LINGER_S = 2.0  # how long a side that was told of the end may take to close, and last bytes to leave


class Relay(Protocol):
    """What the driver drives."""

    def start(self) -> list[Command]:
        """Return what to do first."""

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Return what to do now."""


class Host(Protocol):
    """What an association needs of its service."""

    buffers: BufferPool
    now: Callable[[], float]  # finer than the loop's time, which counts in milliseconds

    @property
    def stall_timeout_s(self) -> float:
        """How long a peer may take nothing of what waits for it."""

    def wants_node(self, association: "Association", calling_ae: str, tried: tuple[str, ...]) -> None:
        """Pick a node, now or when one is free; the answer comes as an event."""

    def connect(self, association: "Association", picked: Picked, side: "Side") -> asyncio.Task[None]:
        """Begin to connect; the outcome comes as an event."""

    def ended(self, association: "Association", record: Ended) -> None:
        """Hear that the conversation is over: its node is free."""

    def gone(self, association: "Association") -> None:
        """Hear that all its connections are closed."""


class Side(asyncio.BufferedProtocol):
    """One connection of an association: the client's, or a node's."""

    __slots__ = (
        "_association",
        "_dropped",
        "_kept",
        "_kept_alive",
        "_pool",
        "_stall_timer",
        "_unsent",
        "counted",
        "discards",
        "is_client",
        "transport",
    )

    def __init__(self, association: "Association", pool: BufferPool, *, is_client: bool) -> None:
        self._association = association
        self._pool = pool
        self._kept: list[memoryview] = []
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self.is_client = is_client
        self._kept_alive = False
        self._dropped = 0
        self.counted = False  # among the association's open connections
        self.discards = False  # the end has been said; what still comes is read and dropped
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        stream = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses of asyncio's
        self.transport = stream
        stream.set_write_buffer_limits(high=0)  # so that a write that returns unpaused has surely left

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next read goes."""
        return self._pool.lend()

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what was read; after the end drop it, and a peer that goes on and on is cut off."""
        if not self.discards:
            self._association.received(self, self._pool.lend()[:nbytes])
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
        self._pool.forget(len(self._kept))  # the transport may hold them for a moment longer
        self._kept.clear()
        self._association.lost(self)

    def send(self, data: Data) -> bool:
        """Send; say whether all of it has left.  A view that has not is kept from being read into."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return True
        transport.write(data)
        if transport.get_write_buffer_size() == 0:
            return True
        if isinstance(data, memoryview):
            self._kept.append(self._pool.keep())
        return False

    def pause_writing(self) -> None:
        """Watch a peer that does not take what is sent."""
        if self._stall_timer is None:
            self._watch()

    def resume_writing(self) -> None:
        """Go on: everything has left."""
        self._cancel_stall_timer()
        for buffer in self._kept:
            self._pool.give_back(buffer)
        self._kept.clear()
        self._association.drained(self)

    def keep_alive(self) -> None:
        """Notice a peer that vanished without a word.  Clients' connections have it from their listener."""
        if self.transport is not None and not self._kept_alive:
            self._kept_alive = True
            host = self.transport.get_extra_info("peername")[0]
            with borrowed(self.transport.get_extra_info("socket").fileno(), host) as sock:
                keep_alive(sock)

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


class Association:
    """One client's connection, the relay that follows it, and the node that serves it."""

    __slots__ = (
        "_client",
        "_connecting",
        "_deadline_s",
        "_fires_s",
        "_host",
        "_node",
        "_open_sides",
        "_relay",
        "_timer",
        "began_s",
        "bytes_in",
        "bytes_out",
        "client_host",
        "client_port",
        "counters",
        "loop",
        "over",
        "picked",
        "server_port",
    )

    def __init__(self, host: Host, relay: Relay, client: tuple[str, int], server_port: int) -> None:
        self.loop = asyncio.get_running_loop()
        self._host = host
        self._relay = relay
        self._client = Side(self, host.buffers, is_client=True)
        self._node: Side | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline_s = self._fires_s = 0.0
        self._open_sides = 0
        self.client_host, self.client_port = client
        self.server_port = server_port
        self.picked: Picked | None = None
        self.counters = Counters()  # of the picked node; nobody's before that
        self.began_s = host.now()
        self.bytes_in = self.bytes_out = 0
        self.over = False

    @property
    def client_side(self) -> Side:
        """The protocol for the client's connection."""
        return self._client

    @property
    def stall_timeout_s(self) -> float:
        """How long a peer may take nothing."""
        return self._host.stall_timeout_s

    def begin(self) -> None:
        """Start: the client's connection stands."""
        self._count(self._client)
        self._carry_out(self._relay.start())

    def event(self, event: Event) -> None:
        """Tell the relay, and do what it says."""
        self._carry_out(self._relay.handle(event, self._host.now()))

    def received(self, side: Side, data: memoryview) -> None:
        """Take bytes of either side."""
        size = len(data)
        if side.is_client:
            self.bytes_in += size
            self.counters.bytes_in += size
            self.event(FromClient(data))
        elif side is self._node:
            self.bytes_out += size
            self.counters.bytes_out += size
            self.event(FromNode(data))

    def drained(self, side: Side) -> None:
        """Read on from the side opposite to one whose bytes have all left."""
        other = self._node if side.is_client else self._client
        if other is not None and other.transport is not None and not other.transport.is_closing():
            other.transport.resume_reading()

    def lost(self, side: Side) -> None:
        """Hear that a connection is gone."""
        if not side.counted:
            return  # its connecting was cancelled
        self._open_sides -= 1
        if side.is_client:
            self.event(ClientClosed())
        elif side is self._node:
            self._node = None
            if not side.discards:
                self.event(NodeClosed())
        if self._open_sides == 0 and self.over:
            self._host.gone(self)

    def node_picked(self, picked: Picked, counters: Counters) -> None:
        """Take the place that the service found."""
        self.picked, self.counters = picked, counters
        counters.bytes_in += self.bytes_in  # the request, which came before its node was known
        self.event(NodePicked(picked.node.name, picked.alternatives))

    def node_opened(self, side: Side) -> None:
        """Take the connection to the node."""
        self._connecting = None
        self._node = side
        self._count(side)
        self.event(NodeOpened())

    def node_failed(self, reason: str) -> None:
        """Hear that there is none."""
        self._connecting = None
        self.event(NodeFailed(reason))

    def _count(self, side: Side) -> None:
        side.counted = True
        self._open_sides += 1

    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case ToNode(data):
                    self._send(self._node, self._client, data)
                case ToClient(data):
                    self._send(self._client, self._node, data)
                case StartTimer(seconds):
                    self._start_timer(seconds)
                case PickNode(calling_ae, tried):
                    self._host.wants_node(self, calling_ae, tried)
                case OpenNode():
                    self._open_node()
                case CloseNode(linger):
                    self._close_node(linger=linger)
                case CloseClient():
                    self._cancel_timer()
                    self._client.close(linger=False)
                case Ended():
                    self._end(command)

    def _send(self, target: Side | None, source: Side | None, data: Data) -> None:
        if target is None or target.send(data) or not isinstance(data, memoryview):
            return
        if source is not None and source.transport is not None and not source.discards:
            source.transport.pause_reading()

    def _open_node(self) -> None:
        if self.picked is None:
            raise AssertionError("no node was picked")
        side = Side(self, self._host.buffers, is_client=False)
        self._connecting = self._host.connect(self, self.picked, side)

    def _close_node(self, *, linger: bool) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._node is not None:
            self._node.close(linger=linger)
            self._node = None
            if self._client.transport is not None and not self._client.transport.is_closing():
                self._client.transport.resume_reading()  # it may have been held back for this node's sake

    def _end(self, record: Ended) -> None:
        self.over = True
        self._host.ended(self, record)
        self.counters = Counters()

    def _start_timer(self, seconds: float) -> None:
        """Set the deadline; a handle that fires before it is kept, and looks again then.

        Most associations end before any deadline, and making handles is what costs.
        """
        self._deadline_s = self.loop.time() + seconds
        if self._timer is not None:
            if self._fires_s <= self._deadline_s:
                return
            self._timer.cancel()
        self._wake_at(self._deadline_s)

    def _wake_at(self, fires_s: float) -> None:
        self._fires_s = fires_s
        self._timer = self.loop.call_at(fires_s, self._woken)

    def _woken(self) -> None:
        self._timer = None
        if self._node is not None:
            self._node.keep_alive()  # only now: most associations are over sooner, and it costs five system calls
        if self.loop.time() < self._deadline_s - _TIMER_RESOLUTION_S:
            self._wake_at(self._deadline_s)
        else:
            self.event(TimerExpired())

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
