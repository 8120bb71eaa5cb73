"""An HTTP/1.1 server for the simulated nodes: h11 reads, a handler answers, bodies stream both ways.

Leaves out HTTP/2 and everything that a path means.  Every wait has a deadline, every body that is held a limit.
Source: RFC 9110 and 9112; `Expect: 100-continue`, RFC 9110 section 10.1.1.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit

import h11

from equipoise.base.errors import PeerError

_READ_BYTES = 1 << 16
_IDLE_S = 120.0  # longer than a balancer keeps its side: a node that closes first makes it try again
_MAX_HEADER_BYTES = 64 * 1024
_MAX_UNREAD_BYTES = 1 << 20  # of a body that the handler did not want; beyond it the connection ends

Headers: TypeAlias = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Request:
    """The head of one request; `headers` have names in lower case, in the order in which they came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: tuple[tuple[str, str], ...]
    version: str
    peer: str

    def header(self, name: str) -> str:
        """Return the value of a header, several of them joined; empty where there is none."""
        return ", ".join(value for key, value in self.headers if key == name)


class Exchange:
    """One request and its answer, for a handler."""

    def __init__(self, wire: "_Wire", request: Request) -> None:
        self._wire = wire
        self.request = request

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the body as it arrives.  Raises: PeerError."""
        while isinstance(event := await self._wire.next_event(), h11.Data):
            yield bytes(event.data)

    async def body(self, limit_bytes: int) -> bytes:
        """Return the whole body.  Raises: PeerError where it is longer than allowed."""
        held = bytearray()
        async for chunk in self.chunks():
            held += chunk
            if len(held) > limit_bytes:
                raise PeerError(f"a body of more than {limit_bytes} bytes")
        return bytes(held)

    async def answer(self, status: int, body: bytes, content_type: str, headers: Headers = ()) -> None:
        """Send a whole answer; to HEAD without its body."""
        about = [("content-type", content_type), ("content-length", str(len(body)))]
        await self.begin(status, [*(about if status != 204 else []), *headers])  # RFC 9110 section 8.6
        await self.send(body)
        await self.end()

    async def begin(self, status: int, headers: Headers) -> None:
        """Send the head of an answer."""
        reason = HTTPStatus(status).phrase.encode()
        await self._wire.send(h11.Response(status_code=status, headers=_encoded(headers), reason=reason))

    async def send(self, data: bytes) -> None:
        """Send a part of the body."""
        if data and self.request.method != "HEAD":
            await self._wire.send(h11.Data(data=data))

    async def end(self) -> None:
        """End the answer."""
        await self._wire.send(h11.EndOfMessage())

    async def switch(self, headers: Headers) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Answer 101 and hand over the connection.  Raises: PeerError where the client did not wait for it."""
        await self._wire.next_event()
        if self._wire.connection.trailing_data[0]:
            raise PeerError("bytes of the new protocol before it was agreed on")
        switching = h11.InformationalResponse(status_code=101, headers=_encoded(headers), reason=b"Switching Protocols")
        await self._wire.send(switching)
        return self._wire.reader, self._wire.writer


Handler: TypeAlias = Callable[[Exchange], Awaitable[None]]


class HttpServer:
    """Listens, and calls `handler` for each request."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen and return the port.  Raises: OSError."""
        self._server = await asyncio.start_server(self._serve, host, port, ssl=tls, limit=_MAX_HEADER_BYTES)
        return int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Stop listening; what is open ends with the process."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = _Wire(reader, writer)
        try:
            with suppress(ConnectionError, TimeoutError, PeerError, ssl.SSLError):
                while await self._serve_one(wire):
                    pass
        finally:
            writer.close()
        with suppress(ConnectionError, TimeoutError, ssl.SSLError):
            await writer.wait_closed()

    async def _serve_one(self, wire: "_Wire") -> bool:
        """Answer one request; say whether the connection may be used again."""
        try:
            event = await wire.next_event()
            if not isinstance(event, h11.Request):
                return False
            await self._handler(Exchange(wire, _request(event, wire.peer)))
        except PeerError as error:
            await wire.refuse(400, str(error))
            return False
        return await wire.next_cycle()


class _Wire:
    """One connection: what h11 knows of it, and its streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEADER_BYTES)
        self.reader = reader
        self.writer = writer
        self.peer = str(writer.get_extra_info("peername", ("",))[0])

    async def next_event(self) -> object:
        """Return the next part of a request.  Raises: PeerError."""
        while True:
            try:
                event = self.connection.next_event()
            except h11.RemoteProtocolError as error:
                raise PeerError(str(error)) from None
            if event is not h11.NEED_DATA:
                return event
            if self.connection.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
            async with asyncio.timeout(_IDLE_S):
                self.connection.receive_data(await self.reader.read(_READ_BYTES))

    async def send(self, event: h11.Event) -> None:
        if data := self.connection.send(event):
            self.writer.write(data)
            async with asyncio.timeout(_IDLE_S):
                await self.writer.drain()

    async def refuse(self, status: int, text: str) -> None:
        """Answer a request that could not be read, unless an answer has begun."""
        if self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            headers = _encoded([("content-length", str(len(text.encode()))), ("connection", "close")])
            await self.send(h11.Response(status_code=status, headers=headers))
            await self.send(h11.Data(data=text.encode()))
            await self.send(h11.EndOfMessage())

    async def next_cycle(self) -> bool:
        """Make ready for the next request; say whether there may be one."""
        unread = 0
        while self.connection.their_state is h11.SEND_BODY and unread <= _MAX_UNREAD_BYTES:
            event = await self.next_event()
            unread += len(event.data) if isinstance(event, h11.Data) else 0
        if self.connection.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            return False
        self.connection.start_next_cycle()
        return True


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]


def _request(event: h11.Request, peer: str) -> Request:
    target = urlsplit(event.target.decode("ascii", "replace"))
    return Request(
        method=event.method.decode("ascii"),
        path=target.path,
        query=dict(parse_qsl(target.query, keep_blank_values=True)),
        headers=tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers),
        version=event.http_version.decode("ascii"),
        peer=peer,
    )
