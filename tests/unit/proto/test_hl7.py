from importlib import import_module

import pytest

from equipoise.proto.hl7 import (
    Acknowledgement,
    Header,
    NotHl7Error,
    read_acknowledgement,
    read_header,
    reject,
)

# Neither package has types, and both are peers here, not parts.
hl7 = import_module("hl7")
hl7apy = import_module("hl7apy.parser")

ADT = (
    b"MSH|"  # MSH-1 is the separator itself (2.15.9.1)
    b"^~\\&|"  # MSH-2: component, repetition, escape, subcomponent
    b"ADMIT|HOSP|"  # MSH-3, MSH-4: who sends
    b"LAB|ANNEX|"  # MSH-5, MSH-6: to whom
    b"20310304050607||"  # MSH-7; MSH-8
    b"ADT^A01^ADT_A01|"  # MSH-9
    b"MSG00001|"  # MSH-10
    b"P|2.5.1"  # MSH-11, MSH-12
    b"\rEVN||20310304050607"
    b"\rPID|1||17^^^HOSP^MR||Doe^Jane\r"
)
ENHANCED = ADT.replace(b"P|2.5.1\r", b"P|2.5.1|||AL|NE||UNICODE UTF-8\r")
AA = b"MSH|^~\\&|LAB|ANNEX|ADMIT|HOSP|20310304050608||ACK^A01^ACK|R1|P|2.5.1\rMSA|AA|MSG00001\r"
AT = "20310304050608"


def of_type(field: bytes) -> str:
    return read_header(ADT.replace(b"ADT^A01^ADT_A01", field)).kind


def test_a_message_in_original_mode() -> None:
    header = read_header(ADT)
    assert header == Header("ADT^A01", b"MSG00001", (b"ADMIT", b"HOSP"), b"", b"", False)
    assert header.original


def test_a_message_in_enhanced_mode() -> None:
    header = read_header(ENHANCED)
    assert (header.accept, header.application, header.original) == (b"AL", b"NE", False)
    assert read_header(ADT.replace(b"2.5.1\r", b'2.5.1|||""|""\r')).original  # the null of 2.5.3.3


@pytest.mark.parametrize("ending", [b"\r", b"\n", b"\r\n"])
@pytest.mark.parametrize("separators", [b"|^~\\&", b"#*%!@", b"\x1f\x1e\x1d\x01\x02"])
def test_any_separators_and_any_end_of_line(ending: bytes, separators: bytes) -> None:
    message = ADT.translate(bytes.maketrans(b"|^~\\&", separators)).replace(b"\r", ending)
    assert read_header(message) == read_header(ADT)
    answer = AA.translate(bytes.maketrans(b"|^~\\&", separators)).replace(b"\r", ending)
    assert read_acknowledgement(answer) == Acknowledgement("AA", b"MSG00001")


@pytest.mark.parametrize("before", [b"\r", b"\r\n\n", b"  ", b"\xef\xbb\xbf", b"\r\n\xef\xbb\xbf"])
def test_blank_lines_and_a_byte_order_mark_before_msh_do_no_harm(before: bytes) -> None:
    assert read_header(before + ADT) == read_header(ADT)
    assert read_acknowledgement(before + AA) == Acknowledgement("AA", b"MSG00001")
    assert reject(before + ADT, "", AT) == reject(ADT, "", AT)


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        (b"ADT^A01^ADT_A01", "ADT^A01"),
        (b"ACK", "ACK"),
        (b"ACK^", "ACK"),
        (b"ZX1^Z99", "ZX1^Z99"),
        (b"ORU^R01&x", "ORU^other"),
        (b"QBP^ZV1", "QBP^ZV1"),
        (b"ADT^DOE", "ADT^other"),
        (b"ADT^MEIER", "ADT^other"),
        (b"12345678", "other"),
        (b"MEIER^HANS", "other"),
        (b"adt^a01", "other"),
        (b"ADT\xc3^A01", "other"),
        (b"", "other"),
    ],
)
def test_only_codes_get_into_the_kind(field: bytes, kind: str) -> None:
    assert of_type(field) == kind


