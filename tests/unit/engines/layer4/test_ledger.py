"""What a peer is told, and what is taken from it: minutes of traffic without any."""

from itertools import pairwise

from equipoise.engines.layer4.ledger import Change, Entry, Ledger

IDLE_S = 10_800.0
A, B = b"aaaa", b"bbbb"
KEY, OTHER = b"key", b"other"


def ms(seconds: float) -> int:
    return round(seconds * 1000)


def changes(ledger: Ledger, seen: dict[bytes, tuple[bytes, int]], now_s: float, *said: Entry) -> list[Change]:
    """Look, and return what the peer's words change, taken down as done."""
    ledger.look(seen, now_s)
    found = list(ledger.changes(said, seen, now_s))
    ledger.note(found, now_s)
    return found


def test_what_is_new_is_told_once() -> None:
    ledger, seen = Ledger(IDLE_S), {KEY: (A, ms(60))}
    assert ledger.look(seen, 0.0) == [Entry(KEY, A, 60.0)]
    assert ledger.look({KEY: (A, ms(59.5))}, 0.5) == []


def test_a_young_flow_is_told_again_once_it_is_established() -> None:
    ledger = Ledger(IDLE_S)
    ledger.look({KEY: (A, ms(60))}, 0.0)
    assert ledger.look({KEY: (A, ms(IDLE_S))}, 0.5) == [Entry(KEY, A, IDLE_S)]


def test_a_flow_that_talks_on_is_told_again_long_before_the_peer_forgets_it() -> None:
    ledger, told_s = Ledger(IDLE_S), []
    for now_s in range(30_000):
        if ledger.look({KEY: (A, ms(IDLE_S))}, float(now_s)):
            told_s.append(now_s)
    gaps = [later - earlier for earlier, later in pairwise(told_s)]
    assert gaps
    assert all(IDLE_S / 4 < gap < IDLE_S / 2 for gap in gaps)


def test_a_flow_that_moved_to_another_node_is_told() -> None:
    ledger = Ledger(IDLE_S)
    ledger.look({KEY: (A, ms(60))}, 0.0)
    assert ledger.look({KEY: (B, ms(60))}, 0.5) == [Entry(KEY, B, 60.0)]


def test_a_flow_that_ended_is_told_and_one_that_ran_out_is_not() -> None:
    ledger = Ledger(IDLE_S)
    ledger.look({KEY: (A, ms(60)), OTHER: (A, ms(2))}, 0.0)
    assert ledger.look({}, 1.5) == [Entry(KEY, A, 0.0)]
    assert ledger.look({}, 2.0) == []


def test_of_a_part_of_a_map_nothing_is_taken_for_gone() -> None:
    ledger = Ledger(IDLE_S)
    ledger.look({KEY: (A, ms(60))}, 0.0)
    assert ledger.look({OTHER: (A, ms(60))}, 0.5, whole=False) == [Entry(OTHER, A, 60.0)]


def test_what_the_peer_said_is_taken_and_never_said_back() -> None:
    ledger = Ledger(IDLE_S)
    assert changes(ledger, {}, 0.0, Entry(KEY, A, 100.0)) == [Change(KEY, None, A, 100.0)]
    assert ledger.look({KEY: (A, ms(99))}, 1.0) == []
    assert list(ledger.own(1.0)) == []
    assert ledger.look({}, 2.0) == [], "nor when it is gone"


def test_what_the_peer_said_is_our_own_once_packets_come_here() -> None:
    ledger = Ledger(IDLE_S)
    changes(ledger, {}, 0.0, Entry(KEY, A, 100.0))
    assert ledger.look({KEY: (A, ms(IDLE_S))}, 2.0) == [Entry(KEY, A, IDLE_S)]
    assert list(ledger.own(2.0)) == [Entry(KEY, A, IDLE_S)]
    assert ledger.look({}, 3.0) == [Entry(KEY, A, 0.0)]


def test_the_peer_s_end_of_a_flow_is_ours_where_it_was_silent_here() -> None:
    ledger = Ledger(IDLE_S)
    changes(ledger, {}, 0.0, Entry(KEY, A, 100.0))
    assert changes(ledger, {KEY: (A, ms(99))}, 1.0, Entry(KEY, A, 0.0)) == [Change(KEY, A, None, 0.0)]
    assert ledger.look({}, 2.0) == []


def test_a_flow_that_lives_here_is_neither_ended_nor_moved_by_the_peer() -> None:
    ledger, seen = Ledger(IDLE_S), {KEY: (A, ms(IDLE_S))}
    ledger.look(seen, 0.0)
    assert changes(ledger, seen, 3.0, Entry(KEY, A, 0.0)) == []
    assert changes(ledger, seen, 100.0, Entry(KEY, A, 0.0)) == [], "renewed since the last look"
    assert changes(ledger, seen, 101.0, Entry(KEY, B, IDLE_S)) == []


def test_a_flow_that_is_silent_here_follows_the_peer() -> None:
    ledger = Ledger(IDLE_S)
    ledger.look({KEY: (A, ms(IDLE_S))}, 0.0)
    silent = {KEY: (A, ms(IDLE_S - 60))}
    assert changes(ledger, silent, 60.0, Entry(KEY, B, 60.0)) == [Change(KEY, A, B, 60.0)]
    assert changes(ledger, {KEY: (B, ms(50))}, 70.0, Entry(KEY, A, 0.0)) == [], "the end of an earlier flow"


def test_time_is_added_and_never_taken_away() -> None:
    ledger, seen = Ledger(IDLE_S), {KEY: (A, ms(60))}
    ledger.look(seen, 0.0)
    assert changes(ledger, seen, 0.0, Entry(KEY, A, 30.0)) == []
    assert changes(ledger, seen, 0.0, Entry(KEY, A, IDLE_S)) == [Change(KEY, A, A, IDLE_S)]
    assert list(ledger.own(1.0)) == [Entry(KEY, A, IDLE_S - 1)], "it is still our own"


def test_nobody_is_remembered_for_longer_than_by_our_own_packets() -> None:
    assert changes(Ledger(60.0), {}, 0.0, Entry(KEY, A, 1e12)) == [Change(KEY, None, A, 60.0)]
    assert changes(Ledger(60.0), {}, 0.0, Entry(KEY, A, 0.0)) == []
