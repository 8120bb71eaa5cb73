"""Follow one direction of an established association in the driver's buffer, without copying or decoding its bodies.

It finds command sets, releases and aborts, and refuses what breaks the protocol.  Data sets are skipped over.
Source: DICOM PS3.8 sections 9.3.4 to 9.3.8 and annex E (fragments, one message at a time).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from equipoise.proto.dicom.dimse import MAX_COMMAND_BYTES, CommandSet, parse_command
from equipoise.proto.dicom.pdu import (
    HEADER,
    RELEASE_BODY_BYTES,
    AbortReason,
    PduError,
    PduType,
    parse_type,
)

# Some senders count a PDU header or a PDV header into their own limit, or leave one out: 12 bytes over do no harm.
LENGTH_SLACK_BYTES = 12
_PDV = struct.Struct(">IBB")  # length of what follows; context id; control header
_PDU_AND_PDV = struct.Struct(">BxIIBB")
_PDV_PREFIX_BYTES = 4  # the length field, which does not count itself
_COMMAND_BIT, _LAST_BIT = 1, 2


@dataclass(frozen=True, slots=True)
class Control:
    """A PDU other than P-DATA: release or abort, with its body."""

    type: PduType
    body: bytes


Note = CommandSet | Control
_NOTHING: tuple[Note, ...] = ()


class Walker:
    """One direction.  `walk` everything that arrives, in order.

    Args:
        max_length: What the receiving side announced, in bytes of a P-DATA-TF's body.
        accepted_mask: Bit n is set where presentation context n was accepted.
    """

    __slots__ = (
        "_accepted",
        "_body",
        "_command",
        "_context",
        "_expects_data",
        "_fragment_left",
        "_header",
        "_is_command",
        "_is_last",
        "_kind",
        "_max_length",
        "_pdu_left",
        "pdus",
    )

    def __init__(self, max_length: int, accepted_mask: int) -> None:
        self._max_length = max_length + LENGTH_SLACK_BYTES
        self._accepted = accepted_mask
        self._header = b""  # the part of a header that has arrived
        self._kind: PduType | None = None  # of the PDU that is open
        self._body: bytearray | None = None  # of a control PDU that is open
        self._pdu_left = 0  # bytes of the open PDU that have not been walked
        self._fragment_left = 0
        self._is_command = self._is_last = False  # of the open fragment
        self._command: bytearray | None = None  # of the message whose command set is open
        self._expects_data = False
        self._context = 0  # of the open message; 0 between messages
        self.pdus = 0  # seen so far: tells whether a peer makes progress

    @property
    def in_pdu(self) -> bool:
        """Whether a PDU has begun and not ended."""
        return bool(self._header) or self._kind is not None

    @property
    def at_rest(self) -> bool:
        """Whether no PDU and no message is open."""
        return not self.in_pdu and self._context == 0

    def walk(self, data: memoryview) -> Sequence[Note]:
        """Return the command sets and control PDUs that end in `data`, in their order.  Raises: PduError."""
        notes: list[Note] | tuple[Note, ...] = _NOTHING
        at, size = 0, len(data)
        while at < size:
            if self._fragment_left:
                at = self._through_fragment(data, at)
            elif self._kind is None and not self._header and self._expects_data:
                ahead = self._skip_whole_pdus(data, at)
                at = ahead if ahead > at else self._through_header(data, at)
            else:
                at = self._through_header(data, at)
            if self._kind is not None and not self._fragment_left and (note := self._close()) is not None:
                notes = [*notes, note]
        return notes

    def _skip_whole_pdus(self, data: memoryview, at: int) -> int:
        """Return the place behind the P-DATA of one data fragment each, not the last, that lie whole in `data`.

        This is the hot path: nearly all bytes of an image pass here, at a third of a microsecond a PDU.
        """
        size, context, limit = len(data), self._context, self._max_length
        unpack, pdus = _PDU_AND_PDV.unpack_from, 0
        while size - at >= 12:
            kind, length, fragment, number, control = unpack(data, at)
            end = at + 6 + length
            if end > size or kind != 4 or fragment + 4 != length or number != context or control & 3 or length > limit:
                break
            if fragment < 2:
                break  # without room for its own header, so what was read as that is not this PDU's
            at = end
            pdus += 1
        self.pdus += pdus
        return at

    def _through_fragment(self, data: memoryview, at: int) -> int:
        end = min(at + self._fragment_left, len(data))
        if self._body is not None:
            self._body += data[at:end]
        elif self._command is not None and self._is_command:
            self._command += data[at:end]
        self._fragment_left -= end - at
        self._pdu_left -= end - at
        return end

    def _through_header(self, data: memoryview, at: int) -> int:
        end = min(at + 6 - len(self._header), len(data))  # both kinds of header have six bytes
        self._header += data[at:end]
        if self._kind is None:
            parse_type(self._header[0])  # a wrong first byte is answered at once, not after five more
        if len(self._header) == 6:
            if self._kind is None:
                self._open_pdu()
            else:
                self._open_fragment()
        return end

    def _open_pdu(self) -> None:
        code, length = HEADER.unpack(self._header)
        self._header = b""
        kind = parse_type(code)
        if kind is PduType.DATA_TF:
            if length > self._max_length:
                limit = self._max_length - LENGTH_SLACK_BYTES
                raise PduError(f"P-DATA-TF of {length} bytes, {limit} were agreed", AbortReason.INVALID_VALUE)
            if length < _PDV.size:
                raise PduError(f"P-DATA-TF of {length} bytes holds no fragment", AbortReason.INVALID_VALUE)
        elif kind in (PduType.RELEASE_RQ, PduType.RELEASE_RP, PduType.ABORT):
            if length != RELEASE_BODY_BYTES:
                raise PduError(f"{kind.label} of {length} bytes, it has 4", AbortReason.INVALID_VALUE)
            self._body, self._fragment_left = bytearray(), length
        else:
            raise PduError(f"{kind.label} within an association", AbortReason.UNEXPECTED_PDU)
        self._kind, self._pdu_left = kind, length

    def _open_fragment(self) -> None:
        length, context, control = _PDV.unpack(self._header)
        self._header = b""
        if not 2 <= length <= self._pdu_left - _PDV_PREFIX_BYTES:
            raise PduError(
                f"fragment of {length} bytes in a P-DATA-TF with {self._pdu_left} left", AbortReason.INVALID_VALUE
            )
        self._pdu_left -= _PDV.size
        self._is_command, self._is_last = bool(control & _COMMAND_BIT), bool(control & _LAST_BIT)
        self._check_order(context)
        self._fragment_left = length - 2
        if self._is_command:
            if self._command is None:
                self._command = bytearray()
            if len(self._command) + self._fragment_left > MAX_COMMAND_BYTES:
                raise PduError(f"command set of more than {MAX_COMMAND_BYTES} bytes", AbortReason.INVALID_VALUE)

    def _check_order(self, context: int) -> None:
        """Hold a fragment against the open message: PS3.8 annex E.1 and PS3.7 section 6.3 forbid interleaving."""
        if not self._accepted >> context & 1:
            raise PduError(f"presentation context {context} was not accepted", AbortReason.INVALID_VALUE)
        if self._context not in (0, context):
            raise PduError(
                f"fragment of context {context} inside a message of context {self._context}", AbortReason.UNEXPECTED_PDU
            )
        if self._is_command == self._expects_data:
            found, wanted = ("command", "data") if self._is_command else ("data", "command")
            raise PduError(f"{found} fragment where a {wanted} fragment must come", AbortReason.UNEXPECTED_PDU)
        self._context = context

    def _close(self) -> Note | None:
        """End the fragment whose bytes have all come, and the PDU that it ends; return what became whole."""
        note: Note | None = None
        if self._body is not None and self._kind is not None:
            note, self._body = Control(self._kind, bytes(self._body)), None
        elif self._context and self._is_last and not self._header:
            note = self._close_message_part()
        if self._pdu_left == 0:
            self._kind = None
            self.pdus += 1
        elif 0 < self._pdu_left < _PDV.size and not self._header:
            raise PduError(f"{self._pdu_left} bytes left over behind the last fragment", AbortReason.INVALID_VALUE)
        return note

    def _close_message_part(self) -> Note | None:
        self._is_last = False
        if self._command is None:
            self._expects_data, self._context = False, 0
            return None
        command, self._command = parse_command(self._command), None
        self._expects_data = command.has_data_set
        if not command.has_data_set:
            self._context = 0
        return command
