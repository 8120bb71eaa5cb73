"""DICOM peers that do as they are told, byte by byte: a client, and a node whose manners the called title chooses."""

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from equipoise.proto.dicom.association import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
    AssociateRequest,
    PresentationContext,
    encode_request,
    parse_request,
)
from equipoise.proto.dicom.dimse import encode_command_pdu, encode_echo_request
from equipoise.proto.dicom.pdu import RELEASE_RP, RELEASE_RQ, Pdu, PduType
from tests.property.dicom_streams import command_set, p_data, pdv
from tests.system.balancer import eventually

MAX_LENGTH = 16384  # what both sides announce, unless told otherwise
ECHO, STORAGE = 1, 3  # presentation contexts of a usual request
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
CONTEXTS = tuple(
    PresentationContext(number, uid, (IMPLICIT_VR_LITTLE_ENDIAN,))
    for number, uid in ((ECHO, VERIFICATION), (STORAGE, CT_IMAGE_STORAGE))
)
PATIENCE_S = 10.0
ECHO_RQ = encode_command_pdu(ECHO, encode_echo_request(1))
ECHO_RSP = p_data(pdv(ECHO, 3, command_set(0x8030, 1, data_set=False, status=0)))
STORE_RQ = command_set(0x0001, 1, data_set=True, sop_class=CT_IMAGE_STORAGE)
STORE_COMMAND = p_data(pdv(STORAGE, 3, STORE_RQ))
STORE_DATA = p_data(
    pdv(STORAGE, 0, b"\x55" * (MAX_LENGTH - 6))
)  # a fragment that is not the last: whole PDUs of 16 KiB
_LINGER_NONE = struct.pack("ii", 1, 0)


def abort(source: int, reason: int) -> Pdu:
    """Return an A-ABORT: source 0 user, 2 provider; reasons as in PS3.8 table 9-26."""
    return Pdu(PduType.ABORT, bytes([0, 0, source, reason]))


def reject(result: int, source: int, reason: int) -> Pdu:
    """Return an A-ASSOCIATE-RJ: PS3.8 table 9-21."""
    return Pdu(PduType.ASSOCIATE_RJ, bytes([0, result, source, reason]))


def item(kind: int, value: bytes) -> bytes:
    """Return an item of an associate request or answer."""
    return struct.pack(">BxH", kind, len(value)) + value


def answer(request: AssociateRequest, results: Mapping[int, int], max_length: int = MAX_LENGTH) -> bytes:
    """Return an A-ASSOCIATE-AC with these results by context id, whatever was proposed."""
    return Pdu(PduType.ASSOCIATE_AC, answer_body(request, results, max_length)).encode()


def answer_body(request: AssociateRequest, results: Mapping[int, int], max_length: int = MAX_LENGTH) -> bytes:
    """Return the body of an A-ASSOCIATE-AC."""
    syntax = item(0x40, IMPLICIT_VR_LITTLE_ENDIAN.encode())
    contexts = b"".join(item(0x21, bytes([number, 0, result, 0]) + syntax) for number, result in results.items())
    user = item(0x50, item(0x51, struct.pack(">I", max_length)) + item(0x52, b"1.2.3"))
    return request.body[:68] + item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + user


class Wire:
    """One end of a connection, with everything that arrived on it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.buffer = bytearray()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def pdu(self, timeout_s: float = PATIENCE_S) -> Pdu | None:
        """Return the next PDU; None where the connection ends, in order or by a reset."""
        deadline_s = time.monotonic() + timeout_s
        while len(self.buffer) < 6 or len(self.buffer) < 6 + self._length():
            if not self._more(deadline_s):
                return None
        end = 6 + self._length()
        body = bytes(self.buffer[6:end])
        kind = self.buffer[0]
        del self.buffer[:end]
        return Pdu(PduType(kind), body)

    def rest(self, timeout_s: float = PATIENCE_S) -> bytes:
        """Return everything up to the end of the connection.  Raises: TimeoutError where it goes on."""
        deadline_s = time.monotonic() + timeout_s
        while self._more(deadline_s):
            pass
        return bytes(self.buffer)

    def farewell(self, timeout_s: float = PATIENCE_S) -> Pdu | None:
        """Return the reject or abort that comes, data passed over; None where the connection ends without one."""
        while (found := self.pdu(timeout_s)) is not None:
            if found.type in (PduType.ABORT, PduType.ASSOCIATE_RJ):
                return found
        return None

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def _length(self) -> int:
        return int.from_bytes(self.buffer[2:6], "big")

    def _more(self, deadline_s: float) -> bool:
        self.sock.settimeout(max(deadline_s - time.monotonic(), 0.001))
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionResetError:
            return False
        self.buffer += data
        return bool(data)


class RawClient(Wire):
    """A client: connected, and free to send anything."""

    _numbers = itertools.count(1)

    def __init__(self, port: int, called: str, *, receive_bytes: int = 0) -> None:
        sock = socket.socket()
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        number = next(self._numbers)
        sock.bind((_source(number), 0))
        sock.settimeout(PATIENCE_S)
        sock.connect(("127.0.0.1", port))
        super().__init__(sock)
        host, own_port = sock.getsockname()
        self.address = f"{host}:{own_port}"
        self.called, self.calling = called, f"RAW{number}"

    def request(self, max_length: int = MAX_LENGTH) -> bytes:
        """Return a good request with this client's titles."""
        return encode_request(self.called, self.calling, CONTEXTS, max_length)

    def associate(self) -> "RawClient":
        """Set an association up, properly."""
        self.send(self.request())
        found = self.pdu()
        assert found is not None
        assert found.type is PduType.ASSOCIATE_AC, found
        return self

    def release(self) -> None:
        """End the association, properly."""
        self.send(RELEASE_RQ)
        assert self.pdu() == Pdu(PduType.RELEASE_RP, bytes(4))
        self.close()


