"""Web servers that write down exactly what reached them: requests as h11 reads them, and the bytes themselves.

h11 is strict: what it cannot read the balancer should not have sent.  Leaves out clients (`web_client.py`).
Source: RFC 9112 (HTTP/1.1); RFC 6455 sections 4.2.2 and 5.2 (WebSocket).
"""

import base64
import hashlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import h11

_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_KEPT_BYTES = 1 << 20  # of a body; all of it is counted and hashed
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request as it reached a node.

    Attributes:
        body: Its first MiB.
        sha256: Of the whole body.
        connection: Which of the node's connections it came on.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    body_bytes: int
    sha256: str
    connection: int

    def all(self, name: str) -> list[str]:
        """Return the values of a header, one for each of its lines."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        """Return the value of a header that must be there once."""
        (value,) = self.all(name)
        return value


@dataclass(frozen=True, slots=True)
class Reply:
    """What a node answers."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


CLOSE = None
Answer = Callable[[Arrived], Reply | None]  # None: the connection ends without an answer


@dataclass
class _Connection:
    sock: socket.socket
    raw: bytearray = field(default_factory=bytearray)


class Listener:
    """A port of 127.0.0.1 that can be closed and opened again; each connection has a thread."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self.connections: list[_Connection] = []
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, at the port of before if there was one."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections and end those that are open, as a crash would."""
        if self._listener is None:
            return
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._listener = None
        for connection in list(self.connections):
            _end(connection.sock)

    def raw(self) -> bytes:
        """Return every byte that arrived, connection by connection."""
        return b"".join(bytes(connection.raw) for connection in self.connections)

    def settled(self) -> bool:
        """Say whether nothing has arrived for a moment."""
        before = len(self.raw())
        time.sleep(0.03)
        return len(self.raw()) == before

    def spoken(self) -> int:
        """Return on how many connections something was said: checks connect and are silent."""
        return sum(bool(connection.raw) for connection in self.connections)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            connection = _Connection(sock)
            with self._lock:
                self.connections.append(connection)
                number = len(self.connections)
            self.talk(connection, number)
        except (OSError, ValueError):
            pass
        finally:
            _end(sock)

    def talk(self, connection: _Connection, number: int) -> None:
        """Have the conversation of one connection."""
        raise NotImplementedError


