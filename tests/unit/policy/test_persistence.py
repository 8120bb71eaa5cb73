from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.policy.base import Client
from equipoise.policy.persistence import PersistenceTable, persistence_key


@pytest.mark.parametrize(
    ("by", "source", "mask", "mask6", "key"),
    [
        ("none", "192.0.2.7", 32, 64, None),
        ("source_ip", "192.0.2.7", 32, 64, "192.0.2.7"),
        ("source_ip", "192.0.2.7", 24, 64, "192.0.2.0/24"),
        ("source_ip", "192.0.2.7", 0, 64, "0.0.0.0/0"),
        ("source_ip", "2001:db8::1:2", 24, 64, "2001:db8::/64"),
        ("source_ip", "2001:db8::1:2", 24, 128, "2001:db8::1:2"),
        ("calling_ae", "192.0.2.7", 24, 64, "CT1"),
    ],
)
def test_what_stands_for_a_client(by: str, source: str, mask: int, mask6: int, key: str | None) -> None:
    assert persistence_key(by, Client(source, "CT1"), mask, mask6) == key


def test_an_entry_lives_from_the_start_of_the_last_connection() -> None:
    table = PersistenceTable(ttl_s=60)
    table.keep("ct", "a", 0)
    assert table.node_of("ct", 59.9) == "a"
    table.keep("ct", "a", 59.9)
    assert table.node_of("ct", 119.8) == "a"
    assert table.node_of("ct", 119.9) is None
    assert len(table) == 0


def test_asking_does_not_prolong_an_entry() -> None:
    table = PersistenceTable(ttl_s=60)
    table.keep("ct", "a", 0)
    for second in range(60):
        assert table.node_of("ct", second) == "a"
    assert table.node_of("ct", 60) is None


def test_the_oldest_leaves_when_the_table_is_full() -> None:
    table = PersistenceTable(ttl_s=60, max_entries=2)
    table.keep("one", "a", 0)
    table.keep("two", "a", 1)
    table.keep("one", "b", 2)  # now the youngest
    table.keep("three", "a", 3)
    assert len(table) == 2
    assert [table.node_of(key, 4) for key in ("one", "two", "three")] == ["b", None, "a"]


def test_forgetting_what_is_not_there_is_no_error() -> None:
    table = PersistenceTable(ttl_s=60)
    table.forget("nobody")
    table.keep("ct", "a", 0)
    table.forget("ct")
    assert table.node_of("ct", 1) is None


def test_entries_tell_the_seconds_left_of_those_alive() -> None:
    table = PersistenceTable(ttl_s=60)
    table.keep("old", "a", 0)
    table.keep("young", "b", 30)
    assert list(table.entries(60)) == [("young", "b", 30)]


def test_of_two_entries_the_one_that_lives_longer_stays() -> None:
    table = PersistenceTable(ttl_s=60)
    table.keep("ours", "a", 100)
    table.keep("theirs", "a", 50)
    table.merge([("ours", "b", 30), ("theirs", "b", 30), ("new", "b", 5)], now_s=100)
    assert [table.node_of(key, 100) for key in ("ours", "theirs", "new")] == ["a", "b", "b"]
    assert table.node_of("new", 105) is None


def test_a_merged_entry_lives_no_longer_than_the_tables_own() -> None:
    table = PersistenceTable(ttl_s=60)
    table.merge([("ct", "a", 86400)], now_s=0)
    assert table.node_of("ct", 60) is None


def test_merging_keeps_the_bound_and_drops_what_ends_first() -> None:
    table = PersistenceTable(ttl_s=60, max_entries=2)
    table.keep("one", "a", 0)
    table.keep("two", "a", 0)
    table.merge([("short", "b", 5)], now_s=1)
    assert len(table) == 2
    assert table.node_of("one", 2) == "a"


# What is told to another machine


def recording(ttl_s: float = 60, max_entries: int = 100) -> PersistenceTable:
    table = PersistenceTable(ttl_s, max_entries)
    table.record(on=True)
    return table


def test_nothing_is_noted_before_somebody_wants_to_know() -> None:
    table = PersistenceTable(ttl_s=60)
    table.keep("early", "a", 0)
    table.record(on=True)
    table.keep("ct", "a", 1)
    table.record(on=True)  # asked again: what is noted stays
    assert table.take_news(10, 2) == [("ct", "a", 59)]
    assert table.take_news(10, 2) == []
    table.keep("mr", "a", 3)
    table.record(on=False)
    assert table.take_news(10, 4) == []


def test_a_refresh_is_told_again_only_after_a_tenth_of_the_time() -> None:
    table = recording(ttl_s=60)
    table.keep("ct", "a", 0)
    table.take_news(10, 0)
    for second in range(1, 6):
        table.keep("ct", "a", second)
    assert table.take_news(10, 5) == []
    table.keep("ct", "a", 6)
    assert table.take_news(10, 6) == [("ct", "a", 60)]
    table.keep("ct", "a", 7)
    assert table.take_news(10, 7) == []


