import pytest

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