class WebNode(Listener):
    """A web server.

    Args:
        name: It stands in the header X-Node of every answer.
        answer: What it says to a request; by default 200 and a page with the request in JSON.
        tls: With it, TLS alone.
    """

    def __init__(self, name: str = "a", answer: Answer | None = None, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.name = name
        self.answer = answer or _mirror
        self.arrived: list[Arrived] = []
        self.unreadable: list[str] = []
        self.unfinished = 0

    def forget(self) -> None:
        """Begin anew with what has arrived; connections that are open stay."""
        self.arrived, self.unreadable, self.unfinished = [], [], 0
        for connection in self.connections:
            connection.raw.clear()

    def targets(self) -> list[str]:
        """Return what was asked for, in the order of arrival."""
        return [arrived.target for arrived in self.arrived]

    def talk(self, connection: _Connection, number: int) -> None:
        talk = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        while True:
            try:
                arrived = self._read(connection, talk, number)
            except h11.RemoteProtocolError as error:
                self.unreadable.append(str(error))
                return
            if arrived is None:
                return
            self.arrived.append(arrived)
            if "websocket" in arrived.all("upgrade"):
                _accept_websocket(connection, arrived, self.name)
                _echo_frames(connection, talk.trailing_data[0])
                return
            if (reply := self.answer(arrived)) is None:
                return
            self._send(connection.sock, talk, arrived.method, reply)
            if talk.our_state is not h11.DONE or talk.their_state is not h11.DONE:
                return
            talk.start_next_cycle()

    def _read(self, connection: _Connection, talk: h11.Connection, number: int) -> Arrived | None:
        """Return the next request, or None where the client has closed."""
        head: h11.Request | None = None
        body, length, digest = bytearray(), 0, hashlib.sha256()
        while True:
            event = talk.next_event()
            if event is h11.NEED_DATA:
                if head is not None and talk.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    connection.sock.sendall(talk.send(go_on) or b"")
                data = _received(connection.sock)
                if len(connection.raw) < _KEPT_BYTES:
                    connection.raw += data
                self.unfinished += not data and head is not None
                talk.receive_data(data)
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                length += len(event.data)
                digest.update(event.data)
                body += event.data[: _KEPT_BYTES - len(body)]
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return _arrived(head, bytes(body), length, digest.hexdigest(), number)
            else:
                return None

    def _send(self, sock: socket.socket, talk: h11.Connection, method: str, reply: Reply) -> None:
        names = {name.lower() for name, _ in reply.headers}
        headers = [("X-Node", self.name), *reply.headers]
        if "content-length" not in names and "transfer-encoding" not in names:
            headers.append(("Content-Length", str(len(reply.body))))
        sent = talk.send(h11.Response(status_code=reply.status, headers=headers)) or b""
        if method != "HEAD":
            sent += talk.send(h11.Data(data=reply.body)) or b""
        sock.sendall(sent + (talk.send(h11.EndOfMessage()) or b""))


class TcpNode(Listener):
    """A server of no protocol that echoes what it gets, behind its name and a line end."""

    def __init__(self, name: str = "a") -> None:
        super().__init__()
        self._name = name

    def talk(self, connection: _Connection, number: int) -> None:
        connection.sock.sendall(self._name.encode() + b"\n")
        while data := connection.sock.recv(_CHUNK_BYTES):
            connection.raw += data
            connection.sock.sendall(data)


def slowly(seconds: float, answer: Answer | None = None) -> Answer:
    """Return an answer that takes its time."""

    def slow(arrived: Arrived) -> Reply | None:
        time.sleep(seconds)
        return (answer or _mirror)(arrived)

    return slow


def pages(content: Mapping[str, Reply], other: Answer | None = None) -> Answer:
    """Return an answer by path, query aside; other paths are mirrored."""

    def look(arrived: Arrived) -> Reply | None:
        found = content.get(arrived.target.partition("?")[0])
        return found if found is not None else (other or _mirror)(arrived)

    return look


def _mirror(arrived: Arrived) -> Reply:
    shown = {
        "method": arrived.method,
        "target": arrived.target,
        "headers": arrived.headers,
        "body_bytes": arrived.body_bytes,
        "sha256": arrived.sha256,
    }
    return Reply(200, json.dumps(shown).encode(), (("Content-Type", "application/json"),))


def _arrived(head: h11.Request, body: bytes, length: int, digest: str, number: int) -> Arrived:
    # In the case in which they came, where h11 keeps it.
    headers: Iterable[tuple[bytes, bytes]] = head.headers.raw_items()
    shown = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
    return Arrived(head.method.decode(), head.target.decode("latin-1"), shown, body, length, digest, number)


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(_CHUNK_BYTES)
    except ConnectionError:  # one way to end
        return b""


def _accept_websocket(connection: _Connection, arrived: Arrived, name: str) -> None:
    proof = base64.b64encode(
        hashlib.sha1(arrived.one("sec-websocket-key").encode() + _WEBSOCKET_GUID, usedforsecurity=False).digest()
    )
    head = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"X-Node: %b\r\nSec-WebSocket-Accept: %b\r\n\r\n"
    )
    connection.sock.sendall(head % (name.encode(), proof))


def _echo_frames(connection: _Connection, buffered: bytes) -> None:
    """Send each frame back without its mask, up to a closing one."""
    stream = connection.sock.makefile("rb")

    def take(count: int) -> bytes:
        nonlocal buffered
        taken, buffered = buffered[:count], buffered[count:]
        return taken + stream.read(count - len(taken))

    while len(head := take(2)) == 2:
        length = head[1] & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", take(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", take(8))
        mask = take(4) if head[1] & 0x80 else bytes(4)
        payload = bytes(byte ^ mask[place % 4] for place, byte in enumerate(take(length)))
        connection.sock.sendall(bytes([head[0]]) + _frame_length(length) + payload)
        if head[0] & 0x0F == 8:
            return


def _frame_length(length: int) -> bytes:
    return bytes([length]) if length < 126 else struct.pack(">BH", 126, length)


def _end(sock: Any) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        sock.close()
