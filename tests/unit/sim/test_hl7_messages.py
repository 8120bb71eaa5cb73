"""Made-up messages: an outside parser reads them, the codec finds what they say, sizes are exact, seeds decide."""

import tracemalloc
from itertools import islice

import pytest

from equipoise.proto.hl7 import read_acknowledgement, read_header, read_patients
from equipoise.sim.hl7_answers import answer
from equipoise.sim.hl7_messages import BATCH, TYPES, VERSIONS, Messages, Mode, digest


@pytest.mark.parametrize("kind", TYPES)
def test_an_outside_parser_reads_every_type(kind: str) -> None:
    parser = pytest.importorskip("hl7apy.parser")
    made = Messages("SIM", 1).make(kind)
    message = parser.parse_message(made.content.decode(), find_groups=True)
    if kind != "ORM^O01":  # it takes the choice of order details for a list of all of them
        message.validate()
    assert message.msh.msh_9.to_er7().startswith(kind)
    assert message.msh.msh_10.to_er7() == made.control_id.decode()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_codec_finds_what_was_put_in(version: str) -> None:
    messages = Messages("SIM", 2, version=version)
    for kind in messages.kinds:
        made = messages.make(kind)
        header, patients = read_header(made.content), read_patients([made.content])
        assert (header.kind, header.control_id, header.original) == (kind, made.control_id, True)
        assert (*patients.current, *patients.merged) == made.patients
        assert len(made.patients) == (2 if kind in {"ADT^A34", "ADT^A40"} else 0 if kind[:3] in {"QBP", "MFN"} else 1)


def test_what_a_version_does_not_have_is_not_made() -> None:
    assert {"OMI^O23", "QBP^Q22", "ADT^A40"}.isdisjoint(Messages("SIM", 1, version="2.2").kinds)
    with pytest.raises(ValueError, match=r"version 2\.2 has no 'OMI\^O23' here"):
        Messages("SIM", 1, version="2.2").make("OMI^O23")
    with pytest.raises(ValueError, match="has no MSH-15"):
        Messages("SIM", 1, version="2.1", mode=Mode.COMMIT)
    with pytest.raises(ValueError, match=r"'3\.0' is not one of"):
        Messages("SIM", 1, version="3.0")


def test_the_seed_decides_and_no_control_id_comes_twice() -> None:
    first, again, other = (Messages(name, 7) for name in ("A", "A", "B"))
    made = [first.any() for _ in range(500)]
    assert [one.content for one in made] == [again.any().content for _ in range(500)]
    ids = {one.control_id for one in (*made, *(other.any() for _ in range(500)))}
    assert len(ids) == 1000
    assert {one.kind for one in made} == set(TYPES)
    assert all(len(one) <= 20 for one in ids), "MSH-10 has at most 20 characters"


@pytest.mark.parametrize("size", [200, 233, 1223, 1224, 16_384, 1_000_001])
def test_a_size_is_exact(size: int) -> None:
    made = Messages("S", 3).make("ORU^R01", size)
    assert len(made.content) == made.size_bytes == size
    assert made.content.endswith(b"\r")
    segments = made.content.split(b"\r")[:-1]
    assert [segment[:3] for segment in segments[:3]] == [b"MSH", b"PID", b"OBR"]
    assert [segment.split(b"|")[1] for segment in segments[3:]] == [b"%d" % n for n in range(1, len(segments) - 2)]
    assert digest(made.chunks()) == digest([made.content])


def test_a_large_message_is_made_as_it_is_sent() -> None:
    made = Messages("SIM", 3).make("ORU^R01", 100_000_000)
    tracemalloc.start()
    try:
        assert all(len(chunk) >= 64 * 1024 for chunk in islice(made.chunks(), 50))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert made.size_bytes == 100_000_000


@pytest.mark.parametrize(("kind", "size"), [("ORU^R01", 100), ("ORU^R01", 1 << 31), ("ADT^A01", 5000)])
def test_a_size_that_cannot_be_is_refused(kind: str, size: int) -> None:
    with pytest.raises(ValueError, match="a size is for ORU"):
        Messages("SIM", 1).make(kind, size)


def test_a_batch_holds_its_messages() -> None:
    messages = Messages("SIM", 4)
    inside = [messages.make("ADT^A08"), messages.make("ORU^R01", 3000)]
    batch = messages.batch(inside)
    assert (batch.kind, read_header(batch.content).is_batch) == (BATCH, True)
    assert all(one.content in batch.content for one in inside)
    assert batch.content.endswith(b"BTS|2\rFTS|1\r")
    told = read_acknowledgement(answer(batch.content, read_header(batch.content), "AA", 1))
    assert told is not None
    assert told.control_id == batch.control_id


@pytest.mark.parametrize("mode", Mode)
def test_a_mode_is_what_msh_15_and_16_say(mode: Mode) -> None:
    header = read_header(Messages("SIM", 5, mode=mode).any().content)
    assert (header.accept.decode(), header.application.decode()) == mode.value


@pytest.mark.parametrize("kind", ["ADT^A01", "QBP^Q22"])
def test_an_answer_is_one_to_an_outside_parser(kind: str) -> None:
    parser = pytest.importorskip("hl7apy.parser")
    made = Messages("SIM", 6).make(kind)
    told = answer(made.content, read_header(made.content), "AA", 17)
    message = parser.parse_message(told.decode(), find_groups=False)
    assert message.msa.msa_1.to_er7() == "AA"
    assert message.msa.msa_2.to_er7() == made.control_id.decode()
    assert message.msh.msh_5.to_er7() == "SIM"
    if kind == "QBP^Q22":
        assert message.msh.msh_9.to_er7() == "RSP^K22"
        assert message.qak.qak_2.to_er7() == "OK"


def test_an_answer_has_the_separators_of_its_message() -> None:
    content = b"MSH#*~\\&#A#B#C#D#1##ADT*A01#X1#P#2.3\rPID#1##7***S\r"
    told = answer(content, read_header(content), "AE", 1)
    assert told == b"MSH#*~\\&#C#D#A#B#1##ACK*A01#SIM1#P#2.3\rMSA#AE#X1\r"
