"""A client's connection before there is an association: counted, its PROXY header read, TLS agreed on.

Knows no protocol: what comes behind header and handshake is the association's, and what a client hears that is turned
away is the host's.  A plain service without a header hands a client on at once.  Everything here has a time limit, for
DICOM the ARTIM timer's, and holds a place in the process.
Source: DICOM PS3.8 section 9.1.2 (ARTIM) and PS3.15 annex B.12; "The PROXY protocol", section 2.
"""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

from equipoise.base.errors import PeerError
from equipoise.base.tls import start_tls
from equipoise.base.tls_problems import handshake_problem, peer_names
from equipoise.engines.gateway.arrival import Arrival
from equipoise.engines.gateway.room import Room
from equipoise.engines.gateway.side import LINGER_S
from equipoise.plan.model import Endpoint
from equipoise.proto.proxy_protocol import Address, HeaderReader, NoHeaderError

Handshake: TypeAlias = Awaitable[tuple[asyncio.Transport, ssl.SSLObject]]


@dataclass(frozen=True, slots=True)
class NotLetIn:
    """Why a connection is turned away before it has said anything: what the event says."""

    ended: str
    reason: str


class Guest(Protocol):
    """What a client becomes that is let in.

    Attributes:
        uncount: Takes it out of what its source has open, when it is gone.
    """

    uncount: Callable[[], None] | None

    @property
    def client_side(self) -> asyncio.BaseProtocol:
        """The protocol for the client's connection."""

    def begin(self) -> None:
        """Start: the client's connection stands."""


class Host(Protocol):
    """What an entrance needs of its service."""

    buffer: memoryview
    room: Room

    @property
    def farewell(self) -> bytes:
        """What a client hears that is turned away before it has said anything."""

    @property
    def patience_s(self) -> float:
        """How long a client may take."""

    @property
    def expects_header(self) -> bool:
        """Whether clients come with a PROXY header."""

    def context(self, port: int) -> ssl.SSLContext | None:
        """Return what TLS on this port is agreed by, None where it is plain.  Raises: PeerError where it cannot be."""

    def enter(self, entrance: "Entrance", peer: Address) -> NotLetIn | None:
        """Give the connection a place in the process, unless it may not have one."""

    def crowded(self, entrance: "Entrance", source_ip: str) -> str | None:
        """Count the connection for its source; return why that may not have one more."""

    def unwelcome(self, session: ssl.SSLObject) -> str | None:
        """Return why a client may not come in with the certificate that it showed, or did not show."""

    def left(self, entrance: "Entrance") -> None:
        """Take back the place of a connection that comes to nothing."""

    def not_taken(self, ended: str, reason: str, client: str = "unknown") -> None:
        """Tell of a client that is not let in."""

    def agree(self, entrance: "Entrance", handshake: Handshake) -> asyncio.Task[None]:
        """Run the entrance's `secure`."""

    def accepted(self, entrance: "Entrance", arrival: Arrival) -> Guest:
        """Return what this client becomes; it takes over the place."""


