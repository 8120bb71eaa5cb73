"""HL7 peers that do as they are told, byte by byte: a sender, and a receiver whose manners a function gives.

They read and write frames by themselves, so that a fault of the codec cannot hide from them.
"""

import contextlib
import itertools
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

START, END = b"\x0b", b"\x1c\r"
PATIENCE_S = 15.0
_LINGER_NONE = struct.pack("ii", 1, 0)


def wrap(content: bytes) -> bytes:
    """Return the frame of a message."""
    return START + content + END


def message(
    control_id: str, patient: str = "1001", kind: str = "ADT^A01", more: str = "", sender: str = "RIS|NORTH"
) -> bytes:
    """Return a message of some 200 bytes; `more` are further segments, each with its CR."""
    return (
        f"MSH|^~\\&|{sender}|PACS|NORTH|20310304050607||{kind}|{control_id}|P|2.5\r"
        f"EVN|{kind[-3:]}|20310304050607\r"
        f"PID|1||{patient}^^^NORTH||DOE^JANE||19800101|F\r"
        f"PV1|1|O|WARD^1^2\r{more}"
    ).encode()


def merge(control_id: str, patient: str, merged: str) -> bytes:
    """Return an A40: `merged` becomes part of `patient`."""
    return message(control_id, patient, "ADT^A40", f"MRG|{merged}^^^NORTH\r")


def grown(content: bytes, size: int) -> bytes:
    """Return the message with a segment of notes that makes it `size` bytes long."""
    head = b"NTE|1||"
    return content + head + b"x" * (size - len(content) - len(head) - 1) + b"\r"


def segments(content: bytes) -> list[list[bytes]]:
    """Return the fields of every segment; those of MSH are shifted, so that number 10 is MSH-10."""
    found = []
    for line in content.replace(b"\r\n", b"\r").replace(b"\n", b"\r").split(b"\r"):
        fields = line.split(content[3:4])
        found.append([fields[0], content[3:4], *fields[1:]] if fields[0] == b"MSH" else fields)
    return found


def control_id(content: bytes) -> str:
    """Return MSH-10, empty where it is missing."""
    return [*segments(content[:4096])[0], *[b""] * 10][10].decode()


def acknowledgement(content: bytes, code: str = "AA", of: str | None = None) -> bytes:
    """Return the answer to a message, or to the one that `of` names."""
    answered = control_id(content) if of is None else of
    return f"MSH|^~\\&|PACS|NORTH|RIS|NORTH|20310304050608||ACK|R{answered}|P|2.5\rMSA|{code}|{answered}\r".encode()


def answered(content: bytes | None) -> tuple[str, str] | None:
    """Return MSA-1 and MSA-2, or None where there is no answer."""
    if content is None:
        return None
    found = next(fields for fields in segments(content) if fields[0] == b"MSA")
    return found[1].decode(), found[2].decode()


class Wire:
    """One end of a connection, with what has arrived on it."""

    def __init__(self, sock: socket.socket, framing: tuple[bytes, bytes] = (START, END)) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.start, self.end = framing
        self.buffer = bytearray()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def frame(self, timeout_s: float = PATIENCE_S) -> bytes | None:
        """Return the content of the next frame; None where the connection ends.  Raises: TimeoutError."""
        deadline_s, searched = time.monotonic() + timeout_s, 0
        while (end := self.buffer.find(self.end, searched)) < 0:
            searched = max(len(self.buffer) - 1, 0)  # a frame of 100 MB is not searched again for each piece
            if not self._more(deadline_s):
                return None
        assert self.buffer.startswith(self.start), bytes(self.buffer[:80])
        found = bytes(self.buffer[len(self.start) : end])
        del self.buffer[: end + len(self.end)]
        return found

    def over(self, timeout_s: float = PATIENCE_S) -> bytes:
        """Return all that still arrives, once the connection has ended.  Raises: TimeoutError where it goes on."""
        deadline_s = time.monotonic() + timeout_s
        while self._more(deadline_s):
            pass
        return bytes(self.buffer)

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def _more(self, deadline_s: float) -> bool:
        self.sock.settimeout(max(deadline_s - time.monotonic(), 0.001))
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionError:
            return False
        finally:
            if self.sock.fileno() >= 0:
                self.sock.settimeout(PATIENCE_S)
        self.buffer += data
        return bool(data)


