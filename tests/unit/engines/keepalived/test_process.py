"""A keepalived that ends before it is ready: it is said how, with what it printed last; real ones: tests/system."""

import asyncio
import time
from pathlib import Path

import pytest

from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories
from equipoise.engines.keepalived.files import Files
from equipoise.engines.keepalived.process import Keepalived


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("exit 5", "ended before it was ready, with exit code 5: it printed nothing"),
        ("kill -9 $$", "ended before it was ready, by signal 9: it printed nothing"),
        ("echo Sun: no room; exit 1", "ended before it was ready, with exit code 1: no room"),
        ("echo Sun: permanent error CONFIG; kill -STOP $$", "does not take its configuration: permanent error CONFIG"),
    ],
)
def test_how_it_ended_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, said: str) -> None:
    (tmp_path / "keepalived").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "keepalived").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    files = Files(Directories(tmp_path / "run", tmp_path / "run"))
    files.create()
    keepalived = Keepalived(files)
    with pytest.raises(EngineError, match=f"^keepalived {said}$"):
        asyncio.run(keepalived.start())
    assert not keepalived.is_alive


def test_how_it_ended_is_said_although_somebody_else_asked_first_whether_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the pair does four times a second."""
    (tmp_path / "keepalived").write_text("#!/bin/sh\nexit 5\n")
    (tmp_path / "keepalived").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    files = Files(Directories(tmp_path / "run", tmp_path / "run"))
    files.create()
    keepalived = Keepalived(files)

    read = files.log_since

    def slowly(start: int) -> tuple[list[str], int]:
        while keepalived.is_alive:
            time.sleep(0.001)
        return read(start)

    monkeypatch.setattr(files, "log_since", slowly)
    with pytest.raises(EngineError, match="with exit code 5"):
        asyncio.run(keepalived.start())