def _source(number: int) -> str:
    """Return an address of the loopback network for each client: ports alone come back after some hundred clients."""
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"


@dataclass(slots=True)
class Visit:
    """What a node saw of one association: its PDUs that are no data, the bytes that came in all, how it ended."""

    control: list[Pdu] = field(default_factory=list)
    data_bytes: int = 0
    tail: bytes = b""
    over: threading.Event = field(default_factory=threading.Event)


Manners = Callable[["NodeSide"], None]


class NodeSide(Wire):
    """A node's end of an association whose request has been read."""

    def __init__(self, sock: socket.socket, request: AssociateRequest, visit: Visit, stop: threading.Event) -> None:
        super().__init__(sock)
        self.asked, self.visit, self.stop = request, visit, stop

    def accept(self, max_length: int = MAX_LENGTH) -> None:
        self.send(answer(self.asked, {context.id: 0 for context in self.asked.contexts}, max_length))

    def serve(self) -> None:
        """Be good: answer echoes and releases, swallow objects, until the end; note all that is no data."""
        while (found := self.pdu(3600)) is not None:
            if found.type is PduType.DATA_TF:
                self.visit.data_bytes += len(found.body)
                if found.body[5] & 1 and b"\x00\x00\x00\x01\x02\x00\x00\x00\x30\x00" in found.body:
                    self.send(ECHO_RSP)
                continue
            self.visit.control.append(found)
            if found.type is PduType.ABORT:
                return
            if found.type is PduType.RELEASE_RQ:
                self.send(RELEASE_RP)
        self.visit.tail = bytes(self.buffer)

    def hold(self) -> None:
        """Do nothing at all until the node is stopped."""
        self.stop.wait(3600)


def good(side: NodeSide) -> None:
    side.accept()
    side.serve()


class RawNode:
    """A node: the called AE title chooses its manners, a title that it does not know gets good ones."""

    def __init__(self, manners: Mapping[str, Manners] | None = None) -> None:
        self.manners = dict(manners or {})
        self.greeting: Callable[[socket.socket], None] | None = None  # instead of reading the request
        self.visits: dict[str, Visit] = {}  # by calling AE title
        self._stop = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def visit(self, calling: str) -> Visit:
        """Return what was seen of the association of this caller, once it is over."""
        self.called_by(calling)
        found = self.visits[calling]
        assert found.over.wait(PATIENCE_S), f"the association of {calling} goes on at the node"
        return found

    def called_by(self, calling: str) -> None:
        """Wait until the request of this caller has come."""
        eventually(lambda: calling in self.visits, PATIENCE_S, f"the request of {calling} at the node")

    def close(self) -> None:
        self._stop.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._receive, args=(sock,), daemon=True).start()

    def _receive(self, sock: socket.socket) -> None:
        self._sockets.add(sock)
        with contextlib.suppress(OSError), sock:  # a peer that is gone is what most tests are about
            if self.greeting is not None:
                self.greeting(sock)
                return
            self._converse(sock)
        self._sockets.discard(sock)

    def _converse(self, sock: socket.socket) -> None:
        found = Wire(sock).pdu(3600)
        if found is None:
            return  # a health check
        request = parse_request(found.body)
        visit = self.visits.setdefault(request.calling_ae, Visit())
        try:
            self.manners.get(request.called_ae, good)(NodeSide(sock, request, visit, self._stop))
        finally:
            visit.over.set()