class Entrance(asyncio.BufferedProtocol):
    """One client that has just connected."""

    __slots__ = (
        "_deadline",
        "_host",
        "_loop",
        "_lost",
        "_parting",
        "_peer",
        "_port",
        "_reader",
        "_server",
        "_task",
        "_transport",
    )

    def __init__(self, host: Host, port: int) -> None:
        self._host = host
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._reader: HeaderReader | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None  # None: not entered yet, or left
        self._lost = False
        self._parting: asyncio.Transport | None = None  # once it is turned away
        self._peer: Address = ("", 0)
        self._server: Address = ("", 0)

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the client in, or say that there is no room for it."""
        stream = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses of asyncio's
        peer, server = stream.get_extra_info("peername"), stream.get_extra_info("sockname")
        if peer is None or server is None:
            self._host.not_taken("no_request", "gone before it was asked who it is")
            stream.abort()
            return
        self._peer, self._server = (peer[0], peer[1]), (server[0], server[1])
        if (refused := self._host.enter(self, self._peer)) is not None:
            self._turn_away(stream, refused.ended, refused.reason)
            return
        self._transport = stream
        if self._host.expects_header:
            self._reader = HeaderReader()
            self._set_deadline()
        else:
            self._proceed()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next read goes: never more than the header's, for what follows belongs to others."""
        return self._host.buffer[: self._reader.wanted()] if self._reader is not None else self._host.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read on in the header; what a client that is turned away still sends is dropped."""
        if self._reader is None:
            return
        try:
            header = self._reader.feed(bytes(self._host.buffer[:nbytes]))
        except NoHeaderError as error:
            self._refuse("proxy_failed", f"{error}; proxy_protocol.accept is set, so every client must send a header")
            return
        except PeerError as error:
            self._refuse("proxy_failed", str(error))
            return
        if header is not None:
            self._reader = None
            self._peer = header.source or self._peer
            self._server = header.destination or self._server
            self._proceed()

    def eof_received(self) -> bool:
        """Let the transport close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the client is gone; while TLS is agreed on, that ends with an error of its own."""
        self._lost = True
        if self._parting is not None:
            self._host.room.parted(self)
        if self._task is None and self._transport is not None:
            self._refuse("no_request", "closed before its PROXY header was whole")

    # The stages

    def abort(self, reason: str) -> None:
        """End now: the service is being stopped."""
        self._refuse("drained", reason)

    def cut_off(self) -> None:
        """Wait no longer until a client that is turned away has gone."""
        if self._parting is not None:
            self._parting.abort()

    def _proceed(self) -> None:
        """Go on behind the header."""
        if (crowded := self._host.crowded(self, self._peer[0])) is not None:
            leaving = self._leave()
            if leaving is not None:
                self._turn_away(leaving, "refused", crowded)
            return
        try:
            context = self._host.context(self._port)
        except PeerError as error:
            self._refuse("tls_failed", str(error))
            return
        stream = self._transport
        if context is None or stream is None:
            self._hand_over(None)
            return
        self._set_deadline()
        try:
            self._task = self._host.agree(self, self._handshake(stream, context))
        except OSError as error:
            self._refuse("tls_failed", f"no handshake could begin: {error.strerror}; raise LimitNOFILE")

    def _handshake(self, stream: asyncio.Transport, context: ssl.SSLContext) -> Handshake:
        """Begin TLS now: what the client has sent already must not be read as plain bytes."""
        return start_tls(
            stream,
            self,
            context,
            server_side=True,
            handshake_timeout_s=self._host.patience_s,
            shutdown_timeout_s=LINGER_S,
        )

    async def secure(self, handshake: Handshake) -> None:
        """Agree on TLS with the client; however that ends, its place is another's or free."""
        try:
            await self._agree(handshake)
        finally:
            if self._transport is not None:  # a bug, which is told of where this task ends
                self._refuse("tls_failed", "the balancer failed, which is a bug; its log says more")

    async def _agree(self, handshake: Handshake) -> None:
        try:
            secured, session = await handshake
        except (OSError, ssl.CertificateError) as error:
            self._refuse("tls_failed", handshake_problem(error, server=True))
            return
        if self._transport is None:
            secured.abort()  # time was up, or the service is stopped, in this very moment
        elif self._lost:
            self._refuse("tls_failed", "closed the connection right behind the handshake")
        else:
            self._transport = secured
            if (unwelcome := self._host.unwelcome(session)) is not None:
                self._refuse("tls_failed", unwelcome)
            else:
                self._hand_over(session)

    def _hand_over(self, session: ssl.SSLObject | None) -> None:
        stream = self._transport
        if stream is None:
            return
        version, names = (None, None) if session is None else (session.version(), peer_names(session))
        arrival = Arrival(self._peer, self._server, self._port, version, names)
        guest = self._host.accepted(self, arrival)
        self._transport = None
        self._cancel_deadline()
        stream.set_protocol(guest.client_side)
        guest.client_side.connection_made(stream)
        guest.begin()

    # The ends

    def _set_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self._loop.call_later(self._host.patience_s, self._too_late)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        what = "TLS was not agreed on" if self._reader is None else "the PROXY header was not whole"
        self._refuse("timed_out", f"{what} within {self._host.patience_s:g} s")

    def _refuse(self, ended: str, reason: str) -> None:
        stream = self._leave()
        if stream is not None:
            self._host.not_taken(ended, reason, self._client)
            stream.abort()

    def _leave(self) -> asyncio.Transport | None:
        """Give the place back, once; return the connection."""
        stream, self._transport = self._transport, None
        self._cancel_deadline()
        if self._task is not None:
            self._task.cancel()
        if stream is not None:
            self._host.left(self)
        return stream

    def _turn_away(self, stream: asyncio.Transport, ended: str, reason: str) -> None:
        """Reject without reading the request; a client that waits for TLS could not read that."""
        self._host.not_taken(ended, reason, self._client)
        self._reader = None
        with suppress(OSError):  # straight to the kernel: what waits to be written is lost when it is cut off
            os.write(stream.get_extra_info("socket").fileno(), self._host.farewell)
        stream.write_eof()  # not close: that could destroy the answer on its way
        self._parting = stream
        self._host.room.parts(self)
        self._loop.call_later(LINGER_S, stream.abort)

    @property
    def _client(self) -> str:
        return str(Endpoint(*self._peer))
