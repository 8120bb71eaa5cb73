"""Clients of web services: byte by byte, curl, and a crowd that counts what fails.

Leaves out browsers (`test_real_peers_browser.py`).
"""

import asyncio
import os
import re
import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import httpx

_PATIENCE_S = 10.0


def client(port: int, *, source: str | None = None, ca: Path | None = None, host: str = "127.0.0.1") -> httpx.Client:
    """Return a client that keeps cookies and connections, follows no redirect, and calls from `source`."""
    verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca) if ca else False
    transport = httpx.HTTPTransport(verify=verify, local_address=source)
    base = f"{'https' if ca else 'http'}://{host}:{port}"
    return httpx.Client(base_url=base, transport=transport, timeout=_PATIENCE_S, trust_env=False)


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes


class RawWeb:
    """A connection on which anything can be said."""

    def __init__(self, port: int, source: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), _PATIENCE_S, (source, 0))
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost")
        self._buffer = b""

    def __enter__(self) -> "RawWeb":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Say something."""
        self.sock.sendall(data)

    def answer(self) -> Answered:
        """Return the next answer; its body ends where Content-Length says."""
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            self._receive()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answered(int(status.split()[1]), headers, body)

    def rest(self, silent_s: float = _PATIENCE_S) -> bytes:
        """Return all that comes until the other side closes, whichever way it does, or is silent for so long."""
        self.sock.settimeout(silent_s)
        with suppress(ConnectionError, TimeoutError):
            while data := self.sock.recv(1 << 16):
                self._buffer += data
        return self._buffer

    def is_closed(self, within_s: float = 5.0) -> bool:
        """Say whether the other side closes now, without another byte."""
        self.sock.settimeout(within_s)
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def _receive(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionError(f"closed behind {self._buffer!r}")
        self._buffer += data


def statuses(answers: bytes) -> list[int]:
    """Return the status of each answer in a stream."""
    return [int(found) for found in re.findall(rb"^HTTP/1\.[01] (\d{3}) ", answers, re.MULTILINE)]


def curl(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run curl; its output is what came."""
    command = ["curl", "--silent", "--show-error", "--max-time", "20", *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    done = subprocess.run(command, capture_output=True, timeout=30, env=environment, check=False)
    if check:
        assert done.returncode == 0, done.stderr.decode()
    return done


@dataclass
class Crowd:
    """Clients that ask again and again, until they are told to stop; each second one for a new connection each time.

    A client sees what a strict one would: a connection that ends before its answer is a failure, and is not tried
    again.  One that was told `Connection: close`, or that ended between two answers, is opened anew.
    """

    port: int
    clients: int = 8
    pause_s: float = 0.01
    longest_s: float = 60.0
    tls: ssl.SSLContext | None = None
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)

    def __enter__(self) -> "Crowd":
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(_PATIENCE_S)

    async def _all(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.longest_s):
                await asyncio.gather(*(self._ask_on(keeps=bool(number % 2)) for number in range(self.clients)))

    async def _ask_on(self, *, keeps: bool) -> None:
        connection = None
        while not self._over.is_set():
            try:
                connection = connection or await self._connect()
                goes_on = await self._ask(*connection, keeps=keeps)
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                self.failures.append(f"{error!r} on {'a kept connection' if keeps else 'a new connection'}")
                goes_on = False
            if connection and not goes_on:
                connection[1].close()
                connection = None
            await asyncio.sleep(self.pause_s)
            if connection and connection[0].at_eof():
                connection[1].close()
                connection = None
        if connection:
            connection[1].close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = "localhost" if self.tls else None
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, server_hostname=name)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keeps: bool) -> bool:
        """Ask once; return whether the connection may be used again."""
        word = b"keep-alive" if keeps else b"close"
        writer.write(b"GET /load HTTP/1.1\r\nHost: portal\r\nConnection: " + word + b"\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"\r\ncontent-length: (\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
        if not head.startswith("http/1.1 200"):
            self.failures.append(head.splitlines()[0])
        self.answered += 1
        if node := re.search(r"\r\nx-node: (\S+)", head):
            self.nodes.add(node[1])
        return keeps and "\r\nconnection: close" not in head
