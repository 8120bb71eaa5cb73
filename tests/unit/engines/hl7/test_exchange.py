"""What an answer means: MSH-15 and MSH-16 against what receivers say.  HL7 2.5.1, section 2.9 and table 0155."""

import pytest

from equipoise.engines.gateway.hl7.exchange import Answer, Awaits, Exchange, awaits, judge, may_bring_more
from equipoise.proto.hl7 import Header, read_header
from tests.unit.engines.hl7.scene import Site, acknowledgement, batch, frame, message

ACK, NAK = b"\x06", b"\x15"


def header(accept: str = "", application: str = "") -> Header:
    return read_header(message(mode=(accept, application)))


def exchange(content: bytes) -> Exchange:
    sender = Site().sender()
    return Exchange(sender, frame(content), read_header(content), sender.client, 0)


WAITED_FOR = {
    ("", ""): Awaits.ANSWER,
    ("AL", ""): Awaits.ANSWER,
    ("AL", "AL"): Awaits.ANSWER,
    ("AL", "NE"): Awaits.ANSWER,
    ("AL", "ER"): Awaits.ANSWER,
    ("", "AL"): Awaits.PERHAPS,
    ("NE", "AL"): Awaits.PERHAPS,
    ("ER", "AL"): Awaits.PERHAPS,
    ("SU", "AL"): Awaits.PERHAPS,
    ("NE", ""): Awaits.NOTHING,
    ("NE", "NE"): Awaits.NOTHING,
    ("NE", "ER"): Awaits.NOTHING,
    ("ER", "NE"): Awaits.NOTHING,
    ("SU", "SU"): Awaits.NOTHING,
    ("", "SU"): Awaits.NOTHING,
}


@pytest.mark.parametrize(("mode", "expected"), WAITED_FOR.items(), ids=str)
def test_what_a_message_waits_for(mode: tuple[str, str], expected: Awaits) -> None:
    assert awaits(header(*mode)) is expected


def test_a_batch_is_always_answered() -> None:
    assert awaits(read_header(batch())) is Awaits.ANSWER


@pytest.mark.parametrize(
    ("mode", "code", "expected"),
    [
        (("", ""), "AA", False),
        (("AL", "NE"), "CA", False),
        (("AL", ""), "CA", False),
        (("AL", "AL"), "CA", True),
        (("AL", "AL"), "AA", False),  # the last word was said without a commitment
        (("AL", "AL"), "CR", False),  # nothing was committed
        (("AL", "ER"), "CA", True),
        (("NE", "AL"), "", True),
        (("NE", "NE"), "", False),
        (("ER", "NE"), "", True),
        (("ER", "NE"), "CE", False),
        (("NE", "SU"), "", True),
    ],
)
def test_whether_more_may_come(mode: tuple[str, str], code: str, expected: bool) -> None:
    assert may_bring_more(header(*mode), code) is expected


@pytest.mark.parametrize("code", ["AA", "AE", "AR", "CA", "CE", "CR"])
def test_codes(code: str) -> None:
    said = judge(exchange(message("1")), frame(acknowledgement("1", code)), release=1)
    assert said == Answer(code, is_rejection=code[1] == "R", is_negative=code[1] != "A")


def test_a_code_that_nobody_knows_passes_and_takes_nothing_for_granted() -> None:
    assert judge(exchange(message()), frame(acknowledgement(code="XX")), 1) == Answer("other", is_negative=True)


@pytest.mark.parametrize(
    "answer",
    [acknowledgement("2"), acknowledgement("1 1"), acknowledgement(""), message("1"), b"", b"\x00", ACK],
    ids=["another's", "longer", "empty", "no MSA", "nothing", "NUL", "a commit"],
)
def test_what_does_not_answer_this_message(answer: bytes) -> None:
    assert judge(exchange(message("1")), frame(answer), release=1) is None


def test_without_a_control_id_an_answer_without_one_fits() -> None:
    assert judge(exchange(message("")), frame(acknowledgement("")), 1) == Answer("AA")


def test_whatever_comes_back_answers_a_batch() -> None:
    assert judge(exchange(batch()), frame(acknowledgement("77", "AE")), 1) == Answer("AE", is_negative=True)
    assert judge(exchange(batch()), frame(acknowledgement("77", "AR")), 1) == Answer("AR", is_negative=True)
    assert judge(exchange(batch()), frame(b"FHS|^~\\&|PACS\r"), 1) == Answer("answered")


@pytest.mark.parametrize(
    ("mode", "is_last"), [(("", ""), False), (("AL", "AL"), False), (("NE", "AL"), False), (("NE", "NE"), True)]
)
def test_release_2_commits_before_it_answers(mode: tuple[str, str], is_last: bool) -> None:
    asked = exchange(message(mode=mode))
    assert judge(asked, frame(ACK), release=2) == Answer("committed", is_last=is_last)
    asked.committed = True
    assert judge(asked, frame(ACK), release=2) is None
    assert judge(asked, frame(NAK), release=2) is None
    assert judge(asked, frame(acknowledgement()), release=2) == Answer("AA")


def test_release_2_may_refuse_a_block() -> None:
    assert judge(exchange(message()), frame(NAK), release=2) == Answer("NAK", is_negative=True)


def test_reasons_name_type_and_control_id_and_nothing_that_cannot_be_printed() -> None:
    assert exchange(message("4711")).said == "ADT^A01 4711"
    assert exchange(message("a\x07b" + "c" * 100)).said == "ADT^A01 a?b" + "c" * 37
    assert exchange(batch()).said == "batch"
