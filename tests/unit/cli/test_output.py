"""What a pipe gets: lines as long as what is said in them, and as wide as COLUMNS where that is set."""

import pytest
from rich.padding import Padding
from rich.table import Table

from equipoise.cli.output import show

REASON = "connection refused " * 10


def table() -> Padding:
    table = Table(box=None)
    table.add_column("check", overflow="fold")
    table.add_row("connected")
    table.add_row(REASON.strip())
    return Padding(table, (0, 0, 0, 2))


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    show(table())
    return capsys.readouterr().out.splitlines()


def test_a_pipe_gets_whole_lines_without_what_fills_them_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = shown(capsys)
    assert [line.strip() for line in lines] == ["check", "connected", REASON.strip()]
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize("columns", [60, 120])
def test_columns_says_how_wide_a_pipe_is(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = shown(capsys)
    assert columns - len("refused ") < max(len(line) for line in lines) <= columns
    assert " ".join(" ".join(lines).split()) == f"check connected {REASON.strip()}"


@pytest.mark.parametrize("columns", ["", "wide"])
def test_columns_that_is_no_number_is_none(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert len(shown(capsys)) == 3
