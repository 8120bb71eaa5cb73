"""Operators' overrides: the one that was given last holds on both machines."""

import asyncio
from pathlib import Path

import pytest

from tests.unit.app.pair.halves import Half, document, joined, until_status
from tests.unit.engines.running import eventually


def test_an_override_reaches_the_other_machine_and_its_engines(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            await two.first.override("ct/a", "drain")
            await eventually(lambda: two.second.shown() == {"ct/a": "drain"})
            await two.second.override("ct/a", "enable")
            await eventually(lambda: two.first.shown() == {"ct/a": "up"})
            await two.first.override("ct/a", "weight", 7)
            await eventually(lambda: two.second.engine.states["ct/a"].weight == 7)
            for half in two.both:
                await until_status(half, lambda now: now["lag"]["overrides"] == "same")
            assert two.second.book.overrides == two.first.book.overrides

    asyncio.run(scene())


def test_of_two_given_apart_one_holds_on_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            await two.first.override("ct/a", "weight", 1)
            await eventually(lambda: two.second.engine.states["ct/a"].weight == 1)
            await two.second.end()
            for weight in (2, 3):
                await two.first.override("ct/a", "weight", weight)
            away = Half(two.second.directories.state, "", two.segment)
            two.second = away
            monkeypatch.setattr(away.pair, "configure", no_pair)
            await away.start()
            await away.override("ct/a", "drain")  # by one word fewer
            two.second = await two.restarted(away)
            await eventually(lambda: two.first.book.overrides == two.second.book.overrides)
            assert two.second.book.overrides["ct/a"].weight == 3

    async def no_pair() -> None: ...

    asyncio.run(scene())


def test_what_was_given_before_there_was_a_pair_reaches_it(tmp_path: Path) -> None:
    async def scene() -> None:
        for name, key in (("first", "ct/a"), ("second", "ct/b")):
            (tmp_path / name).mkdir()
            (tmp_path / name / "overrides.json").write_text(f'{{"{key}": {{"drain": true}}}}')
        async with joined(tmp_path, nodes="ab") as two:
            await eventually(lambda: all(half.shown() == {"ct/a": "drain", "ct/b": "drain"} for half in two.both))

    asyncio.run(scene())


def test_what_went_with_its_node_does_not_come_back(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path, nodes="ab") as two:
            await two.meet()
            await two.first.override("ct/b", "drain")
            await eventually(lambda: two.second.shown().get("ct/b") == "drain")
            await two.second.end()
            await two.first.apply(document("without", two.port))
            await two.first.apply(document("with", two.port, nodes="ab"))
            assert two.first.shown()["ct/b"] == "up"
            two.second = Half(two.second.directories.state, "", two.segment)
            await two.second.start()
            await two.agree(document("with", two.port, nodes="ab"))
            await eventually(lambda: two.second.shown()["ct/b"] == "up")
            assert two.first.shown()["ct/b"] == "up"

    asyncio.run(scene())


def test_a_peer_that_cannot_keep_them_is_said_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            file = two.second.directories.state / "overrides.json"
            file.unlink(missing_ok=True)
            (file / "in the way").mkdir(parents=True)
            await two.first.override("ct/a", "drain")
            await eventually(
                lambda: [event for event in two.first.said("task.hindered") if "overrides" in event["reason"]]
            )
            await until_status(two.first, lambda now: now["lag"]["overrides"] == "differ")
            assert two.second.shown() == {"ct/a": "up"}
            (file / "in the way").rmdir()
            file.rmdir()
            await eventually(lambda: two.second.shown() == {"ct/a": "drain"})
            assert len(two.first.said("task.hindered")) == 1

    asyncio.run(scene())
