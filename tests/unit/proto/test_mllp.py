from collections import deque

import pytest

from equipoise.proto.mllp import ACK, NAK, Frame, FrameReader, FrameTooLongError, Framing

MIB = 1024 * 1024
FRAME = bytes.fromhex(
    "0b"  # start block, VT (MLLP release 1)
    "4d53487c"  # content: MSH|
    "0d"  # a segment's end is no frame's
    "1c"  # end block, FS
    "0d"  # and its CR
)
COMMIT = bytes.fromhex("0b 06 1c0d")  # release 2, section 1.2.2.2


def reader(max_bytes: int = MIB, framing: Framing | None = None) -> FrameReader:
    return FrameReader(framing or Framing(), max_bytes)


def contents(frames: list[Frame]) -> list[bytes]:
    assert all(frame.size == len(frame.content) for frame in frames)
    return [frame.content for frame in frames]


def test_a_frame_of_the_standard() -> None:
    assert contents(reader().feed(FRAME)) == [b"MSH|\r"]
    assert Framing().wrap(b"MSH|\r") == FRAME


def test_commit_blocks_of_release_2_are_frames_of_one_byte() -> None:
    assert Framing().wrap(ACK) == COMMIT
    assert contents(reader().feed(COMMIT + Framing().wrap(NAK))) == [ACK, NAK]


def test_a_byte_at_a_time_and_two_at_once() -> None:
    slow = reader()
    assert [frame.content for byte in FRAME * 2 for frame in slow.feed(bytes([byte]))] == [b"MSH|\r"] * 2
    assert contents(reader().feed(FRAME * 2)) == [b"MSH|\r"] * 2
    assert slow.unfinished == slow.skipped == 0


def test_what_stands_between_frames_is_skipped_and_counted() -> None:
    one = reader()
    assert contents(one.feed(b"\r\n\0" + FRAME + b"\x1c\r" + FRAME + b"hello")) == [b"MSH|\r"] * 2
    assert one.skipped == 3 + 2 + 5
    assert one.unfinished == 0


def test_unfinished_counts_what_is_held_with_its_start() -> None:
    one = reader()
    assert (one.feed(FRAME[:1]), one.unfinished) == ([], 1)
    assert (one.feed(FRAME[1:-1]), one.unfinished) == ([], len(FRAME) - 1)
    assert (len(one.feed(FRAME[-1:])), one.unfinished) == (1, 0)


def test_an_empty_frame_is_a_frame() -> None:
    assert contents(reader().feed(b"\x0b\x1c\r")) == [b""]
    slow = reader()
    assert [slow.feed(byte) for byte in (b"\x0b", b"\x1c")] == [[], []]
    assert slow.feed(b"\r") == [Frame((b"",), 0)]


@pytest.mark.parametrize("stray", [b"\x1c", b"\x1cX", b"\x1c\x1c", b"\x0b", b"\x0b\x1c\n", b"\r\x1c\0"])
def test_a_stray_byte_never_cuts_a_message_short(stray: bytes) -> None:
    content = b"MSH|a" + stray + b"|b"
    assert contents(reader().feed(Framing().wrap(content))) == [content]


def test_a_missing_cr_is_seen_where_the_next_frame_begins() -> None:
    one = reader()
    assert contents(one.feed(b"\x0ba\x1c\x0bb\x1c" + b"\x0bc\x1c\r")) == [b"a", b"b", b"c"]
    assert one.skipped == 0


def test_a_missing_cr_with_a_silence_behind_it() -> None:
    one = reader()
    assert one.feed(b"\x0babc") == []
    assert not one.may_be_whole
    assert one.feed(b"\x1c") == []
    assert one.may_be_whole
    assert one.finish() == Frame((b"abc",), 3)
    assert (one.may_be_whole, one.unfinished) == (False, 0)
    assert contents(one.feed(b"\r" + FRAME)) == [b"MSH|\r"]  # the CR came late
    assert one.skipped == 1


