"""Netlink sockets and the messages on them: ask the kernel, dump its tables, change them, read and build attributes.

For netfilter's two families of messages, nf_tables and ctnetlink, whose dumps are large: a dump comes back as the raw
datagrams, so that a caller can count in them without an object for each entry.  Leaves out what the messages mean,
events, and routing (pyroute2 does that).

Source: RFC 3549, section 2; linux/netlink.h; linux/netfilter/nfnetlink.h.
"""

import errno
import os
import secrets
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType

from equipoise.base.errors import EngineError

NETLINK_NETFILTER = 12  # linux/netlink.h

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length with this header, type
_CODE = struct.Struct("=i")  # what NLMSG_ERROR and NLMSG_DONE begin with: 0 or a negative errno
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_REQUEST, _ACK, _DUMP = 0x01, 0x04, 0x300  # NLM_F_*
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR
_BEGIN, _END = 0x10, 0x11  # NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END
_SOL_NETLINK, _CAP_ACK = 270, 10  # NETLINK_CAP_ACK: a refusal does not repeat what it refuses
_DONE_BYTES = _HEADER.size + _CODE.size
_TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK: without the two flags

# The kernel fills at most 32 KiB at a time (netlink_recvmsg), and one large message whatever it takes.
_RECEIVE_BYTES = 1 << 20
_SNDBUFFORCE, _SEND_BYTES = 32, 1 << 18  # SO_SNDBUFFORCE, asm-generic/socket.h; a transaction is sent in one piece
_TIMEOUT_S = 10.0  # the kernel answers while it is called: this is for a bug, not for a slow machine
_ATTEMPTS = 3

Message = tuple[int, bytes]


class _DumpDisturbedError(Exception):
    """A dump that has to be made again: what it lists changed under it."""


class Netlink:
    """A socket to one part of the kernel; each answer is read to its end before the next question.

    The caller's thread waits in the system call, where others go on.
    """

    def __init__(self, family: int) -> None:
        self._family = family
        self._socket = _opened(family)
        self._buffer = bytearray(_RECEIVE_BYTES)

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def request(self, kind: int, payload: bytes, flags: int = 0) -> list[Message]:
        """Ask for one thing, or change one; return what came back before the acknowledgement.

        Raises: OSError with the kernel's errno; EngineError where it does not answer.
        """
        sequence = self._send(kind, _ACK | flags, payload)
        answer: list[Message] = []
        while True:
            for code, number, body in _split(self._receive()):
                if number != sequence:
                    continue
                if code == _ERROR:
                    _check(body)
                    return answer
                answer.append((code, body))

    def change(self, subsystem: int, changes: Sequence[tuple[int, int, bytes]]) -> None:
        """Have netfilter make all of these changes, in one transaction, or none.

        Args:
            subsystem: NFNL_SUBSYS_*.
            changes: Type, flags and payload of each; together they fill less than 200 KiB.

        Raises: OSError with the errno of the first that the kernel refused; EngineError where it does not answer.
        """
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        with suppress(OSError):  # in a container that may not, what most kernels have suffices
            self._socket.setsockopt(socket.SOL_SOCKET, _SNDBUFFORCE, _SEND_BYTES)
        sequence, bounds = secrets.randbits(32), struct.pack("=BBH", 0, 0, socket.htons(subsystem))
        parts = [(_BEGIN, 0, bounds), *((kind, flags | _ACK, payload) for kind, flags, payload in changes)]
        self._socket.send(b"".join(_packed(*part, sequence) for part in [*parts, (_END, 0, bounds)]))
        unanswered = len(changes)
        while unanswered:
            for code, number, body in _split(self._receive()):
                if number == sequence and code == _ERROR:
                    _check(body)
                    unanswered -= 1

    def dump(self, kind: int, payload: bytes, most_bytes: int | None = None) -> list[bytes]:
        """Return the datagrams of a dump; a disturbed one is made again, and after three attempts is taken as it is.

        Args:
            kind: The message's type.
            payload: What follows its header.
            most_bytes: Stop when so much was read, and give the rest up.

        Raises: OSError with the kernel's errno; EngineError where it does not answer.
        """
        datagrams: list[bytes] = []
        for _ in range(_ATTEMPTS):
            datagrams = []
            try:
                self._dump_into(datagrams, kind, payload, most_bytes)
                break
            except _DumpDisturbedError:
                pass
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            self._reopen()  # what is left of this dump goes with its socket
        return datagrams

    def messages(self, kind: int, payload: bytes) -> Iterator[Message]:
        """Dump, and return type and body of each entry.  Raises: as `dump`."""
        return messages(self.dump(kind, payload))

    def _dump_into(self, datagrams: list[bytes], kind: int, payload: bytes, most_bytes: int | None) -> None:
        sequence = self._send(kind, _DUMP, payload)
        disturbed, size = False, 0
        while most_bytes is None or size < most_bytes:
            datagram = self._receive()
            _, code, flags, number, _ = _HEADER.unpack_from(datagram)
            if number != sequence:
                continue
            if code == _ERROR:
                _check(datagram[_HEADER.size :])
            datagrams.append(datagram)
            size += len(datagram)
            end = _done_flags(datagram, sequence)
            disturbed = disturbed or bool((flags | (end or 0)) & _INTERRUPTED)
            if end is not None:
                if disturbed:
                    raise _DumpDisturbedError
                return
        self._reopen()

    def _send(self, kind: int, flags: int, payload: bytes) -> int:
        sequence = secrets.randbits(32)  # so that no stray answer, and no entry's bytes, can look like the end
        self._socket.send(_packed(kind, flags, payload, sequence))
        return sequence

    def _receive(self) -> bytes:
        try:
            size = self._socket.recv_into(self._buffer)
        except TimeoutError:
            raise EngineError(f"the kernel did not answer on netlink within {_TIMEOUT_S:g} s; ask again") from None
        return bytes(memoryview(self._buffer)[:size])

    def _reopen(self) -> None:
        self._socket.close()
        self._socket = _opened(self._family)


