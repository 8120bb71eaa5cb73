import pytest

from equipoise.base.errors import PeerError
from equipoise.proto.hl7 import NotHl7Error, Patients, read_patients

MSH = b"MSH|^~\\&|ADMIT|HOSP\r"
MERGE = (
    MSH + b"EVN||20310304050607\r"
    b"PID|1|ext|"  # PID-2 is another number
    b"17^^^HOSP&1.2.3&ISO^MR~"  # PID-3: number, check digit and its scheme, authority (namespace first), type
    b"18^4^M11^CITY|alt||Doe^Jane\r"
    b"PD1|x\r"
    b"MRG|9^^^HOSP~10|11\r"
)


def patients(*lines: bytes) -> Patients:
    return read_patients((MSH + b"\r".join(lines),))


def test_a_merge_names_both() -> None:
    assert read_patients((MERGE,)) == Patients((b"17^HOSP", b"18^CITY"), (b"9^HOSP", b"10^"))


@pytest.mark.parametrize("ending", [b"\r", b"\n", b"\r\n"])
@pytest.mark.parametrize("separators", [b"|^~\\&", b"#*%!@", b"\x1f\x1e\x1d\x01\x02"])
def test_any_separators_and_any_end_of_line(ending: bytes, separators: bytes) -> None:
    message = MERGE.translate(bytes.maketrans(b"|^~\\&", separators)).replace(b"\r", ending)
    assert read_patients((message,)) == read_patients((MERGE,))


def test_all_pid_segments_count_and_each_patient_once() -> None:
    assert patients(b"PID|||2", b"MRG|1", b"PID|||3", b"MRG|1", b"PID|||2^^^") == Patients((b"2^", b"3^"), (b"1^",))


@pytest.mark.parametrize(
    "line",
    [
        b"PID",
        b"PID|",
        b"PID|1|2",
        b"PID|1|2|",
        b"PID|1|2|~^^^HOSP~",
        b'PID|1|2|""',
        b"PID|1|2|  ",
        b"PIDX|||4",
        b"MRG|",
    ],
)
def test_what_names_nobody(line: bytes) -> None:
    assert patients(line) == Patients((), ())


def test_only_the_start_of_a_line_is_a_segment() -> None:
    assert patients(b"OBX|1|TX|PID|||4", b" PID|||5", b"NTE|\x0bMRG|6") == Patients((), ())


def test_escapes_stay_and_spaces_around_go() -> None:
    assert patients(rb"PID||| a\T\b ^^^ HOSP ") == Patients((rb"a\T\b^HOSP",), ())


def test_without_all_separators_less_is_cut() -> None:
    assert read_patients((b"MSH|^\rPID|||1~2^^^A&B",)) == Patients((b"1~2^A&B",), ())


@pytest.mark.parametrize("step", [1, 2, 3, 5, 64])
def test_chunks_may_end_anywhere(step: int) -> None:
    chunks = [MERGE[place : place + step] for place in range(0, len(MERGE), step)]
    assert read_patients(chunks) == read_patients((MERGE,))


def test_a_line_without_end_costs_a_bounded_part_of_it() -> None:
    chunks = [MSH + b"PID|||17^^^HOSP|", *[b"x" * 65536] * 20, b"\rMRG|9\r"]
    assert read_patients(chunks) == Patients((b"17^HOSP",), (b"9^",))
    unended = [MSH + b"PID|||17^^^HOSP^", *[b"x" * 65536] * 20, b"\rMRG|9\r"]
    assert read_patients(unended) == Patients((b"17^HOSP",), (b"9^",))


def test_more_patients_than_a_message_can_mean_are_refused() -> None:
    assert len(patients(*[b"PID|||%d" % number for number in range(10_000)]).current) == 10_000
    with pytest.raises(PeerError, match="more than 10000 patient identifiers"):
        patients(*[b"PID|||1"] * 10_001)
    with pytest.raises(PeerError, match=r"do not set hl7\.key to patient"):
        patients(b"PID|||" + b"~" * 10_000)


def test_what_is_no_hl7_is_refused() -> None:
    with pytest.raises(NotHl7Error):
        read_patients((b"PID|||1",))
