import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.base.units import format_days, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("5s", 5), ("1.5s", 1.5), ("30m", 1800), ("12h", 43200), ("1d", 86400)]
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(f" {text} ") == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("1B", 1), ("64KiB", 65536), ("1KB", 1000), ("1.5 MiB", 1572864), ("2GiB", 2 << 30)]
)
def test_a_size_has_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["5", "", "s", "5 parsecs", "-5s", "1e3s", "5s5s", "5S", "\u0665s", "1.s", "9" * 13 + "s"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write for example 5s"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["64", "64kib", "64 K", "KiB"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write for example 64KiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (1, "1s"), (90, "90s"), (1800, "30m"), (86400, "1d"), (100000.5, "100000.5s")],
)
def test_the_shortest_exact_duration_is_written(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@settings(deadline=None)
@given(st.integers(0, 10**10))
def test_whole_milliseconds_read_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, rel=1e-12)


@pytest.mark.parametrize(
    ("days", "text"),
    [(12.7, "12 days"), (2, "2 days"), (1.9, "1 day"), (1, "1 day"), (0.9, "less than a day"), (0, "less than a day")],
)
def test_days_for_people_are_whole_on_both_sides_of_now(days: float, text: str) -> None:
    assert format_days(days * 86400) == format_days(-days * 86400) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (999.9 * 1024, "1000 KiB"),
        (1000 * 1024, "1000 KiB"),
        (26 << 20, "26 MiB"),
        (3 << 40, "3072 GiB"),
    ],
)
def test_sizes_for_people_have_few_digits(size: float, text: str) -> None:
    assert format_size(size) == text
