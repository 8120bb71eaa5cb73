"""JSON lines and file descriptors between supervisor and gateway, over a Unix stream socket.

asyncio's transports do not carry descriptors, so this reads and writes the socket itself.
Source: unix(7), SCM_RIGHTS: descriptors arrive with the first byte they were sent with, at most 253 at a time.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from equipoise.base.errors import EngineError
from equipoise.engines.gateway.messages import Body, Message, decode, encode

MAX_LINE_BYTES = 16 << 20  # a plan of thousands of nodes has 1 MiB
MAX_UNSENT_BYTES = 64 << 20  # a supervisor that stopped reading costs no more than this
BEHIND_BYTES = 1 << 20
_FDS_AT_ONCE = 200
_READ_BYTES = 256 * 1024


class Channel:
    """One end of a connection.

    Args:
        sock: Connected; the channel owns it.
        on_message: Called with each body that is not an answer, its message and its sockets.
        on_closed: Called once, with the reason, when the other end is gone.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[["Channel", Message, list[socket.socket]], None],
        on_closed: Callable[["Channel", str], None],
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._on_message = on_message
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._descriptors: deque[int] = deque()
        self._unsent: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._unsent_bytes = 0
        self._numbers = 0
        self._waiting: dict[int, asyncio.Future[tuple[Message, list[socket.socket]]]] = {}
        self.closed = False
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, body: Body, sockets: Sequence[socket.socket] = (), *, number: int = 0, answers: int = 0) -> None:
        """Send one message; what the kernel does not take now goes later.  A closed channel takes and drops it.

        Raises: EngineError where a socket cannot be handed over.
        """
        if self.closed:
            return
        line = memoryview(encode(Message(body=body, number=number, answers=answers, fds=len(sockets))))
        try:
            descriptors = [os.dup(sock.fileno()) for sock in sockets]  # ours may be closed before they have left
        except OSError as error:
            raise EngineError(f"no descriptor is left to hand a socket over: {error.strerror}") from None
        groups = [descriptors[at : at + _FDS_AT_ONCE] for at in range(0, len(descriptors), _FDS_AT_ONCE)] or [[]]
        for place, group in enumerate(groups):  # each group rides on a byte of its own, the last on the rest
            last = place == len(groups) - 1
            self._unsent.append((line[place:] if last else line[place : place + 1], group))
        self._unsent_bytes += len(line)
        if self._unsent_bytes > MAX_UNSENT_BYTES:
            self.close(f"the other end took none of {self._unsent_bytes} bytes")
            return
        self._writable()

    @property
    def is_behind(self) -> bool:
        """Whether the other end reads slower than we send: what can wait should."""
        return self._unsent_bytes > BEHIND_BYTES

    async def ask(
        self, body: Body, sockets: Sequence[socket.socket] = (), timeout_s: float = 10.0
    ) -> tuple[Body, list[socket.socket]]:
        """Send a question and return its answer.  Raises: EngineError where none comes."""
        if self.closed:
            raise EngineError("the gateway's control connection is closed")
        self._numbers += 1
        number = self._numbers
        answer = self._waiting[number] = self._loop.create_future()
        try:
            self.send(body, sockets, number=number)
            message, received = await asyncio.wait_for(answer, timeout_s)
        except TimeoutError:
            raise EngineError(f"the gateway did not answer within {timeout_s:g} s") from None
        finally:
            self._waiting.pop(number, None)
        return message.body, received

    def close(self, reason: str = "closed") -> None:
        """Close; whoever waits for an answer is told."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for descriptor in (*self._descriptors, *(fd for _, group in self._unsent for fd in group)):
            os.close(descriptor)
        self._descriptors.clear()
        self._unsent.clear()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(EngineError(f"the gateway's control connection ended: {reason}"))
        self._on_closed(self, reason)

    def _writable(self) -> None:
        try:
            while self._unsent:
                data, descriptors = self._unsent[0]
                sent = socket.send_fds(self._socket, [data], descriptors) if descriptors else self._socket.send(data)
                for descriptor in descriptors:  # they went with the first byte
                    os.close(descriptor)
                self._unsent_bytes -= sent
                if sent < len(data):
                    self._unsent[0] = (data[sent:], ())
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._socket.fileno(), self._writable)
        except OSError as error:
            self.close(error.strerror or str(error))
        else:
            self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _READ_BYTES, _FDS_AT_ONCE)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(error.strerror or str(error))
            return
        self._descriptors.extend(descriptors)
        if not data:
            self.close("the other end closed it")
            return
        self._received += data
        self._take_lines()

    def _take_lines(self) -> None:
        *lines, rest = bytes(self._received).split(b"\n")
        self._received = bytearray(rest)  # before anything is handled: what fails must not be handled again
        for line in lines:
            if not self.closed:
                self._take(line)
        if not self.closed and len(self._received) > MAX_LINE_BYTES:
            self.close(f"a line of more than {MAX_LINE_BYTES} bytes")

    def _take(self, line: bytes) -> None:
        try:
            message = decode(line)
        except msgspec.MsgspecError as error:
            self.close(f"not understood: {error}")
            return
        if message.fds > len(self._descriptors):  # the kernel drops those that our file limit has no room for
            self.close(f"{message.fds} descriptors were announced, {len(self._descriptors)} came; see ulimit -n")
            return
        sockets = [socket.socket(fileno=self._descriptors.popleft()) for _ in range(message.fds)]
        answer = self._waiting.get(message.answers)
        if message.answers == 0:
            self._on_message(self, message, sockets)
        elif answer is not None and not answer.done():
            answer.set_result((message, sockets))
        else:  # too late: nobody waits for it any more
            for sock in sockets:
                sock.close()


async def connected(path: str, timeout_s: float) -> socket.socket:
    """Return a socket that is connected to a gateway's control socket.  Raises: OSError, TimeoutError among them."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().sock_connect(sock, path)
    except OSError:
        sock.close()
        raise
    return sock
