from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.base.errors import PeerError
from equipoise.proto import hl7
from equipoise.proto.mllp import Frame, FrameReader, Framing
from tests.property.dicom_streams import pieces_of

DEFAULT = Framing()
# Few letters, so that what looks like an end or a start is frequent.
NEAR = st.lists(st.sampled_from([b"\x1c", b"\x0b", b"\r", b"\n", b"\0", b"a", b"MSH|"]), max_size=12).map(b"".join)
CONTENT = NEAR.filter(lambda c: b"\x1c\r" not in c and b"\x1c\x0b" not in c and not c.endswith(b"\x1c"))
JUNK = st.lists(st.sampled_from([b"\r", b"\n", b"\0", b"\x1c", b"x"]), max_size=3).map(b"".join)
CUTS = st.lists(st.integers(0, 400), max_size=12)
BYTES = st.binary(min_size=1, max_size=31)


def read(reader: FrameReader, wire: bytes, cuts: list[int]) -> list[Frame]:
    return [frame for piece in pieces_of(wire, cuts) for frame in reader.feed(piece)]


@given(st.lists(st.tuples(JUNK, CONTENT, st.booleans()), max_size=5), CUTS)
def test_any_cut_gives_the_same_frames_with_junk_between_and_crs_missing(
    sent: list[tuple[bytes, bytes, bool]], cuts: list[int]
) -> None:
    wire, skipped, forgot = b"", 0, False
    for junk, content, forgets in sent:
        wire += (b"" if forgot else junk) + (DEFAULT.wrap(content)[:-1] if forgets else DEFAULT.wrap(content))
        skipped += 0 if forgot else len(junk)
        forgot = forgets
    reader = FrameReader(DEFAULT, 1000)
    frames = read(reader, wire, cuts)
    assert reader.may_be_whole == forgot
    if forgot:
        frames.append(reader.finish())
    assert [frame.content for frame in frames] == [content for _, content, _ in sent]
    assert (reader.skipped, reader.unfinished) == (skipped, 0)


@given(st.builds(Framing, BYTES, BYTES), st.lists(st.binary(max_size=60), max_size=4), CUTS)
def test_what_is_wrapped_is_read_again_in_any_framing(framing: Framing, sent: list[bytes], cuts: list[int]) -> None:
    joined = framing.end_without_cr + framing.start
    contents = [one for one in sent if (one + framing.end).find(framing.end) == len(one)]
    if framing.end_without_cr:
        contents = [one for one in contents if joined not in one + framing.end]
    reader = FrameReader(framing, 60)
    frames = read(reader, b"".join(framing.wrap(one) for one in contents), cuts)
    assert [frame.content for frame in frames] == contents
    assert (reader.skipped, reader.unfinished) == (0, 0)


FEW = st.lists(st.sampled_from([b"\r", b"\x1c", b"\x0b", b"A"]), min_size=1, max_size=5).map(b"".join)
OVERLAPPING = st.sampled_from(
    [
        Framing(b"\x0bA", b"\x1c\r"),  # the end without its CR and the next start are longer than the end
        Framing(b"AA", b"\x1c\x1c\r"),
        Framing(b"\r\x0b", b"\x1c\r"),  # the start begins with the end's last byte
        Framing(b"A\x1c\rA", b"\x1c\r"),  # the start holds the end
        Framing(b"\x1c", b"\x1c\r"),
    ]
)


@st.composite
def framed_streams(draw: st.DrawFn) -> tuple[Framing, bytes]:
    """Draw a framing and a stream made of its own parts."""
    framing = draw(OVERLAPPING | st.builds(Framing, FEW, FEW))
    parts = [framing.start, framing.end, framing.end[:-1], b"\r", b"A", b"\x1c"]
    return framing, framing.start + b"".join(draw(st.lists(st.sampled_from(parts), max_size=12)))


@given(framed_streams())
def test_where_bytes_overlap_every_cut_still_gives_the_same(stream: tuple[Framing, bytes]) -> None:
    framing, wire = stream
    one_by_one = list(range(len(wire)))
    results = [told(FrameReader(framing, 1000), wire, cuts) for cuts in [one_by_one, *([at] for at in one_by_one)]]
    assert all(result == told(FrameReader(framing, 1000), wire, []) for result in results)


def told(reader: FrameReader, wire: bytes, cuts: list[int]) -> tuple[list[bytes], int, int, bool]:
    contents = [frame.content for frame in read(reader, wire, cuts)]
    return contents, reader.skipped, reader.unfinished, reader.may_be_whole


@given(st.lists(NEAR | st.binary(max_size=40), max_size=20))
def test_any_bytes_raise_nothing_but_a_peers_error_and_memory_is_bounded(pieces: list[bytes]) -> None:
    reader, given_bytes = FrameReader(DEFAULT, 24), 0
    with suppress(PeerError):
        for piece in pieces:
            given_bytes += sum(frame.size for frame in reader.feed(piece))
            assert reader.unfinished <= 1 + 24 + 2
    assert given_bytes + reader.skipped + reader.unfinished <= sum(map(len, pieces))


HL7_PIECES = st.sampled_from(
    [b"MSH", b"FHS", b"PID", b"MRG", b"MSA", b"|", b"^", b"~\\&", b"\r", b"\n", b"\r\n", b"AA", b"17", b" ", b"\xff"]
)


@given(st.lists(HL7_PIECES | st.binary(max_size=4), max_size=40).map(b"".join))
@settings(max_examples=300)
def test_any_content_is_read_or_refused_in_words(content: bytes) -> None:
    hl7.read_acknowledgement(content)
    with suppress(hl7.NotHl7Error):
        header = hl7.read_header(content)
        assert set(header.kind) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789^") | set("batchother")
        answer = hl7.read_acknowledgement(hl7.reject(content, "no receiver", "20310304050607"))
        assert answer is not None
        assert answer.control_id == header.control_id
        assert answer.code in ("AR", "CR")
    with suppress(hl7.NotHl7Error):
        hl7.read_patients((content,))


SEGMENTS = st.sampled_from(
    [
        b"PID|1||17^^^A&1~18",
        b"PID||x",
        b"MRG|19^^^B",
        b"MRG|",
        b"PIDX|1|2|3",
        b"OBX|1|PID|MRG|4",
        b"PID|1|2|" + b"~" * 9,
    ]
)


@given(st.lists(st.tuples(SEGMENTS, st.sampled_from([b"\r", b"\n", b"\r\n"])), max_size=8), CUTS)
def test_patients_are_found_wherever_chunks_are_cut(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    message = b"MSH|^~\\&|A|B\r" + b"".join(line + ending for line, ending in lines)
    found = hl7.read_patients([piece for piece in pieces_of(message, cuts) if piece])
    told = {line for line, _ in lines}
    assert set(found.current) == ({b"17^A", b"18^"} if b"PID|1||17^^^A&1~18" in told else set())
    assert set(found.merged) == ({b"19^B"} if b"MRG|19^^^B" in told else set())
