"""The seven PDU types and their short forms: framing, reject, release, abort.  Not what is inside an associate PDU.

`PduReader` is for setting an association up; P-DATA is walked in the driver's buffer (`walker.py`), because copying
each body costs forty times as much.
Source: DICOM PS3.8, sections 9.3.1 to 9.3.8; reject reasons table 9-21, abort reasons table 9-26.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from equipoise.base.errors import PeerError

HEADER = struct.Struct(">BxI")  # type; reserved, not tested on receipt; length of what follows
RELEASE_BODY_BYTES = 4


class PduType(IntEnum):
    """The first byte of a PDU."""

    ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ = 1, 2, 3
    DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = 4, 5, 6, 7

    @property
    def label(self) -> str:
        """The name that the standard prints."""
        return "P-DATA-TF" if self is PduType.DATA_TF else "A-" + self.name.replace("_", "-")


class AbortSource(IntEnum):
    """Who aborts: PS3.8 table 9-26."""

    USER, PROVIDER = 0, 2


class AbortReason(IntEnum):
    """Why a provider aborts: PS3.8 table 9-26."""

    NOT_SPECIFIED, UNRECOGNIZED_PDU, UNEXPECTED_PDU = 0, 1, 2
    UNRECOGNIZED_PARAMETER, UNEXPECTED_PARAMETER, INVALID_VALUE = 4, 5, 6


class PduError(PeerError):
    """A peer's PDU breaks the protocol; `reason` is what an A-ABORT says of it."""

    def __init__(self, message: str, reason: AbortReason) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Reject:
    """An A-ASSOCIATE-RJ.  Source: PS3.8 table 9-21."""

    result: int
    source: int
    reason: int

    @property
    def transient(self) -> bool:
        """Whether the same request may be accepted later."""
        return self.result == 2

    def encode(self) -> bytes:
        """Return the whole PDU."""
        return Pdu(PduType.ASSOCIATE_RJ, bytes([0, self.result, self.source, self.reason])).encode()

    def __str__(self) -> str:
        result = {1: "permanent", 2: "transient"}.get(self.result, "unknown result")
        reason = _REJECT_REASONS.get((self.source, self.reason), "reason not in the standard")
        return f"rejected ({self.result},{self.source},{self.reason}): {result}, {reason}"


_REJECT_REASONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}
REJECT_NO_REASON = Reject(1, 1, 1)
REJECT_CALLING_AE = Reject(1, 1, 3)
REJECT_CALLED_AE = Reject(1, 1, 7)
REJECT_VERSION = Reject(1, 2, 2)
REJECT_CONGESTION = Reject(2, 3, 1)
REJECT_LIMIT = Reject(2, 3, 2)


@dataclass(frozen=True, slots=True)
class Pdu:
    """One PDU, whole."""

    type: PduType
    body: bytes

    def encode(self) -> bytes:
        """Return its bytes on the wire."""
        return HEADER.pack(self.type, len(self.body)) + self.body

    def as_reject(self) -> Reject:
        """Read an A-ASSOCIATE-RJ.  Raises: PduError."""
        if len(self.body) != 4:
            raise PduError(f"A-ASSOCIATE-RJ of {len(self.body)} bytes, it has 4", AbortReason.INVALID_VALUE)
        return Reject(self.body[1], self.body[2], self.body[3])


def encode_abort(source: AbortSource, reason: AbortReason = AbortReason.NOT_SPECIFIED) -> bytes:
    """Return an A-ABORT."""
    return Pdu(PduType.ABORT, bytes([0, 0, source, reason])).encode()


RELEASE_RQ = Pdu(PduType.RELEASE_RQ, bytes(RELEASE_BODY_BYTES)).encode()
RELEASE_RP = Pdu(PduType.RELEASE_RP, bytes(RELEASE_BODY_BYTES)).encode()


def describe_abort(body: bytes) -> str:
    """Return an A-ABORT's body in words."""
    if len(body) != 4:
        return f"A-ABORT of {len(body)} bytes"
    source = {0: "user", 2: "provider"}.get(body[2], f"source {body[2]}")
    try:
        reason = AbortReason(body[3]).name.lower().replace("_", " ")
    except ValueError:
        reason = f"reason {body[3]}"
    return f"A-ABORT by the service {source}" + (f", {reason}" if body[2] == AbortSource.PROVIDER else "")


_TYPES = {int(kind): kind for kind in PduType}  # five times as fast as calling the enumeration


# What a first byte most often means where a peer speaks something else.
_OTHER_PROTOCOLS = {
    0x16: ", it begins a TLS handshake; this side is plain DICOM: turn TLS off at the peer, or on here",
    0x15: ", it is an alert of TLS; this side is plain DICOM: turn TLS off at the peer, or on here",
    0x47: ", it reads like HTTP (GET)",
    0x48: ", it reads like HTTP",
    0x50: ", it reads like a PROXY header or HTTP (POST)",
}


def parse_type(code: int) -> PduType:
    """Return the type that a PDU's first byte means.  Raises: PduError."""
    kind = _TYPES.get(code)
    if kind is None:
        hint = _OTHER_PROTOCOLS.get(code, ", so this is not DICOM")
        raise PduError(f"PDU type 0x{code:02X} is not one of 0x01 to 0x07{hint}", AbortReason.UNRECOGNIZED_PDU)
    return kind


class PduReader:
    """Take bytes with `feed`, give whole PDUs with `next_pdu`.  For the PDUs that set an association up."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._buffer = bytearray()

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes | memoryview) -> None:
        """Take what arrived."""
        self._buffer += data

    def next_type(self) -> PduType | None:
        """Return the type of the next PDU as soon as its first byte is there.  Raises: PduError."""
        return parse_type(self._buffer[0]) if self._buffer else None

    def next_pdu(self) -> Pdu | None:
        """Return the next PDU, or None until it is whole.  Raises: PduError."""
        kind = self.next_type()
        if kind is None or len(self._buffer) < HEADER.size:
            return None
        _, length = HEADER.unpack_from(self._buffer)
        if length > self._max_body_bytes:  # before the body is kept: 6 bytes must not cost 4 GiB
            raise PduError(
                f"{kind.label} of {length} bytes, at most {self._max_body_bytes} accepted", AbortReason.INVALID_VALUE
            )
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        return Pdu(kind, body)

    def take_rest(self) -> bytes:
        """Return, and forget, the bytes behind the last PDU."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest
