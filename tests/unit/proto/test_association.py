import shutil
import socket
import struct
import subprocess

import pytest

from equipoise.proto.dicom.association import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
    PresentationContext,
    RoleSelection,
    ae_text,
    encode_request,
    forwarded_accept,
    forwarded_request,
    parse_accept,
    parse_request,
    role_selections_of,
)
from equipoise.proto.dicom.pdu import AbortReason, PduError
from tests.unit.proto.captures import ECHOSCU_RQ, HEADER_BYTES, PYNETDICOM_RQ, STORESCP_AC

RQ, AC = ECHOSCU_RQ[HEADER_BYTES:], STORESCP_AC[HEADER_BYTES:]
FIXED, APPLICATION_CONTEXT = RQ[:68], RQ[68:93]
CONTEXT, USER = RQ[93:143], RQ[143:]
ASYNC_WINDOW = bytes.fromhex("53 00 0004 0000 0000")  # PS3.7 D.3.3.3: any number of operations, both ways
ROLE = bytes.fromhex("54 00 0015 0011 312e322e3834302e31303030382e312e31 01 00")  # PS3.7 D.3.3.4
IDENTITY = bytes.fromhex("58 00 000a 01 00 0004 6e616d65 0000")  # PS3.7 D.3.3.7: a user name, no response asked
UNKNOWN_ITEM = bytes.fromhex("7f 00 0003 010203")


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def user(*sub_items: bytes) -> bytes:
    return item(0x50, b"".join(sub_items))


def max_length(value: int) -> bytes:
    return item(0x51, struct.pack(">I", value))


def forwarded_body(body: bytes, called_ae: str | None = None) -> bytes:
    wire = forwarded_request(parse_request(body), called_ae=called_ae, unlimited_as=1 << 20)
    assert struct.unpack_from(">BxI", wire) == (1, len(wire) - HEADER_BYTES)
    return wire[HEADER_BYTES:]


def refused(body: bytes, *, accept: bool = False) -> str:
    with pytest.raises(PduError) as caught:
        parse_accept(body) if accept else parse_request(body)
    assert caught.value.reason is AbortReason.INVALID_VALUE
    return str(caught.value)


def test_a_request_of_echoscu_is_read() -> None:
    request = parse_request(RQ)
    assert (request.called_ae, request.calling_ae) == ("ARCHIVE", "MODALITY")
    assert request.protocol_version == 1
    assert request.max_length == 16384
    assert request.contexts == (PresentationContext(1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,)),)


def test_role_selections_are_read_where_they_stand() -> None:
    """PS3.7 table D.3-9: length of the SOP class, SOP class, SCU, SCP."""
    worklist = bytes.fromhex("54 00 0009 0003 312e32 00 01 0000")  # two bytes of padding: not in the table
    request = parse_request(RQ[:143] + user(max_length(0), ROLE, IDENTITY, worklist))
    assert tuple(role_selections_of(request.proposal)) == (
        RoleSelection(VERIFICATION, scu=True, scp=False),
        RoleSelection("1.2", False, True),
    )
    assert b"name" not in request.proposal, "an identity is not kept with what is proposed"
    assert tuple(role_selections_of(parse_request(RQ).proposal)) == ()


@pytest.mark.parametrize("value", [b"", b"\0", b"\0\x05", b"\0\x01", b"\0\x031.2\0"])
def test_a_role_selection_that_is_not_whole_is_refused_when_it_is_read(value: bytes) -> None:
    request = parse_request(RQ[:143] + user(item(0x54, value)))
    with pytest.raises(PduError, match=f"role selection of {len(value)} bytes"):
        tuple(role_selections_of(request.proposal))


def test_a_request_of_pynetdicom_is_read() -> None:
    request = parse_request(PYNETDICOM_RQ[HEADER_BYTES:])
    assert request.max_length == 16382
    assert [len(context.transfer_syntaxes) for context in request.contexts] == [4]
    assert request.contexts[0].transfer_syntaxes[2] == "1.2.840.10008.1.2.1.99"


def test_an_answer_of_storescp_is_read() -> None:
    accept = parse_accept(AC)
    assert accept.results == {1: 0}
    assert accept.accepted_mask == 1 << 1
    assert accept.max_length == 16384


def test_only_accepted_contexts_are_in_the_mask() -> None:
    answers = b"".join(item(0x21, bytes([number, 0, result, 0])) for number, result in ((1, 0), (3, 4), (255, 0)))
    assert parse_accept(AC[:93] + answers + USER).accepted_mask == 1 << 1 | 1 << 255


