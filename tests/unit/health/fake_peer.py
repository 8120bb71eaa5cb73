"""A tiny peer: it follows a script, then reads to the end, and remembers what it heard."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

from equipoise.base.clock import SystemClock
from equipoise.health.asking import Outcome
from equipoise.health.base import Check
from equipoise.health.runner import probe_once

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Heard(asyncio.StreamReader):
    """A reader that keeps everything that came."""

    def __init__(self) -> None:
        super().__init__()
        self.data = bytearray()

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        chunk = bytes(data)
        self.data += chunk
        super().feed_data(chunk)


@dataclass
class FakePeer:
    port: int = 0
    heard: list[Heard] = field(default_factory=list)
    open: int = 0
    sources: list[str] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def left_alone(self) -> None:
        """Return when somebody has called and everybody has gone."""
        async with asyncio.timeout(10):
            await self.gone.wait()


@contextlib.asynccontextmanager
async def serving(script: Script, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[FakePeer]:
    """Serve, on a free port where none is given, for as long as the block runs."""
    peer, talks = FakePeer(), set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Heard)
        peer.heard.append(reader)
        peer.sources.append(writer.get_extra_info("peername")[0])
        peer.open += 1
        peer.gone.clear()
        try:
            with contextlib.suppress(OSError, EOFError):
                await script(reader, writer)
                await reader.read()
        finally:
            peer.open -= 1
            if not peer.open:
                peer.gone.set()
            writer.close()

    def protocol() -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(Heard(), lambda r, w: talks.add(asyncio.create_task(talk(r, w))))

    server = await asyncio.get_running_loop().create_server(protocol, host, port)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


async def probed(check: Check, script: Script, **settings: Any) -> tuple[Outcome, bytes]:
    """Ask a peer once, and return what came of it and what the peer heard."""
    async with serving(script) as peer:
        params = check.params.model_validate({"timeout": 5.0, **settings})
        outcome = await probe_once(check, params, "127.0.0.1", peer.port, SystemClock())
        await peer.left_alone()
        return outcome, bytes(peer.heard[0].data)


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the connection, and whatever comes, and never answer."""


async def closes_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def speaks_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


async def sends_noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes without end, and none of what came is read."""
    while not writer.is_closing():
        writer.write(bytes(range(256)) * 64)
        await writer.drain()


async def sends_zeros(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(100_000))


def dripping(script: Script, pause_s: float) -> Script:
    """Follow `script`, its bytes one at a time."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        slow = _Dripping(reader, writer, pause_s)
        feeding = asyncio.create_task(slow.run())
        try:
            await script(reader, slow)
            await reader.read()
        finally:
            feeding.cancel()

    return drip


class _Dripping(asyncio.StreamWriter):
    """Sends what is written a byte at a time, `pause_s` seconds between them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause_s: float) -> None:
        transport = writer.transport
        super().__init__(transport, transport.get_protocol(), reader, asyncio.get_running_loop())
        self._pause_s = pause_s
        self._left: asyncio.Queue[int] = asyncio.Queue()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        for byte in bytes(data):
            self._left.put_nowait(byte)

    async def run(self) -> None:
        while True:
            super().write(bytes([await self._left.get()]))
            await asyncio.sleep(self._pause_s)
