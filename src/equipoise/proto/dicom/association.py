"""A-ASSOCIATE-RQ and -AC: read what a balancer decides on, change the little that it must, encode a request of our own.

Everything else of a request passes as it came: items that this module does not know, user identity, their order.
Source: DICOM PS3.8 sections 9.3.2 and 9.3.3 (the PDUs), annex D.1 (maximum length); PS3.7 annex D.3.3.3 (asynchronous
operations window), D.3.3.4 (role selection); PS3.5 section 9.1 (length of a UID).
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from equipoise.proto.dicom.pdu import AbortReason, Pdu, PduError, PduType

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
IMPLEMENTATION_CLASS_UID = "2.25.207293870155320171411259834404215513671"  # ours: PS3.5 annex B.2
IMPLEMENTATION_VERSION = "EQUIPOISE_0_2"

_FIXED_BYTES = 68  # protocol version to the end of the reserved field: where the items begin in a body
_ITEM = struct.Struct(">BxH")
_U32 = struct.Struct(">I")
_CALLED, _CALLING = slice(4, 20), slice(20, 36)
_TITLE_BYTES = 16
_UID_BYTES = 64  # PS3.5 section 9.1 and table 6.2-1: padding is counted, and 64 is even, so that it needs none
_APPLICATION, _CONTEXT_RQ, _CONTEXT_AC, _ABSTRACT, _TRANSFER, _USER = 0x10, 0x20, 0x21, 0x30, 0x40, 0x50
_MAX_LENGTH, _IMPLEMENTATION_CLASS, _ASYNC_WINDOW, _ROLES, _IMPLEMENTATION_VERSION = 0x51, 0x52, 0x53, 0x54, 0x55


@dataclass(frozen=True, slots=True)
class PresentationContext:
    """One proposal of a request: an odd id of 1 to 255, what, and in which encodings."""

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """Which roles the requestor offers to take for a SOP class.  Without one it is SCU, who asks, and not SCP."""

    sop_class: str
    scu: bool
    scp: bool


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """What a balancer reads of an A-ASSOCIATE-RQ.

    Attributes:
        max_length: None where the item is missing.
        has_window: Whether an asynchronous operations window is proposed.
        proposed_mask: The proposed contexts as one number: bit n stands for id n.
        proposal_at: Places in `body`: from the first to the last context, then each role selection.
    """

    protocol_version: int
    called_ae: str
    calling_ae: str
    max_length: int | None
    has_window: bool
    proposed_mask: int
    body: bytes
    proposal_at: tuple[slice, ...] = ()

    @property
    def proposal(self) -> bytes:
        """The items that say what is asked for: contexts and role selections.  The same bytes ask for the same.

        Not decoded before it is asked for, since many have 128 contexts and few services look.
        """
        first, *roles = self.proposal_at
        return b"".join((self.body[first], *(self.body[place] for place in roles))) if roles else self.body[first]

    @property
    def contexts(self) -> tuple[PresentationContext, ...]:
        """What is proposed."""
        return tuple(contexts_of(self.proposal))


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """What a balancer reads of an A-ASSOCIATE-AC.

    Attributes:
        results: Context id to result, 0 for accepted (PS3.8 table 9-18).
        max_length: None where the item is missing.
        has_window: Whether it answers an asynchronous operations window.
    """

    results: dict[int, int]
    max_length: int | None
    has_window: bool
    body: bytes

    @property
    def accepted_mask(self) -> int:
        """The accepted contexts as one number: bit n stands for id n."""
        return sum(1 << number for number, result in self.results.items() if result == 0)


class _UserInformation(NamedTuple):
    """What is read of item 0x50; `roles_at`: places of the role selections."""

    max_length: int | None = None
    has_window: bool = False
    roles_at: tuple[slice, ...] = ()


def parse_request(body: bytes) -> AssociateRequest:
    """Read the body of an A-ASSOCIATE-RQ.  Raises: PduError."""
    contexts, user = _read(body, "A-ASSOCIATE-RQ", _CONTEXT_RQ)
    proposed_mask = 0
    for start, end in contexts:
        number = _check_context(body, start, end)
        if proposed_mask >> number & 1:
            raise _invalid(f"presentation context id {number} is proposed twice")
        proposed_mask |= 1 << number
    if not proposed_mask:
        raise _invalid("A-ASSOCIATE-RQ without a presentation context")
    return AssociateRequest(
        protocol_version=int.from_bytes(body[0:2], "big"),
        called_ae=ae_text(body[_CALLED]),
        calling_ae=ae_text(body[_CALLING]),
        max_length=user.max_length,
        has_window=user.has_window,
        proposed_mask=proposed_mask,
        body=body,
        proposal_at=(slice(contexts[0][0] - _ITEM.size, contexts[-1][1]), *user.roles_at),
    )


def parse_accept(body: bytes) -> AssociateAccept:
    """Read the body of an A-ASSOCIATE-AC.  Raises: PduError."""
    contexts, user = _read(body, "A-ASSOCIATE-AC", _CONTEXT_AC)
    results: dict[int, int] = {}
    for start, end in contexts:
        number = _context_id(body, start, end)
        if number in results:
            raise _invalid(f"presentation context id {number} is answered twice")
        results[number] = body[start + 2]
    return AssociateAccept(results=results, max_length=user.max_length, has_window=user.has_window, body=body)


def contexts_of(proposal: bytes) -> Iterator[PresentationContext]:
    """Yield the contexts of a `proposal`."""
    for kind, start, end in _items(proposal, 0, len(proposal)):
        if kind == _CONTEXT_RQ:
            yield _context(proposal, start, end)


def role_selections_of(proposal: bytes) -> Iterator[RoleSelection]:
    """Yield the role selections of a `proposal`.  Raises: PduError."""
    for kind, start, end in _items(proposal, 0, len(proposal)):
        if kind == _ROLES:
            yield _role_selection(proposal[start:end])


def forwarded_request(request: AssociateRequest, *, called_ae: str | None, unlimited_as: int) -> bytes:
    """Return the PDU for the node: without an asynchronous window, with another called AE where one is given.

    Args:
        request: As the client sent it.
        called_ae: Replaces the client's, or None.
        unlimited_as: The maximum length, in bytes, that stands for an announced 0 (no limit).
    """
    body = _forwarded(request, unlimited_as)
    if called_ae is not None:
        body[_CALLED] = _title(called_ae)
    return Pdu(PduType.ASSOCIATE_RQ, bytes(body)).encode()


def forwarded_accept(accept: AssociateAccept, request: AssociateRequest, *, unlimited_as: int) -> bytes:
    """Return the PDU for the client: its own titles back (PS3.8 table 9-17), no asynchronous window."""
    body = _forwarded(accept, unlimited_as)
    body[_CALLED], body[_CALLING] = request.body[_CALLED], request.body[_CALLING]
    return Pdu(PduType.ASSOCIATE_AC, bytes(body)).encode()


def encode_request(
    called_ae: str, calling_ae: str, contexts: Sequence[PresentationContext], max_length: int = 16384
) -> bytes:
    """Return a request of our own, as health checks send it."""
    items = bytearray(_item(_APPLICATION, APPLICATION_CONTEXT.encode()))
    for context in contexts:
        syntaxes = b"".join(_item(_TRANSFER, uid.encode()) for uid in context.transfer_syntaxes)
        items += _item(
            _CONTEXT_RQ, bytes([context.id, 0, 0, 0]) + _item(_ABSTRACT, context.abstract_syntax.encode()) + syntaxes
        )
    items += _item(
        _USER,
        _item(_MAX_LENGTH, _U32.pack(max_length))
        + _item(_IMPLEMENTATION_CLASS, IMPLEMENTATION_CLASS_UID.encode())
        + _item(_IMPLEMENTATION_VERSION, IMPLEMENTATION_VERSION.encode()),
    )
    fixed = bytes([0, 1, 0, 0]) + _title(called_ae) + _title(calling_ae) + bytes(32)
    return Pdu(PduType.ASSOCIATE_RQ, fixed + bytes(items)).encode()


def ae_text(field: bytes) -> str:
    """Return an AE title without the padding that is not significant; NULs too, which some devices send for spaces.

    What is not printable ASCII is shown escaped: titles go into events and onto terminals.
    """
    text = field.strip(b" \0").decode("ascii", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _title(text: str) -> bytes:
    return text.encode("ascii").ljust(_TITLE_BYTES)[:_TITLE_BYTES]


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _invalid(message: str) -> PduError:
    return PduError(message, AbortReason.INVALID_VALUE)


def _items(body: bytes, start: int, end: int) -> list[tuple[int, int, int]]:
    """Return type, start and end of the value of each item between two places.  Raises: PduError."""
    found = []
    while start < end:
        if end - start < _ITEM.size:
            raise _invalid(f"{end - start} bytes left over behind the last item")
        kind, length = _ITEM.unpack_from(body, start)
        start += _ITEM.size
        if length > end - start:
            raise _invalid(f"item 0x{kind:02X} of {length} bytes overruns what holds it by {length - (end - start)}")
        found.append((kind, start, start + length))
        start += length
    return found


def _read(body: bytes, label: str, context_kind: int) -> tuple[list[tuple[int, int]], _UserInformation]:
    """Return where the contexts of this kind are, and the user information.  Raises: PduError."""
    if len(body) < _FIXED_BYTES:
        raise _invalid(f"{label} of {len(body)} bytes, its fixed fields alone have {_FIXED_BYTES}")
    contexts = []
    user: _UserInformation | None = None
    for kind, start, end in _items(body, _FIXED_BYTES, len(body)):
        if kind == context_kind:
            contexts.append((start, end))
        elif kind == _USER:
            if user is not None:  # which of them counts is anybody's guess, the node's may differ from ours
                raise _invalid("user information is there twice")
            user = _read_user(body, start, end)
    return contexts, user or _UserInformation()


def _context_id(body: bytes, start: int, end: int) -> int:
    if end - start < 4:
        raise _invalid(f"presentation context of {end - start} bytes, at least 4")
    number = body[start]
    if number % 2 == 0:
        raise _invalid(f"presentation context id {number} is even, ids are odd")
    return number


def _check_context(body: bytes, start: int, end: int) -> int:
    """Return the id of a proposal that is whole.  Raises: PduError."""
    number = _context_id(body, start, end)
    items = _items(body, start + 4, end)
    kinds = [kind for kind, _, _ in items]
    abstract, transfer = kinds.count(_ABSTRACT), kinds.count(_TRANSFER)
    if abstract != 1 or not transfer:
        raise _invalid(
            f"presentation context {number} has {abstract} abstract and {transfer} transfer syntaxes, "
            "it needs one and at least one"
        )
    for kind, first, last in items:
        if last - first > _UID_BYTES and kind in (_ABSTRACT, _TRANSFER):
            # Passed on it costs the time of every node: DCMTK answers with silence.
            what = "abstract" if kind == _ABSTRACT else "transfer"
            raise _invalid(
                f"presentation context {number}: {what} syntax of {last - first} bytes, a UID has at most {_UID_BYTES}"
            )
    return number


def _context(body: bytes, start: int, end: int) -> PresentationContext:
    items = [(kind, _uid(body[first:last])) for kind, first, last in _items(body, start + 4, end)]
    abstract = next(uid for kind, uid in items if kind == _ABSTRACT)
    return PresentationContext(body[start], abstract, tuple(uid for kind, uid in items if kind == _TRANSFER))


def _uid(field: bytes) -> str:
    return ae_text(field[:_UID_BYTES])


def _role_selection(value: bytes) -> RoleSelection:
    """Read item 0x54: a length, a SOP class, one byte for each role; padding behind them is let pass."""
    size = int.from_bytes(value[:2], "big")
    if len(value) < 2 + size + 2:
        raise _invalid(f"role selection of {len(value)} bytes, its SOP class alone has {size}")
    return RoleSelection(_uid(value[2 : 2 + size]), scu=value[2 + size] == 1, scp=value[3 + size] == 1)


def _read_user(body: bytes, start: int, end: int) -> _UserInformation:
    """Return what is read of the user information.

    All sub-items are walked, also those behind the ones looked for: what is forwarded later must be whole.
    """
    max_length: int | None = None
    has_window = False
    roles_at: list[slice] = []
    for kind, value_start, value_end in _items(body, start, end):
        if kind == _MAX_LENGTH:
            if value_end - value_start != 4:
                raise _invalid(f"maximum length item of {value_end - value_start} bytes, it has 4")
            if max_length is not None:
                raise _invalid("maximum length is there twice")
            max_length = int(_U32.unpack_from(body, value_start)[0])
        elif kind == _ASYNC_WINDOW:
            has_window = True
        elif kind == _ROLES:
            roles_at.append(slice(value_start - _ITEM.size, value_end))
    return _UserInformation(max_length, has_window, tuple(roles_at))


def _forwarded(pdu: AssociateRequest | AssociateAccept, unlimited_as: int) -> bytearray:
    if pdu.has_window or pdu.max_length == 0:
        return _without_window(pdu.body, unlimited_as)
    return bytearray(pdu.body)  # nearly always: nothing is to be changed


def _without_window(body: bytes, unlimited_as: int) -> bytearray:
    """Return a body without item 0x53 in its user information, and with no maximum length of 0."""
    result = bytearray(body[:_FIXED_BYTES])
    for kind, start, end in _items(body, _FIXED_BYTES, len(body)):
        value = body[start:end]
        if kind == _USER:
            value = b"".join(
                _item(sub, _bounded(body[a:b], unlimited_as) if sub == _MAX_LENGTH else body[a:b])
                for sub, a, b in _items(body, start, end)
                if sub != _ASYNC_WINDOW
            )
        result += _ITEM.pack(kind, len(value)) + value
    return result


def _bounded(max_length: bytes, unlimited_as: int) -> bytes:
    return max_length if any(max_length) else _U32.pack(unlimited_as)
