"""Lines of keepalived's FIFO: those that waited, and those that come in parts."""

import asyncio
import os
from pathlib import Path

import pytest

from equipoise.base.errors import EngineError
from equipoise.engines.keepalived.notices import Notices


def test_lines_that_waited_are_read_first_and_parts_when_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "notices"
    os.mkfifo(path)
    heard: list[str] = []

    async def live() -> None:
        come = asyncio.Event()

        def hear(lines: list[str]) -> None:
            heard.extend(lines)
            come.set()

        keepalived = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        os.write(keepalived, b"one\ntwo\nth")
        notices = Notices(path, hear)
        notices.read()
        assert heard == []
        notices.open()
        notices.open()
        assert heard == ["one", "two"]
        come.clear()
        os.write(keepalived, b"ree\n")
        await asyncio.wait_for(come.wait(), 10)
        notices.close()
        os.write(keepalived, b"four\n")
        await asyncio.sleep(0)
        assert heard == ["one", "two", "three"]
        notices.open()
        assert heard[3:] == ["four"]
        notices.close()
        os.close(keepalived)

    asyncio.run(live())


def test_without_a_fifo_it_is_said(tmp_path: Path) -> None:
    async def live() -> None:
        with pytest.raises(EngineError, match="notices cannot be read: No such file"):
            Notices(tmp_path / "notices", lambda _: None).open()

    asyncio.run(live())