class RawSender(Wire):
    """A sender: connected, and free to send anything."""

    def __init__(
        self, port: int, tls: ssl.SSLContext | None = None, framing: tuple[bytes, bytes] = (START, END)
    ) -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        host, own_port = sock.getsockname()
        self.address = f"{host}:{own_port}"
        super().__init__(sock if tls is None else tls.wrap_socket(sock, server_hostname="localhost"), framing)

    def ask(self, content: bytes, timeout_s: float = PATIENCE_S) -> tuple[str, str] | None:
        """Send a message and return MSA-1 and MSA-2 of the answer; None where the connection ends without."""
        try:
            self.send(wrap(content))
        except ConnectionError:
            return None
        return answered(self.frame(timeout_s))


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message at a receiver; its connections are numbered from 1."""

    connection: int
    content: bytes
    at_s: float


class Side(Wire):
    """A receiver's end of a connection."""

    def __init__(self, sock: socket.socket, framing: tuple[bytes, bytes], number: int, stop: threading.Event) -> None:
        super().__init__(sock, framing)
        self.number, self.stop = number, stop

    def answer(self, content: bytes, code: str = "AA", of: str | None = None) -> None:
        self.send(wrap(acknowledgement(content, code, of)))

    def hold(self, time_s: float = 3600) -> None:
        """Do nothing for so long, or until the receiver is stopped."""
        self.stop.wait(time_s)


Manners = Callable[[Side, bytes], None]


def accepts(side: Side, content: bytes) -> None:
    """Acknowledge it, as receivers do."""
    side.answer(content)


class RawReceiver:
    """A receiver: notes what arrives and then does as `manners` say, for each message.

    Attributes:
        arrived: What arrived, whole, in order.
        most_open: How many connections that had sent something were open at once, at most.
    """

    def __init__(
        self,
        manners: Manners = accepts,
        *,
        greeting: Callable[[Side], None] | None = None,
        tls: ssl.SSLContext | None = None,
        framing: tuple[bytes, bytes] = (START, END),
    ) -> None:
        self.manners, self._greeting, self._tls, self._framing = manners, greeting, tls, framing
        self.arrived: list[Arrival] = []
        self.most_open = 0
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._speaking: set[socket.socket] = set()
        self._stop = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "RawReceiver":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def open_now(self) -> int:
        """Return how many connections that have sent something are open."""
        return sum(map(_goes_on, list(self._speaking)))

    @property
    def contents(self) -> list[bytes]:
        """Return what arrived, in order."""
        return [arrival.content for arrival in self.arrived]

    @property
    def ids(self) -> list[str]:
        """Return the control IDs of what arrived, in order."""
        return [control_id(arrival.content) for arrival in self.arrived]

    def close(self) -> None:
        """End it and its connections."""
        self._stop.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """End what is open."""
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:  # a peer that is gone is what many tests are about
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            self._sockets.add(sock)
            side = Side(sock, self._framing, next(self._numbers), self._stop)
            try:
                if self._greeting is not None:
                    self._greeting(side)
                self._converse(side)
            finally:
                self._sockets.discard(sock)
                sock.close()

    def _converse(self, side: Side) -> None:
        side.sock.settimeout(None)
        try:
            while (content := side.frame(3600)) is not None:
                with self._lock:
                    self._speaking.add(side.sock)  # a health check says nothing, and is not counted
                    self.most_open = max(self.most_open, self.open_now)
                    self.arrived.append(Arrival(side.number, content, time.monotonic()))
                self.manners(side, content)
        finally:
            with self._lock:
                self._speaking.discard(side.sock)


def _goes_on(sock: socket.socket) -> bool:
    """Say whether the other side has not closed it: its thread may not have heard of that yet."""
    if isinstance(sock, ssl.SSLSocket):  # which cannot look ahead
        return True
    try:
        with socket.socket(fileno=os.dup(sock.fileno())) as twin:  # its own would wait: it has a timeout
            return bool(twin.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True
    except OSError:
        return False
