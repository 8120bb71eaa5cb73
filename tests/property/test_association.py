import struct
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from equipoise.proto.dicom.association import (
    PresentationContext,
    RoleSelection,
    encode_request,
    forwarded_accept,
    forwarded_request,
    parse_accept,
    parse_request,
    role_selections_of,
)
from equipoise.proto.dicom.pdu import PduError
from tests.unit.proto.captures import ECHOSCU_RQ, HEADER_BYTES, PYNETDICOM_RQ, STORESCP_AC

REQUEST = ECHOSCU_RQ[HEADER_BYTES:]
UIDS = st.lists(st.integers(0, 99999), min_size=2, max_size=10).map(lambda numbers: ".".join(map(str, numbers)))
TITLES = st.text(st.sampled_from("AZaz09 _-.^[~"), min_size=1, max_size=16).map(str.strip).filter(bool)
CONTEXTS = st.lists(
    st.builds(
        PresentationContext,
        st.integers(0, 127).map(lambda number: 2 * number + 1),
        UIDS,
        st.lists(UIDS, min_size=1, max_size=4).map(tuple),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda context: context.id,
)


@given(TITLES, TITLES, CONTEXTS, st.integers(0, 0xFFFFFFFF))
def test_what_is_written_reads_back(
    called: str, calling: str, contexts: list[PresentationContext], max_length: int
) -> None:
    request = parse_request(encode_request(called, calling, contexts, max_length)[HEADER_BYTES:])
    assert (request.called_ae, request.calling_ae, request.max_length) == (called, calling, max_length)
    assert list(request.contexts) == contexts


SUB_ITEMS = st.lists(
    st.builds(
        lambda kind, value: struct.pack(">BxH", kind, len(value)) + value,
        st.sampled_from([0x52, 0x53, 0x54, 0x55, 0x58, 0x7F]),
        st.binary(max_size=20),
    )
)


@given(SUB_ITEMS)
def test_all_user_items_but_the_window_pass_in_their_order(sub_items: list[bytes]) -> None:
    def body(items: list[bytes]) -> bytes:
        value = b"".join(items)
        return REQUEST[:143] + struct.pack(">BxH", 0x50, len(value)) + value

    request = parse_request(body(sub_items))
    wire = forwarded_request(request, called_ae=None, unlimited_as=1 << 20)
    assert wire[HEADER_BYTES:] == body([item for item in sub_items if item[0] != 0x53])


@given(st.sampled_from([REQUEST, PYNETDICOM_RQ[HEADER_BYTES:]]), st.integers(0, 287), st.binary(max_size=8))
def test_a_damaged_request_is_refused_at_once_or_can_be_forwarded(body: bytes, place: int, damage: bytes) -> None:
    body = body[:place] + damage + body[place + len(damage) :]
    try:
        request = parse_request(body)
    except PduError:
        return
    # From here on a node is involved, so nothing may fail any more.
    forwarded_request(request, called_ae="PACS", unlimited_as=1 << 20)
    assert request.contexts
    assert {context.id for context in request.contexts} == {
        number for number in range(256) if request.proposed_mask >> number & 1
    }


ROLES = st.lists(st.builds(RoleSelection, UIDS, st.booleans(), st.booleans()), max_size=4)


@given(CONTEXTS, ROLES, st.lists(st.sampled_from(("window", "unknown")), max_size=3))
def test_roles_read_back_whatever_stands_between_them(
    contexts: list[PresentationContext], roles: list[RoleSelection], between: list[str]
) -> None:
    wire = encode_request("PACS", "CT1", contexts)[HEADER_BYTES:]
    others = {"window": (0x53, bytes(4)), "unknown": (0x7F, b"?")}
    items = [_role(role) for role in roles]
    for place, kind in enumerate(between):
        items.insert(2 * place, _item(*others[kind]))
    user = wire.rindex(bytes.fromhex("51 00 0004"))
    request = parse_request(wire[: user - 4] + _item(0x50, wire[user:] + b"".join(items)))
    assert list(role_selections_of(request.proposal)) == roles
    assert list(request.contexts) == contexts
    assert len(request.proposal) < len(wire) + sum(map(len, items))


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _role(role: RoleSelection) -> bytes:
    uid = role.sop_class.encode()
    return _item(0x54, struct.pack(">H", len(uid)) + uid + bytes([role.scu, role.scp]))


@given(st.integers(0, 184), st.binary(max_size=8))
def test_a_damaged_answer_is_refused_at_once_or_can_be_forwarded(place: int, damage: bytes) -> None:
    body = STORESCP_AC[HEADER_BYTES:]
    body = body[:place] + damage + body[place + len(damage) :]
    try:
        accept = parse_accept(body)
    except PduError:
        return
    forwarded_accept(accept, parse_request(REQUEST), unlimited_as=1 << 20)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_pdu_error(items: bytes) -> None:
    for parse in (parse_request, parse_accept):
        with suppress(PduError):
            parse(REQUEST[:68] + items)
