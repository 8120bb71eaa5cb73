from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from equipoise.cli.main import build
from tests.unit.api.running import RunningApi

Equipoise = Callable[..., Any]


class _NoServers:
    """No command but `run` serves anything."""

    async def api(self, *_: Any) -> None:
        raise AssertionError("no command but `run` serves the API")

    pair = invitation = api


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EQUIPOISE_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("EQUIPOISE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("COLUMNS", raising=False)
    (tmp_path / "run").mkdir()
    (tmp_path / "state").mkdir()
    return tmp_path


@pytest.fixture
def equipoise() -> Equipoise:
    """The command line in this process: `equipoise("status", "--json")`."""
    app = build(_NoServers())
    return lambda *words: CliRunner().invoke(app, words, prog_name="equipoise")


@pytest.fixture
def api(places: Path) -> Iterator[RunningApi]:
    """A supervisor that answers where the commands look for it."""
    running = RunningApi(places / "run" / "api.sock").start()
    yield running
    running.close()