def test_control_ids_lose_the_spaces_around_them_and_nothing_else() -> None:
    assert read_header(ADT.replace(b"MSG00001", b"  a b\t ")).control_id == b"a b\t"
    assert read_acknowledgement(AA.replace(b"MSG00001", b" a b\t")) == Acknowledgement("AA", b"a b\t")


def test_a_message_without_control_id_is_let_through() -> None:
    assert read_header(ADT.replace(b"MSG00001", b"")).control_id == b""


@pytest.mark.parametrize("message", [b"MSH|^~\\&", b"MSH|^~\\&|A|B\rPID|1||2\r", b"MSH|^~\\&|A|B|C|D|2031||ADT^A01\r"])
def test_an_msh_that_ends_before_its_control_id_is_refused(message: bytes) -> None:
    with pytest.raises(NotHl7Error, match=r"MSH is cut short, it ends before its control ID \(MSH-10\)"):
        read_header(message)


@pytest.mark.parametrize("start", [b"FHS", b"BHS"])
def test_a_batch_is_one_opaque_thing(start: bytes) -> None:
    header = read_header(start + b"|^~\\&|ADMIT|HOSP|||20310304||name.hl7||7\r" + ADT)
    assert header == Header("batch", b"", (b"ADMIT", b"HOSP"), b"", b"", True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the frame is empty"),
        (b"\r\n ", "only blanks"),
        (ADT.decode().encode("utf-16"), "UTF-16 or UTF-32, which MLLP cannot carry; have the sender use UTF-8"),
        (ADT.decode().encode("utf-16-le"), "UTF-16"),
        (ADT.decode().encode("utf-16-be"), "UTF-16"),
        (ADT.decode().encode("utf-32-be"), "UTF-32"),
        (ADT.decode().encode("cp500"), "EBCDIC"),
        (b"msh|^~\\&|", "lower-case"),
        (b"<?xml version='1.0'?>", "begins like XML"),
        (b'{"resourceType": "Patient"}', "begins like JSON"),
        (b"PID|1||17", "begins with another segment"),
        (b"Meier, Hans", "begins with letters"),
        (b"17^^^HOSP", "begins with digits"),
        (b"\x02MSH|", "begins with a control byte"),
        (b"\xe9MSH", "begins with a byte above 0x7F"),
        (b"|MSH", "begins with a punctuation mark"),
        (b"MSH", "has MSH and then nothing"),
        (b"MSH\rPID|1", "has MSH and then nothing"),
        (b"MSHA^~\\&A", "is a letter or digit"),
        (b"MSH ^~\\& A", "is a blank or control byte"),
        (b"MSH|", "ends before its second field"),
        (b"MSH|\rPID|1", "ends before its second field"),
        (b"MSH||A|B|", "ends before its second field"),
    ],
)
def test_what_is_no_hl7_is_refused_by_its_class_and_never_quoted(content: bytes, words: str) -> None:
    with pytest.raises(NotHl7Error, match=words) as caught:
        read_header(content)
    assert "Meier" not in str(caught.value)
    assert "17" not in str(caught.value)
    assert read_acknowledgement(content) is None


@pytest.mark.parametrize(
    ("msa", "expected"),
    [
        (b"MSA|CA|MSG00001|text|", Acknowledgement("CA", b"MSG00001")),
        (b"MSA|AE|MSG00001", Acknowledgement("AE", b"MSG00001")),
        (b"MSA| AR |MSG00001", Acknowledgement("AR", b"MSG00001")),
        (b"MSA|XX|MSG00001", Acknowledgement("other", b"MSG00001")),
        (b"MSA|Meier^Hans|MSG00001", Acknowledgement("other", b"MSG00001")),
        (b"MSA|AA", Acknowledgement("AA", b"")),
        (b"MSA|", Acknowledgement("other", b"")),
        (b"MSAX|AA|MSG00001\rMSA|AE|2\rMSA|AR|3", Acknowledgement("AE", b"2")),
        (b"NTE|1|MSA|AA|MSG00001", None),
        (b"MSA^AA^MSG00001", None),
    ],
)
def test_what_an_answer_says(msa: bytes, expected: Acknowledgement | None) -> None:
    assert read_acknowledgement(AA.split(b"\r")[0] + b"\rSFT|x\r" + msa) == expected


