"""How connections of another machine come in: TLS first, and HTTP only for who may speak it.

It is uvicorn's protocol to uvicorn, and hands a connection on to its real one when the handshake is through.  Strangers
may be many, silent or slow: those that are not through yet are bounded in time and number, and where there are too many
the oldest goes, so that the peer, whose handshake takes milliseconds, always comes in.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from equipoise.base.tasks import Tasks
from equipoise.base.tls import start_tls
from equipoise.cluster.identity import fingerprint_of

MAX_STRANGERS = 64
HANDSHAKE_S = 5.0
LINGER_S = 0.5
_SHUTDOWN_S = 0.2  # the other side's word of parting changes nothing, and an idle client says none

Secured = Awaitable[tuple[asyncio.Transport, ssl.SSLObject]]


class Entrance:
    """What all connections of one server have in common.

    Args:
        context: For the handshake.
        only: The fingerprint of the one certificate that may come in; None where any may, or none.
        lasts_s: After how long a connection is cut; None where it may stay.
        tasks: Who hears of bugs.
    """

    def __init__(self, context: ssl.SSLContext, only: bytes | None, lasts_s: float | None, tasks: Tasks) -> None:
        self._context = context
        self._only = only
        self._lasts_s = lasts_s
        self._tasks = tasks
        self._strangers: dict[asyncio.Transport, None] = {}
        self._is_over = False

    def protocol(self, **connection: Any) -> asyncio.Protocol:
        """Return a protocol for a new connection, from what uvicorn gives to each."""
        return _Arriving(self, partial(AutoHTTPProtocol, **connection))

    async def close(self) -> None:
        """Send away who is not in yet, and whoever comes from now on: the server listens for a moment more."""
        self._is_over = True
        for transport in list(self._strangers):
            transport.abort()
        await asyncio.sleep(0)  # a task that was never begun would close nothing of what it was given
        await self._tasks.cancel_all()

    def let_in(self, raw: asyncio.Transport, arriving: "_Arriving") -> None:
        """Begin the handshake."""
        if self._is_over:
            raw.abort()
            return
        if len(self._strangers) >= MAX_STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.abort()
        try:
            second = _second(raw)
        except OSError:  # no descriptor left
            raw.abort()
            return
        try:
            begun = start_tls(
                raw,
                arriving,
                self._context,
                server_side=True,
                handshake_timeout_s=HANDSHAKE_S,
                shutdown_timeout_s=_SHUTDOWN_S,
            )
        except OSError:
            second.close()
            raw.abort()
            return
        self._strangers[raw] = None
        self._tasks.spawn("api.peer.handshake", self._agreed(raw, second, begun, arriving))

    async def _agreed(
        self, raw: asyncio.Transport, second: socket.socket, begun: Secured, arriving: "_Arriving"
    ) -> None:
        with second:
            try:
                transport, session = await begun
            except OSError:  # ssl.SSLError is one
                raw.abort()
                await self._linger(second)
                return
            finally:
                self._strangers.pop(raw, None)
        if self._is_over or not self._is_welcome(session):
            transport.abort()
            return
        if self._lasts_s is not None:
            asyncio.get_running_loop().call_later(self._lasts_s, transport.abort)
        arriving.hand_on(transport)

    async def _linger(self, second: socket.socket) -> None:
        """Leave time to read why it was refused: to close at once, while a request comes in, would wipe that out."""
        if len(self._tasks) > MAX_STRANGERS // 2:
            return
        with suppress(OSError):
            second.shutdown(socket.SHUT_WR)
            await asyncio.sleep(LINGER_S)

    def _is_welcome(self, session: ssl.SSLObject) -> bool:
        """Say whether the certificate is the one: another that it signed would pass the handshake, too."""
        if self._only is None:
            return True
        shown = session.getpeercert(binary_form=True)
        return shown is not None and fingerprint_of(shown) == self._only


def _second(raw: asyncio.Transport) -> socket.socket:
    """Return the connection's socket once more, as the loop closes its own when a handshake fails.  Raises: OSError."""
    return socket.socket(fileno=os.dup(raw.get_extra_info("socket").fileno()))


class _Arriving(asyncio.Protocol):
    """A connection before HTTP: it keeps what comes right behind the handshake, which is one read at the most."""

    def __init__(self, entrance: Entrance, make: Callable[[], asyncio.Protocol]) -> None:
        self._entrance = entrance
        self._make = make
        self._kept: list[bytes] = []
        self._is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._entrance.let_in(cast(asyncio.Transport, transport), self)  # uvloop's are no subclasses of asyncio's

    def data_received(self, data: bytes) -> None:
        """Keep it."""
        self._kept.append(data)

    def eof_received(self) -> None:
        """Give up: who asks waits for the answer."""
        self._is_over = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up."""
        self._is_over = True

    def hand_on(self, transport: asyncio.Transport) -> None:
        """Let HTTP begin."""
        if self._is_over or transport.is_closing():
            transport.abort()
            return
        http = self._make()
        transport.set_protocol(http)
        http.connection_made(transport)
        for data in self._kept:
            http.data_received(data)
