"""Begin TLS on a connection that stands, with no byte lost and no refusal left unsaid.

Leaves out contexts (`tls`) and the words for what goes wrong (`tls_problems`).  What asyncio and uvloop (0.19 to 0.23)
do by themselves is mended here:
- `loop.start_tls` in a task begins one turn of the loop later, and what comes in between is read as plain bytes: a
  ClientHello that is there already, or right behind a PROXY header, is lost;
- when a handshake fails the connection is closed without the alert that tells the peer why (RFC 8446 section 6.2);
- when the peer closes in the middle, uvloop may return a transport on which nothing was agreed.
"""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Coroutine, Generator
from contextlib import suppress
from typing import Any, NoReturn, cast


class AlertingContext(ssl.SSLContext):
    """A context whose handshakes, when they fail, hand on the alert for the peer as `alert` of their error."""

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Return what both directions are fed through."""
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        if isinstance(made, AlertingObject):
            made.outgoing = outgoing
        return made


class AlertingObject(ssl.SSLObject):
    """What an `AlertingContext` makes."""

    outgoing: ssl.MemoryBIO | None = None

    def do_handshake(self) -> None:
        """Go on with the handshake.  Raises: ssl.SSLError, with the `alert` that is to be sent where it failed."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            if self.outgoing is not None:
                cast(Any, error).alert = self.outgoing.read()
            raise


def start_tls(
    raw: asyncio.Transport,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    *,
    server_side: bool,
    server_hostname: str | None = None,
    handshake_timeout_s: float,
    shutdown_timeout_s: float,
) -> Awaitable[tuple[asyncio.Transport, ssl.SSLObject]]:
    """Begin TLS in this very call; return what gives the new transport, whose protocol is `protocol`, and its session.

    Call it in `connection_made`, or where the last plain bytes were read; await it in a task.  After an error, and when
    the task is cancelled, `raw` is to be aborted by the caller.  A connection in its handshake has two descriptors.

    Raises: OSError where there is no second one.  Awaiting raises: ssl.SSLError, or OSError where the peer is gone or
    the time is over.
    """
    if raw.is_closing():
        return _gone()
    spare = _second(raw)
    try:
        begun = _Begun(
            asyncio.get_running_loop().start_tls(
                raw,
                protocol,
                context,
                server_side=server_side,
                server_hostname=server_hostname,
                ssl_handshake_timeout=handshake_timeout_s,
                ssl_shutdown_timeout=shutdown_timeout_s,
            )
        )
    except BaseException:
        spare.close()
        raise
    return _agreed(begun, spare)


async def _agreed(begun: "_Begun", spare: socket.socket) -> tuple[asyncio.Transport, ssl.SSLObject]:
    with spare:
        try:
            transport = await begun
        except ssl.SSLError as error:
            with suppress(OSError):
                spare.send(getattr(error, "alert", b""), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            raise
    session = None if transport is None else transport.get_extra_info("ssl_object")
    if transport is None or session is None:
        return await _gone()
    return transport, session


async def _gone() -> NoReturn:
    raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


def _second(raw: asyncio.Transport) -> socket.socket:
    """Return the connection's socket once more: the loop closes its own before we hear that a handshake failed."""
    own = raw.get_extra_info("socket")
    return socket.socket(own.family, socket.SOCK_STREAM, 0, fileno=os.dup(own.fileno()))


class _Begun:
    """A coroutine whose first step is done; awaiting it does the rest.  Python 3.12 has eager tasks for this."""

    def __init__(self, coroutine: Coroutine[Any, Any, asyncio.Transport | None]) -> None:
        self._coroutine = coroutine
        self._waits_for = coroutine.send(None)

    def __await__(self) -> Generator[Any, Any, asyncio.Transport | None]:
        waits_for = self._waits_for
        try:
            while True:
                try:
                    sent = yield waits_for
                except BaseException as error:  # noqa: BLE001 a cancellation is the coroutine's, too
                    waits_for = self._coroutine.throw(error)
                else:
                    waits_for = self._coroutine.send(sent)
        except StopIteration as end:
            return cast("asyncio.Transport | None", end.value)