def test_what_need_not_change_is_forwarded_byte_for_byte() -> None:
    assert forwarded_body(RQ) == RQ
    assert forwarded_body(PYNETDICOM_RQ[HEADER_BYTES:]) == PYNETDICOM_RQ[HEADER_BYTES:]
    request = parse_request(RQ)
    assert forwarded_accept(parse_accept(AC), request, unlimited_as=1 << 20) == STORESCP_AC


def test_the_operations_window_is_taken_out_and_nothing_else() -> None:
    others = (max_length(16384), ROLE, IDENTITY, UNKNOWN_ITEM)
    plain = RQ[:143] + user(*others) + UNKNOWN_ITEM
    assert forwarded_body(RQ[:143] + user(others[0], ASYNC_WINDOW, *others[1:]) + UNKNOWN_ITEM) == plain
    assert forwarded_body(RQ[:143] + user(ASYNC_WINDOW, *others, ASYNC_WINDOW) + UNKNOWN_ITEM) == plain


def test_the_operations_window_is_taken_out_of_the_answer() -> None:
    accept = parse_accept(AC[:-62] + user(max_length(16384), ASYNC_WINDOW))
    answer = forwarded_accept(accept, parse_request(RQ), unlimited_as=1 << 20)
    assert answer[HEADER_BYTES:] == AC[:-62] + user(max_length(16384))


def test_no_limit_is_passed_on_as_one_mebibyte() -> None:
    assert forwarded_body(RQ[:143] + user(max_length(0))) == RQ[:143] + user(max_length(1 << 20))
    assert parse_request(RQ[:143] + user(max_length(0))).max_length == 0


def test_a_missing_maximum_length_stays_missing() -> None:
    body = RQ[:143] + user(IDENTITY)
    assert parse_request(body).max_length is None
    assert forwarded_body(body) == body


def test_the_called_title_is_replaced_for_the_node_and_restored_for_the_client() -> None:
    body = forwarded_body(RQ, called_ae="PACS_A")
    assert body[4:20] == b"PACS_A          "
    assert body[:4] + body[20:] == RQ[:4] + RQ[20:]
    answer = AC[:4] + b"PACS_A          " + AC[20:]
    assert forwarded_accept(parse_accept(answer), parse_request(RQ), unlimited_as=1 << 20) == STORESCP_AC


def test_the_longest_title_fits() -> None:
    assert forwarded_body(RQ, called_ae="ABCDEFGHIJKLMNOP")[4:20] == b"ABCDEFGHIJKLMNOP"


def test_a_request_of_our_own_reads_back() -> None:
    contexts = (PresentationContext(1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.1")),)
    request = parse_request(encode_request("PACS", "EQUIPOISE", contexts)[HEADER_BYTES:])
    assert (request.called_ae, request.calling_ae, request.contexts) == ("PACS", "EQUIPOISE", contexts)
    assert request.max_length == 16384


@pytest.mark.parametrize("end", range(len(RQ)))
def test_a_request_cut_anywhere_is_refused_or_reads_as_far_as_its_items_are_whole(end: int) -> None:
    boundaries = {143}  # user information is missing there: mandatory, but devices leave it out
    if end in boundaries:
        assert parse_request(RQ[:end]).max_length is None
    else:
        refused(RQ[:end])


def test_a_body_of_the_fixed_fields_alone_proposes_nothing() -> None:
    assert "without a presentation context" in refused(FIXED)
    assert "its fixed fields alone have 68" in refused(b"")
    assert "of 67 bytes" in refused(FIXED[:-1])
    assert "of 67 bytes" in refused(FIXED[:-1], accept=True)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (CONTEXT + CONTEXT, "id 1 is proposed twice"),
        (CONTEXT[:4] + b"\x02" + CONTEXT[5:], "id 2 is even"),
        (CONTEXT[:4] + b"\x00" + CONTEXT[5:], "id 0 is even"),
        (item(0x20, b"\x01\0\0"), "presentation context of 3 bytes"),
        (item(0x20, b"\x01\0\0\0"), "0 abstract and 0 transfer"),
        (item(0x20, CONTEXT[4:8] + CONTEXT[8:29] + CONTEXT[8:29] + CONTEXT[29:]), "2 abstract"),
        (item(0x20, CONTEXT[4:29]), "0 transfer"),
        (b"\x20\x00\xff\xff" + CONTEXT[4:], "overruns"),
        (item(0x20, CONTEXT[4:8] + b"\x30\x00\x00\x12" + CONTEXT[12:29]), "overruns"),
        (CONTEXT + b"\x50\x00\x00\x05" + b"\x51\x00\x00\x04\x00", "overruns"),
        (CONTEXT + user(b"\x51\x00\x00\x03abc"), "maximum length item of 3 bytes"),
        (CONTEXT + user(max_length(16384), b"\x53\x00\x00\x05\x00"), "overruns"),
        (CONTEXT + user(max_length(16384), b"\x00"), "left over"),
        (CONTEXT + b"\x10\x00\x00", "left over"),
        (CONTEXT + user(ASYNC_WINDOW) + user(max_length(16384)), "user information is there twice"),
        (CONTEXT + user(max_length(0), max_length(16384)), "maximum length is there twice"),
    ],
)
def test_a_malformed_request_is_refused(items: bytes, said: str) -> None:
    assert said in refused(FIXED + APPLICATION_CONTEXT + items)


