"""Greetings: whether the peer is there is told once, and of one that was not heard yet only after a while."""

import asyncio
from pathlib import Path

import pytest

from equipoise.app.pair import talking
from tests.unit.app.pair.halves import joined, until_status
from tests.unit.engines.running import eventually


def test_a_peer_that_starts_later_was_not_lost(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.second.end()
            again = await two.restarted(two.first)
            await until_status(again, lambda now: now["peer"]["problem"])
            await two.restarted(two.second)
            await two.meet()
            assert again.said("cluster.peer_lost") == []

    asyncio.run(scene())


def test_a_peer_that_does_not_come_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talking, "_MOST_UNANSWERED", 3)

    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.second.end()
            again = await two.restarted(two.first)
            await eventually(lambda: bool(again.said("cluster.peer_lost")), "word of it")
            await asyncio.sleep(0.3)
            assert len(again.said("cluster.peer_lost")) == 1

    asyncio.run(scene())
