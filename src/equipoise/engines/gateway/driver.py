"""Carry out what a relay says, on uvloop transports: one `Association` for each client, with one node at a time.

Hot path: a read lands in the shared buffer, the relay looks on, the other side sends from that same buffer.
Back-pressure: while a side has not taken what was sent, the one that it came from is not read.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from equipoise.engines.gateway.arrival import Arrival
from equipoise.engines.gateway.member import Counters
from equipoise.engines.gateway.pool import Picked
from equipoise.engines.gateway.relay import (
    Blame,
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
)
from equipoise.engines.gateway.side import Side

_WORTH_ASKING_BYTES = 1_000_000  # what less says of a node's speed is not worth a system call


class Relay(Protocol):
    """What the driver drives."""

    def start(self) -> list[Command]:
        """Return what to do first."""

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Return what to do now."""


class Host(Protocol):
    """What an association needs of its service."""

    buffer: memoryview  # where every read goes
    now: Callable[[], float]  # finer than the loop's time, which counts in milliseconds

    @property
    def stall_timeout_s(self) -> float:
        """How long a peer may take nothing of what waits for it."""

    def wants_node(self, association: "Association", pool: str, calling_ae: str, tried: tuple[str, ...]) -> None:
        """Pick a node of that service's pool, now or when one is free; the answer comes as an event."""

    def blame(self, association: "Association", kind: str, reason: str) -> None:
        """Hold a failure against the picked node."""

    def connect(self, association: "Association", picked: Picked, side: Side) -> asyncio.Task[None]:
        """Begin to connect; the outcome comes as an event."""

    def ended(self, association: "Association", record: Ended) -> None:
        """Hear that the conversation is over: its node is free."""

    def gone(self, association: "Association") -> None:
        """Hear that all its connections are closed."""


class Association:
    """One client's connection, the relay that follows it, and the node that serves it."""

    __slots__ = (
        "_client",
        "_connecting",
        "_deadline_s",
        "_fires_s",
        "_node",
        "_open_sides",
        "_relay",
        "_taken",
        "_timer",
        "arrival",
        "began_s",
        "blamed",
        "bytes_in",
        "bytes_out",
        "calling_ae",
        "counters",
        "host",
        "loop",
        "over",
        "picked",
        "routed_from",
        "uncount",
    )

    def __init__(self, host: Host, relay: Relay, arrival: Arrival) -> None:
        self.loop = asyncio.get_running_loop()
        self.host = host  # a route may lead it to another
        self._relay = relay
        self._client = Side(self, host.buffer, is_client=True)
        self._node: Side | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline_s = self._fires_s = 0.0
        self._open_sides = 0
        self._taken = (0, 0.0)
        self.arrival = arrival
        self.calling_ae = ""
        self.routed_from: str | None = None
        self.picked: Picked | None = None
        self.uncount: Callable[[], None] | None = None  # from what its source has open, when it is gone
        self.blamed = False  # whether something was held against the picked node
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
        return self.host.stall_timeout_s

    def begin(self) -> None:
        """Start: the client's connection stands."""
        self._count(self._client)
        self._carry_out(self._relay.start())

    def event(self, event: Event) -> None:
        """Tell the relay, and do what it says."""
        self._carry_out(self._relay.handle(event, self.host.now()))

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

    def lost(self, side: Side, why: str | None) -> None:
        """Hear that a connection is gone, and why where TLS says so."""
        if not side.counted:
            return  # its connecting was cancelled
        self._open_sides -= 1
        if side.is_client:
            self.event(ClientClosed())
        elif side is self._node:
            self._node = None  # what it took since it was last asked is not known any more
            if not side.discards:
                self.event(NodeClosed(why))
        if self._open_sides == 0 and self.over:
            self.host.gone(self)

    def taken(self) -> tuple[int, float]:
        """Return the bytes that the node has acknowledged, and for how many seconds some were on their way to it."""
        if self._node is not None and self.bytes_in >= _WORTH_ASKING_BYTES:
            self._taken = self._node.taken() or self._taken
        return self._taken

    def node_picked(self, picked: Picked, counters: Counters) -> None:
        """Take the place that the service found."""
        self.picked, self.counters, self.blamed = picked, counters, False
        self._taken = (0, 0.0)
        counters.bytes_in += self.bytes_in  # the request, which came before its node was known
        self.event(NodePicked(picked.node.name, picked.alternatives))

    def node_opened(self, side: Side) -> None:
        """Take the connection to the node."""
        self._connecting = None
        self._node = side
        self._count(side)
        self.event(NodeOpened())

    def node_failed(self, reason: str, *, ours: bool) -> None:
        """Hear that there is none; `ours`: for a reason of this machine."""
        self._connecting = None
        self.event(NodeFailed(reason, ours))

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
                case CloseClient():
                    self._cancel_timer()
                    self._client.close(linger=False)
                case Ended():
                    self._end(command)
                case _:
                    self._arrange(command)

    def _arrange(self, command: PickNode | OpenNode | CloseNode | Blame) -> None:
        """Carry out what concerns which node it is."""
        match command:
            case PickNode(pool, calling_ae, tried):
                self.calling_ae = calling_ae
                self.host.wants_node(self, pool, calling_ae, tried)
            case OpenNode():
                self._open_node()
            case CloseNode(linger):
                self._close_node(linger=linger)
            case Blame(kind, reason):
                self.blamed = True
                self.host.blame(self, kind, reason)

    def _send(self, target: Side | None, source: Side | None, data: Data) -> None:
        if target is None or target.send(data):
            return
        if source is not None and source.transport is not None and not source.discards:
            source.transport.pause_reading()

    def _open_node(self) -> None:
        if self.picked is None:
            raise AssertionError("no node was picked")
        side = Side(self, self.host.buffer, is_client=False)
        self._connecting = self.host.connect(self, self.picked, side)

    def _close_node(self, *, linger: bool) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._node is not None:
            self.taken()
            self._node.close(linger=linger)
            self._node = None
            if self._client.transport is not None and not self._client.transport.is_closing():
                self._client.transport.resume_reading()  # it may have been held back for this node's sake

    def _end(self, record: Ended) -> None:
        self.over = True
        self.host.ended(self, record)
        self.counters = Counters()

    def _start_timer(self, seconds: float) -> None:
        """Set the deadline; a handle that fires before it is kept, and looks again then.

        Most associations end before any deadline, and making handles is what costs.
        """
        self._deadline_s = self.host.now() + seconds
        if self._timer is not None:
            if self._fires_s <= self._deadline_s:
                return
            self._timer.cancel()
        self._wake_at(self._deadline_s)

    def _wake_at(self, fires_s: float) -> None:
        self._fires_s = fires_s
        self._timer = self.loop.call_later(max(fires_s - self.host.now(), 0.0), self._woken)

    def _woken(self) -> None:
        self._timer = None
        if self._node is not None:
            self._node.keep_alive()  # only now: most associations are over sooner, and it costs five system calls
        if self.host.now() < self._deadline_s:  # the loop counts in milliseconds and may wake us a little early
            self._wake_at(self._deadline_s)
        else:
            self.event(TimerExpired())

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