def test_what_may_be_whole_goes_on_when_more_comes() -> None:
    one = reader()
    assert one.feed(b"\x0babc\x1c") == []
    assert one.feed(b"d") == []
    assert not one.may_be_whole
    assert contents(one.feed(b"\x1c\r")) == [b"abc\x1cd"]


def test_finish_without_cause_is_a_bug() -> None:
    one = reader()
    with pytest.raises(ValueError, match="no frame is held"):
        one.finish()
    one.feed(b"\x0babc")
    with pytest.raises(ValueError, match="no frame is held"):
        one.finish()


def test_other_framings() -> None:
    framing = Framing.of("02 41", "0303")
    assert framing == Framing(b"\x02A", b"\x03\x03")
    one = reader(framing=framing)
    assert contents(one.feed(b"\x02\x02AB\x03C\x03\x03\x02A\x03")) == [b"B\x03C"]
    assert not one.may_be_whole  # an end without CR has no shorter form
    assert contents(one.feed(b"\x03")) == [b""]


def test_a_start_that_begins_with_the_cr_of_the_end_is_no_puzzle() -> None:
    one = reader(framing=Framing(b"\r\x0b", b"\x1c\r"))
    assert contents(one.feed(b"\r\x0ba\x1c\r\r\x0bb\x1c\r")) == [b"a", b"b"]
    assert one.skipped == 0


def test_a_start_that_holds_the_end_is_read_alike_however_it_comes() -> None:
    framing, wire = Framing(b"A\x1c\rA", b"\x1c\r"), b"A\x1c\rAx\x1cA\x1c\rA"
    at_once, slow = reader(framing=framing), reader(framing=framing)
    assert contents(at_once.feed(wire)) == [b"x\x1cA"]
    assert [frame.content for byte in wire for frame in slow.feed(bytes([byte]))] == [b"x\x1cA"]


def test_half_a_start_before_a_whole_frame_is_junk() -> None:
    one = reader(framing=Framing(b"\x0bA", b"\x1c\r"))
    assert one.feed(b"\x0b") == []
    assert contents(one.feed(b"\x0bAx\x1c\r")) == [b"x"]
    assert one.skipped == 1


def test_a_framing_without_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least a byte each"):
        Framing(b"", b"\x1c\r")


@pytest.mark.parametrize("feed_bytes", [1 << 30, 65536, 1000])
def test_a_long_message_is_kept_in_chunks(feed_bytes: int) -> None:
    content = b"MSH|" + b"0123456789abcdef" * (MIB // 16)
    wire = Framing().wrap(content)
    one = reader(2 * MIB)
    frames = [f for place in range(0, len(wire), feed_bytes) for f in one.feed(wire[place : place + feed_bytes])]
    assert contents(frames) == [content]
    assert len(frames[0].head) >= 65536
    if feed_bytes == 65536:
        assert [len(chunk) // 65536 for chunk in frames[0].chunks[:-1]] == [4, 4, 4]  # less a byte that may be the end


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_the_longest_message_passes_and_one_byte_more_does_not(step: int) -> None:
    wire = Framing().wrap(b"x" * 100)
    pieces = [wire[place : place + step] for place in range(0, len(wire), step)]
    fits, refuses = reader(100), reader(99)
    assert contents([frame for piece in pieces for frame in fits.feed(piece)]) == [b"x" * 100]
    with pytest.raises(FrameTooLongError, match=r"longer than max_message \(99 B\)"):
        deque(map(refuses.feed, pieces), maxlen=0)
    assert refuses.unfinished == 0


def test_too_long_is_known_with_the_first_byte_too_many() -> None:
    one = reader(4)
    one.feed(b"\x0babcd")
    one.feed(b"\x1c")  # this may be the end
    with pytest.raises(FrameTooLongError):
        one.feed(b"e")


def test_the_error_says_the_way_out() -> None:
    with pytest.raises(FrameTooLongError, match=r"\(1 MiB\); raise hl7.max_message, or see why it is"):
        reader(MIB).feed(b"\x0b" + b"x" * (MIB + 2))
