import struct

from hypothesis import example, given
from hypothesis import strategies as st

from equipoise.proto.dicom.dimse import CommandSet
from equipoise.proto.dicom.pdu import PduError, PduType
from equipoise.proto.dicom.walker import Control, Note, Walker
from tests.property.dicom_streams import ACCEPTED, MAX_LENGTH, Stream, command_set, p_data, pdv, pieces_of, streams

Outcome = tuple[list[Note], str, bool, bool, int]


def walk(pieces: list[bytes], max_length: int = MAX_LENGTH) -> Outcome:
    """Return the notes, the error, and where the walker stands; an error ends it."""
    walker = Walker(max_length, ACCEPTED)
    notes: list[Note] = []
    for piece in pieces:
        try:
            notes += walker.walk(memoryview(piece))
        except PduError as error:
            return notes, f"{error.reason}: {error}", False, False, 0
    return notes, "", walker.in_pdu, walker.at_rest, walker.pdus


def notes_before_error(pieces: list[bytes]) -> tuple[list[Note], str]:
    """Byte by byte, so that no note is lost in the piece that holds the error."""
    outcome = walk([piece[at : at + 1] for piece in pieces for at in range(len(piece))])
    return outcome[0], outcome[1]


@given(streams())
def test_every_message_and_control_pdu_is_noted_once_in_order(stream: Stream) -> None:
    notes, error, in_pdu, at_rest, pdus = walk([stream.wire])
    assert error == ""
    commands = [note for note in notes if isinstance(note, CommandSet)]
    assert [(note.field, note.message_id, note.status, note.sop_class, note.has_data_set) for note in commands] == [
        (sent.field, sent.message_id, sent.status, sent.sop_class, sent.has_data_set) for sent in stream.messages
    ]
    assert [note.type for note in notes if isinstance(note, Control)] == ([stream.control] if stream.control else [])
    assert (in_pdu, at_rest, pdus) == (False, True, len(stream.pdus))


@given(streams(), st.lists(st.integers(0, 8000)))
def test_any_cut_of_the_stream_gives_the_same(stream: Stream, cuts: list[int]) -> None:
    assert walk(pieces_of(stream.wire, cuts)) == walk([stream.wire])


@given(streams(), st.integers(0, 8000))
def test_wherever_a_stream_stops_both_paths_stand_at_the_same_place(stream: Stream, end: int) -> None:
    """Byte by byte no PDU ever lies whole in the buffer, so the hot path is not taken."""
    wire = stream.wire[:end]
    assert walk([wire]) == walk([wire[at : at + 1] for at in range(len(wire))])


@given(streams(), st.integers(0, 8000))
def test_in_pdu_and_at_rest_say_where_the_stream_stands(stream: Stream, end: int) -> None:
    ends, at = {0}, 0
    for pdu in stream.pdus:
        at += len(pdu)
        ends.add(at)
    end = min(end, at)
    _, _, in_pdu, at_rest, _ = walk([stream.wire[:end]])
    assert in_pdu == (end not in ends)
    assert not (in_pdu and at_rest)


def begun(context: int = 1) -> bytes:
    return p_data(pdv(context, 3, command_set(0x0001, 7, data_set=True)))


SHORT = struct.pack(">BxIIB", 4, 5, 1, 1)  # a P-DATA-TF of 5 bytes, one short of a fragment's header


@given(streams(), st.integers(0, 8000), st.binary(max_size=30), st.lists(st.integers(0, 9000)))
@example(Stream((), (begun(), SHORT, SHORT, p_data(pdv(1, 2, b""))), None), 0, b"", [])
@example(Stream((), (begun(), struct.pack(">BxII", 4, 4, 0), b"\x01\x00", p_data(pdv(1, 2, b""))), None), 0, b"", [])
def test_hot_and_general_path_agree_on_damaged_streams(
    stream: Stream, place: int, damage: bytes, cuts: list[int]
) -> None:
    place = min(place, len(stream.wire))
    wire = stream.wire[:place] + damage + stream.wire[place + len(damage) :]
    whole, pieces = walk([wire]), walk(pieces_of(wire, cuts))
    single = notes_before_error([wire])
    assert whole[1] == pieces[1] == single[1]
    for notes in (whole[0], pieces[0]):
        assert notes == single[0][: len(notes)]


@given(st.lists(st.binary(max_size=60)))
def test_arbitrary_bytes_raise_nothing_but_pdu_error(pieces: list[bytes]) -> None:
    walk(pieces)


HEADERS = st.builds(
    lambda kind, length, rest: struct.pack(">BxI", kind, length) + rest,
    st.sampled_from([*PduType, 0, 8]),
    st.integers(0, 40) | st.sampled_from([MAX_LENGTH, MAX_LENGTH + 13, 0xFFFFFFFF]),
    st.builds(pdv, st.sampled_from([0, 1, 2, 3, 255]), st.integers(0, 7), st.binary(max_size=40)),
)


@given(st.lists(HEADERS, max_size=6), st.lists(st.integers(0, 300)))
def test_headers_that_nearly_fit_raise_nothing_but_pdu_error(pdus: list[bytes], cuts: list[int]) -> None:
    wire = begun() + b"".join(pdus)
    assert walk(pieces_of(wire, cuts))[1] == walk([wire])[1]