def _opened(family: int) -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
    opened.bind((0, 0))
    opened.settimeout(_TIMEOUT_S)
    return opened


def _packed(kind: int, flags: int, payload: bytes, sequence: int) -> bytes:
    """Return a message, whose payload fills a multiple of four bytes."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, _REQUEST | flags, sequence, 0) + payload


def messages(datagrams: Iterable[bytes]) -> Iterator[Message]:
    """Return type and body of each entry in the datagrams of a dump."""
    for datagram in datagrams:
        yield from ((code, body) for code, _, body in _split(datagram) if code not in (_ERROR, _DONE))


def nfgen(family: int, *attributes: bytes) -> bytes:
    """Return the payload of a netfilter message: nfgenmsg (family, version 0, resource 0) and attributes."""
    return struct.pack("=BBH", family, 0, 0) + b"".join(attributes)


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, filled up to a multiple of four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    """Return an attribute that holds a name."""
    return attribute(kind, value.encode() + b"\0")


def number32(kind: int, value: int) -> bytes:
    """Return an attribute that holds a number as netfilter wants it: four bytes, big-endian."""
    return attribute(kind, value.to_bytes(4, "big"))


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Return the attributes from `start` on by type, without flags; of equal types the last one."""
    return dict(attribute_list(data, start))


def attribute_list(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Return type, without flags, and value of each attribute from `start` on."""
    while start + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if not _ATTRIBUTE.size <= length <= len(data) - start:
            raise EngineError(f"the kernel sent an attribute of {length} bytes where {len(data) - start} are left")
        yield kind & _TYPE_MASK, data[start + _ATTRIBUTE.size : start + length]
        start += length + 3 & ~3


def name_of(value: bytes) -> str:
    """Return a name as the kernel wrote it; other programs' names need not be UTF-8."""
    return value.split(b"\0", 1)[0].decode("utf-8", "replace")


def number_of(value: bytes) -> int:
    """Return a number as netfilter writes it: big-endian, of any length."""
    return int.from_bytes(value, "big")


def refusal(error: OSError, doing: str) -> EngineError:
    """Return what to tell a person when the kernel refused `doing`."""
    if error.errno in (errno.EPERM, errno.EACCES):
        why = (
            "this needs the right CAP_NET_ADMIN, which this user lacks; start as root, or add "
            "packaging/equipoise.service.d/layer4.conf to the systemd unit"
        )
    elif error.errno in (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL):
        why = (
            f"this kernel cannot do it ({os.strerror(error.errno)}); nf_tables and conntrack must be built in or loaded"
        )
    else:
        why = os.strerror(error.errno) if error.errno else str(error)
    return EngineError(f"cannot {doing}: {why}")


def _check(body: bytes) -> None:
    code: int = _CODE.unpack_from(body)[0]
    if code:
        raise OSError(-code, os.strerror(-code))


def _done_flags(datagram: bytes, sequence: int) -> int | None:
    """Return the flags of the NLMSG_DONE at the end, or None where the dump goes on."""
    start = len(datagram) - _DONE_BYTES
    if start < 0:
        return None
    length, code, flags, number, _ = _HEADER.unpack_from(datagram, start)
    if (length, code, number) != (_DONE_BYTES, _DONE, sequence):
        return None
    _check(datagram[start + _HEADER.size :])
    return int(flags)


def _split(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    start = 0
    while start + _HEADER.size <= len(datagram):
        length, code, _, sequence, _ = _HEADER.unpack_from(datagram, start)
        if not _HEADER.size <= length <= len(datagram) - start:
            raise EngineError(f"the kernel sent a message of {length} bytes where {len(datagram) - start} are left")
        yield code, sequence, datagram[start + _HEADER.size : start + length]
        start += length + 3 & ~3