def test_a_reject_is_the_senders_answer() -> None:
    assert reject(ADT, "no receiver takes work", AT) == (
        b"MSH|^~\\&|LAB|ANNEX|ADMIT|HOSP|20310304050608||ACK^A01^ACK|EQPMSG00001|P|2.5.1\r"
        b"MSA|AR|MSG00001|no receiver takes work\r"
    )
    assert reject(ENHANCED, "", AT) == (
        b"MSH|^~\\&|LAB|ANNEX|ADMIT|HOSP|20310304050608||ACK^A01^ACK|EQPMSG00001|P|2.5.1||||||UNICODE UTF-8\r"
        b"MSA|CR|MSG00001|\r"
    )


def test_a_rejects_own_id_is_short_and_plain_and_the_same_each_time() -> None:
    message = ADT.replace(b"MSG00001", b"a^b/2031-03-04T05:06:07.000017")
    answer = reject(message, "", AT)
    assert answer.split(b"|")[9] == b"EQP-04T050607.000017"
    assert len(answer.split(b"|")[9]) == 20
    assert b"\rMSA|AR|a^b/2031-03-04T05:06:07.000017|" in answer
    assert answer == reject(message, "", AT)


def test_a_rejects_text_holds_no_separator_and_is_short() -> None:
    text = reject(ADT, "a|b^c~d\\e&f\rg é" + "x" * 99, AT).split(b"|")[-1]
    assert text.startswith(b"a b c d e f g ?xxx")
    assert len(text) == 80 + 1


def test_a_batch_is_rejected_too() -> None:
    assert reject(b"FHS|^~\\&|A|B|C|D|2031||name||7\rBHS|", "", AT) == (
        b"MSH|^~\\&|C|D|A|B|20310304050608||ACK|EQP|P|2.5.1\rMSA|AR||\r"
    )


def test_nothing_is_made_for_what_is_no_hl7() -> None:
    with pytest.raises(NotHl7Error):
        reject(b"hello", "", AT)


@pytest.mark.parametrize("message", [ADT, ENHANCED, ADT.translate(bytes.maketrans(b"|^~\\&", b"#*%!@"))])
def test_the_package_hl7_reads_a_reject(message: bytes) -> None:
    answer = hl7.parse(reject(message, "no receiver", AT).decode())
    assert str(answer.segment("MSA")[2]) == "MSG00001"
    assert str(answer.segment("MSA")[1]) in {"AR", "CR"}
    assert [str(answer.segment("MSH")[place]) for place in (3, 4, 5, 6)] == ["LAB", "ANNEX", "ADMIT", "HOSP"]


@pytest.mark.parametrize("message", [ADT, ENHANCED])
def test_the_package_hl7apy_finds_a_reject_valid(message: bytes) -> None:
    answer = hl7apy.parse_message(reject(message, "no receiver", AT).decode(), validation_level=1)
    assert answer.validate()
    assert answer.msh.message_type.to_er7() == "ACK^A01^ACK"
    assert answer.msa.message_control_id.value == "MSG00001"


def test_the_package_hl7_writes_an_answer_that_is_read() -> None:
    answer = str(hl7.parse(ADT.decode()).create_ack("AE", message_id="R1"))
    assert read_acknowledgement(answer.encode()) == Acknowledgement("AE", b"MSG00001")
    assert read_header(answer.encode()).control_id == b"R1"