def proposing(abstract: bytes, transfer: bytes) -> bytes:
    context = item(0x20, b"\x03\0\0\0" + item(0x30, abstract) + item(0x40, transfer))
    return FIXED + APPLICATION_CONTEXT + CONTEXT + context + USER


LONGEST = b"2.25." + b"1" * 59  # PS3.5 section 9.1: 64 characters


def test_a_uid_longer_than_the_standard_allows_is_refused() -> None:
    """DCMTK answers such a request with silence, so it would cost the time of every node."""
    said = refused(proposing(LONGEST + b"1", b"1.2.840.10008.1.2"))
    assert "context 3: abstract syntax of 65 bytes, a UID has at most 64" in said
    said = refused(proposing(b"1.2.840.10008.1.1", LONGEST + b"111"))
    assert "context 3: transfer syntax of 67 bytes" in said
    assert "of 65 bytes" in refused(proposing(LONGEST + b"\0", b"1.2.840.10008.1.2")), "DCMTK counts the padding too"


def test_the_longest_uid_passes_and_padding_is_not_part_of_one() -> None:
    (_, context) = parse_request(proposing(LONGEST, LONGEST[:-1] + b"\0")).contexts
    assert context.abstract_syntax == LONGEST.decode()
    assert context.transfer_syntaxes == (LONGEST[:-1].decode(),)


def test_an_item_that_is_no_uid_may_be_long() -> None:
    context = item(0x20, CONTEXT[4:] + item(0x7F, bytes(200)))
    assert parse_request(FIXED + context + USER).proposed_mask == 2


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (item(0x21, b"\x01\0\0\0") * 2, "answered twice"),
        (item(0x21, b"\x02\0\0\0"), "id 2 is even"),
        (item(0x21, b"\x00\0\0\0"), "id 0 is even"),
        (item(0x21, b"\x01\0\0"), "of 3 bytes"),
        (b"\x21\x00\x00\x1a\x01\0\0\0", "overruns"),
        (user(max_length(16384), b"\x53\x00\x00\x05\x00"), "overruns"),
        (user(ASYNC_WINDOW) + user(max_length(16384)), "user information is there twice"),
    ],
)
def test_a_malformed_answer_is_refused(items: bytes, said: str) -> None:
    assert said in refused(FIXED + APPLICATION_CONTEXT + items, accept=True)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (b"CT1             ", "CT1"),
        (b"  CT 1          ", "CT 1"),
        (b"CT1\0\0\0\0\0\0\0\0\0\0\0\0\0", "CT1"),
        (b"                ", ""),
        (b"A\x1b[31mB", "A\\x1b[31mB"),
        (b"B\xc9", "B\\xc9"),
    ],
)
def test_titles_are_shown_without_padding_and_safe_for_a_terminal(field: bytes, text: str) -> None:
    assert ae_text(field) == text


def test_what_getscu_really_sends_passes_as_it_is() -> None:
    """121 contexts and 120 role selections in 17 kB: the largest request of DCMTK."""
    if (getscu := shutil.which("getscu")) is None:
        pytest.skip("getscu of DCMTK is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = str(listener.getsockname()[1])
        command = [getscu, "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2", "127.0.0.1", port]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as peer:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as stream:
                header = stream.read(HEADER_BYTES)
                body = stream.read(int.from_bytes(header[2:6], "big"))
            peer.wait(20)
    request = parse_request(body)
    assert len(request.contexts) > 100
    roles = tuple(role_selections_of(request.proposal))
    assert {(role.scu, role.scp) for role in roles} == {(False, True)}
    assert len(roles) == len(request.contexts) - 1  # all but the model itself
    assert forwarded_body(body) == body
