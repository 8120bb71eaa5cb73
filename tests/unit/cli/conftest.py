from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from equipoise.cli.main import build
from tests.unit.api.running import RunningApi

Equipoise = Callable[..., Any]


async def _no_api(*_: Any) -> None:
    raise AssertionError("no command but `run` serves the API")


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EQUIPOISE_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("EQUIPOISE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TZ", "UTC")
    (tmp_path / "run").mkdir()
    (tmp_path / "state").mkdir()
    return tmp_path


@pytest.fixture
def equipoise() -> Equipoise:
    """The command line in this process: `equipoise("status", "--json")`."""
    app = build(_no_api)
    return lambda *words: CliRunner().invoke(app, words, prog_name="equipoise")


@pytest.fixture
def api(places: Path) -> Iterator[RunningApi]:
    """A supervisor that answers where the commands look for it."""
    running = RunningApi(places / "run" / "api.sock").start()
    yield running
    running.close()
