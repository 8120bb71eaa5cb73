"""The journal keeps what happened through a cut file and a failed rotation, and bounds what readers cost."""

import asyncio
import gc
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from equipoise.base.clock import Clock
from equipoise.state.events import PlanRefused
from equipoise.state.journal import Journal


class StillClock:
    """It is always five past five."""

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 1_930_367_107.5


CLOCK: Clock = StillClock()


def line(number: int) -> bytes:
    return b'{"at":"2031-03-04T05:06:07.000Z","kind":"test","n":%d}' % number


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["n"] for event in events]


def on_disk(path: Path) -> list[int]:
    return numbers([json.loads(text) for text in path.read_bytes().splitlines()])


async def heard(follower: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    async with asyncio.timeout(5):
        return [event async for event in follower]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def files(path: Path) -> list[str]:
    return sorted(os.listdir(path.parent))


def test_the_last_events_are_given_the_newest_last(path: Path) -> None:
    journal = Journal(path, CLOCK)
    journal.write([line(1), line(2), line(3)])
    assert numbers(journal.recent(2)) == [2, 3]
    assert numbers(journal.recent(100)) == [1, 2, 3]
    journal.emit(PlanRefused(reason="no"))
    assert journal.recent(1) == [{"at": "2031-03-04T05:05:07.500Z", "kind": "plan.refused", "reason": "no"}]


def test_a_later_process_knows_the_events_of_an_earlier_one(path: Path) -> None:
    first = Journal(path, CLOCK)
    first.write([line(1), line(2)])
    first.close()
    second = Journal(path, CLOCK)
    second.write([line(3)])
    assert numbers(second.recent(10)) == [1, 2, 3] == on_disk(path)


@pytest.mark.parametrize("cut", [1, 10, len(line(2)) - 1])
def test_a_line_that_a_crash_cut_costs_that_line_alone(path: Path, cut: int) -> None:
    path.write_bytes(line(1) + b"\n" + line(2)[:cut])
    journal = Journal(path, CLOCK)
    assert numbers(journal.recent(10)) == [1]
    journal.write([line(3)])
    journal.close()
    assert numbers(Journal(path, CLOCK).recent(10)) == [1, 3]


def test_a_whole_line_without_its_newline_is_kept(path: Path) -> None:
    path.write_bytes(line(1))
    journal = Journal(path, CLOCK)
    journal.write([line(2)])
    assert numbers(journal.recent(10)) == [1, 2] == on_disk(path)


def test_lines_that_are_no_events_are_passed_over(path: Path) -> None:
    path.write_bytes(b"\0" * 100 + b"\n" + line(1)[:20] + line(2) + b"\n[1]\n\n" + line(3) + b"\n")
    assert numbers(Journal(path, CLOCK).recent(10)) == [3]


def test_only_the_end_of_a_large_file_is_read(path: Path) -> None:
    with path.open("wb") as file:
        for number in range(100_000):
            file.write(line(number) + b"\n")
    recent = numbers(Journal(path, CLOCK).recent(100_000))
    assert recent == list(range(95_000, 100_000))


def test_recent_and_followed_events_join_without_a_gap(path: Path) -> None:
    async def scene() -> list[int]:
        journal = Journal(path, CLOCK)
        journal.write([line(1)])
        follower = journal.follow()
        recent = journal.recent(10)
        journal.write([line(2), line(3)])
        journal.close()
        return numbers(recent + await heard(follower))

    assert asyncio.run(scene()) == [1, 2, 3]


def test_a_follower_waits_for_what_comes(path: Path) -> None:
    async def scene() -> list[int]:
        journal = Journal(path, CLOCK)
        first, second = journal.follow(), journal.follow()
        async with asyncio.TaskGroup() as group:
            readings = [group.create_task(heard(one)) for one in (first, second)]
            for number in range(3):
                await asyncio.sleep(0)
                journal.write([line(number)])
            await asyncio.sleep(0)
            journal.close()
        return [number for reading in readings for number in numbers(reading.result())]

    assert asyncio.run(scene()) == [0, 1, 2, 0, 1, 2]


def test_the_end_stays_the_end(path: Path) -> None:
    async def scene() -> None:
        journal = Journal(path, CLOCK)
        before = journal.follow()
        journal.close()
        for follower in (before, before, journal.follow()):
            assert await heard(follower) == []

    asyncio.run(scene())


def test_a_follower_hears_how_much_it_missed(path: Path) -> None:
    async def scene() -> list[dict[str, Any]]:
        journal = Journal(path, CLOCK, follower_lines=3)
        follower = journal.follow()
        journal.write([line(number) for number in range(10)])
        journal.close()
        return await heard(follower)

    missed, *rest = asyncio.run(scene())
    assert missed == {"kind": "events.missed", "count": 7}
    assert numbers(rest) == [7, 8, 9]


def live_followers(journal: Journal) -> int:
    gc.collect()
    return len(journal._followers)


def test_a_follower_that_never_began_to_read_is_forgotten(path: Path) -> None:
    async def scene() -> None:
        journal = Journal(path, CLOCK)
        follower = journal.follow()
        assert live_followers(journal) == 1
        del follower
        assert live_followers(journal) == 0

    asyncio.run(scene())


def test_a_follower_that_was_closed_is_forgotten_and_hears_the_end(path: Path) -> None:
    async def scene() -> None:
        journal = Journal(path, CLOCK)
        follower = journal.follow()
        journal.write([line(1)])
        other = journal.follow()
        await follower.aclose()
        await follower.aclose()
        assert await heard(follower) == []
        assert list(journal._followers) == [other]

    asyncio.run(scene())


def test_a_reader_that_waits_hears_that_it_was_closed(path: Path) -> None:
    async def scene() -> list[dict[str, Any]]:
        follower = Journal(path, CLOCK).follow()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(heard(follower))
            await asyncio.sleep(0)
            await follower.aclose()
        return reading.result()

    assert asyncio.run(scene()) == []


LINE_BYTES = len(line(10)) + 1


def test_a_full_file_gives_way_to_a_new_one_and_four_old_ones_are_kept(path: Path) -> None:
    journal = Journal(path, CLOCK, file_bytes=3 * LINE_BYTES)
    journal.write([line(number) for number in range(10, 30)])
    journal.close()
    assert files(path) == ["events.jsonl", *(f"events.jsonl.{number}" for number in range(1, 5))]
    kept = [path.with_name(f"events.jsonl.{number}") for number in range(4, 0, -1)]
    assert [on_disk(file) for file in [*kept, path]] == [
        [16, 17, 18],
        [19, 20, 21],
        [22, 23, 24],
        [25, 26, 27],
        [28, 29],
    ]


def test_where_the_file_cannot_be_moved_the_old_one_goes_on(path: Path) -> None:
    obstacle = path.with_name("events.jsonl.4") / "a directory that is not empty"
    obstacle.mkdir(parents=True)
    for number in range(1, 4):
        path.with_name(f"events.jsonl.{number}").write_bytes(line(number) + b"\n")
    journal = Journal(path, CLOCK, file_bytes=2 * LINE_BYTES)
    journal.write([line(number) for number in range(10, 16)])
    assert on_disk(path) == list(range(10, 16))
    assert [on_disk(path.with_name(f"events.jsonl.{number}")) for number in range(1, 4)] == [[1], [2], [3]]
    obstacle.rmdir()
    obstacle.parent.rmdir()
    journal.write([line(16)])
    journal.close()
    assert on_disk(path) == [16]
    assert on_disk(path.with_name("events.jsonl.4")) == [3]


def test_where_no_new_file_can_be_opened_the_old_one_goes_on_and_nothing_is_pushed_out(path: Path) -> None:
    journal = Journal(path, CLOCK, file_bytes=2 * LINE_BYTES)
    journal.write([line(number) for number in range(10, 14)])  # .1 has 10 and 11
    path.unlink()
    path.symlink_to(path.parent / "absent" / "file")  # dangling: nothing to move, and it cannot be opened
    journal.write([line(number) for number in range(14, 20)])
    assert numbers(journal.recent(10)) == list(range(10, 20))
    assert on_disk(path.with_name("events.jsonl.1")) == [10, 11]
    path.unlink()
    journal.write([line(20)])
    journal.close()
    assert on_disk(path) == [20]
    assert on_disk(path.with_name("events.jsonl.1")) == [10, 11]


def test_a_full_disk_stops_neither_events_nor_the_end(path: Path) -> None:
    path.symlink_to("/dev/full")

    async def scene() -> list[int]:
        journal = Journal(path, CLOCK)
        follower = journal.follow()
        journal.write([line(1)])
        journal.write([line(2)])
        journal.close()
        journal.close()
        return numbers(await heard(follower))

    assert asyncio.run(scene()) == [1, 2]


def test_what_happens_after_the_end_is_no_bug(path: Path) -> None:
    journal = Journal(path, CLOCK)
    journal.close()
    journal.write([line(1)])
    assert numbers(journal.recent(1)) == [1]


def test_its_files_are_for_the_owner_and_the_group_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        journal = Journal(path, CLOCK, file_bytes=10)
        journal.write([line(1), line(2)])
    finally:
        os.umask(before)
    journal.close()
    assert len(files(path)) > 1
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o640}