def test_a_refresh_of_a_short_life_is_told_once_a_second() -> None:
    table = recording(ttl_s=2)
    table.keep("ct", "a", 0)
    table.take_news(10, 0)
    table.keep("ct", "a", 0.9)
    assert table.take_news(10, 0.9) == []
    table.keep("ct", "a", 1)
    assert table.take_news(10, 1) == [("ct", "a", 2)]


def test_another_node_is_told_at_once_and_the_end_of_an_entry_as_no_time_left() -> None:
    table = recording()
    table.keep("moves", "a", 0)
    table.keep("goes", "a", 0)
    table.take_news(10, 0)
    table.forget("moves")
    table.keep("moves", "b", 1)
    table.forget("goes")
    assert table.take_news(10, 1) == [("moves", "b", 60), ("goes", "a", 0)]


def test_news_come_in_parts_and_are_bounded() -> None:
    table = recording(max_entries=3)
    for number in range(5):
        table.keep(str(number), "a", number)
    assert [key for key, _, _ in table.take_news(2, 5)] == ["2", "3"]
    assert [key for key, _, _ in table.take_news(2, 5)] == ["4"]


def test_what_was_merged_is_no_news_and_its_refresh_waits_as_if_we_had_told_it() -> None:
    table = recording()
    table.keep("ours", "a", 0)
    table.merge([("theirs", "b", 60), ("ours", "b", 70), ("gone", "b", 0)], now_s=1)
    assert table.node_of("ours", 1) == "b"
    table.keep("theirs", "b", 2)
    assert table.take_news(10, 2) == []


def test_an_entry_without_time_left_takes_away_what_leads_to_its_node_alone() -> None:
    table = PersistenceTable(ttl_s=60)
    table.keep("ct", "a", 0)
    table.keep("mr", "b", 0)
    table.merge([("ct", "a", 0), ("mr", "a", 0), ("us", "a", 0)], now_s=1)
    assert list(table.entries(1)) == [("mr", "b", 59)]


def test_the_table_that_replaces_another_tells_its_news() -> None:
    old, new = recording(), PersistenceTable(ttl_s=60)
    old.keep("told", "a", 0)
    old.take_news(10, 0)
    old.keep("untold", "b", 1)
    new.inherit(old, 2)
    assert [new.node_of(key, 2) for key in ("told", "untold")] == ["a", "b"]
    assert new.take_news(10, 2) == [("untold", "b", 59)]


def test_what_ends_first_leaves_first_also_after_a_merge() -> None:
    table = PersistenceTable(ttl_s=60, max_entries=3)
    table.keep("one", "a", 0)
    table.keep("two", "a", 1)
    table.merge([("short", "b", 30)], now_s=1)
    assert [key for key, _, _ in table.entries(1)] == ["short", "one", "two"]
    assert [key for key, _, _ in table.youngest(1)] == ["two", "one", "short"]
    table.keep("three", "a", 2)
    assert [key for key, _, _ in table.entries(2)] == ["one", "two", "three"]


_ENTRIES = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(["n1", "n2", "n3"]), st.integers(1, 100).map(float))
)


@given(_ENTRIES, _ENTRIES)
def test_merging_keeps_of_each_key_the_one_that_lives_longest(
    ours: list[tuple[str, str, float]], theirs: list[tuple[str, str, float]]
) -> None:
    table = PersistenceTable(ttl_s=100)
    table.merge(ours, 0)
    table.merge(theirs, 0)
    known = {key: (node, left_s) for key, node, left_s in table.entries(0)}
    longest: dict[str, float] = {}
    for key, _, left_s in [*ours, *theirs]:
        longest[key] = max(left_s, longest.get(key, 0))
    assert {key: left_s for key, (_, left_s) in known.items()} == longest
    assert all((key, *kept) in [*ours, *theirs] for key, kept in known.items())
    lives = [left_s for _, _, left_s in table.entries(0)]
    assert all(later >= earlier - 10 for earlier, later in pairwise(lives)), "in order to within a tenth of a life"


@given(_ENTRIES, st.lists(st.integers(0, 6)))
def test_two_tables_that_tell_each_other_agree(told: list[tuple[str, str, float]], at: list[int]) -> None:
    tables = (recording(ttl_s=100), recording(ttl_s=100))
    for number, (key, node, _) in enumerate(told):
        tables[(at[number] if number < len(at) else 0) % 2].keep(key, node, float(number))
    now_s = float(len(told))
    news = [table.take_news(100, now_s) for table in tables]
    tables[0].merge(news[1], now_s)
    tables[1].merge(news[0], now_s)
    assert dict(_nodes(tables[0], now_s)) == dict(_nodes(tables[1], now_s))
    assert tables[0].take_news(100, now_s) == tables[1].take_news(100, now_s) == [], "nothing is told back"


def _nodes(table: PersistenceTable, now_s: float) -> list[tuple[str, str]]:
    return [(key, node) for key, node, _ in table.entries(now_s)]
