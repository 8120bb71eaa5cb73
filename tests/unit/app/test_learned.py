import json
import os
from pathlib import Path

import pytest

from equipoise.app.learned import LearnedFile

LEARNED = {"pacs": {"CT1": 5e8, "MR_Ä": 12.0}, "mwl": {"WL": 900.0}}


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "learned.json"
    LearnedFile(path).keep(LEARNED)
    assert LearnedFile(path).read() == LEARNED


def test_there_may_be_nothing_yet(tmp_path: Path) -> None:
    assert LearnedFile(tmp_path / "learned.json").read() == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"CT1"',
        b'{"pacs": 5}',
        b'{"pacs": {"CT1": "much"}}',
        b'{"pacs": {"CT1": null}}',
        b'{"pacs": {"CT1": NaN}}',
        b'{"pacs": {"CT1": Infinity}}',
        b'{"\xff": {}}',
        b"\0" * 4096,
        b"[" * 100_000,
        json.dumps(LEARNED).encode()[:-3],
    ],
    ids=range(14),
)
def test_a_spoiled_file_is_learned_anew_and_written_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "learned.json"
    path.write_bytes(content)
    file = LearnedFile(path)
    assert file.read() == {}
    file.keep(LEARNED)
    assert LearnedFile(path).read() == LEARNED


def test_a_directory_in_its_place_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "learned.json").mkdir()
    assert LearnedFile(tmp_path / "learned.json").read() == {}


def test_it_is_written_only_when_something_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "learned.json"
    file = LearnedFile(path)
    file.keep(LEARNED)
    os.utime(path, (1, 1))
    file.keep(dict(reversed(LEARNED.items())))
    again = LearnedFile(path)
    again.keep(again.read())
    assert path.stat().st_mtime == 1
    file.keep({**LEARNED, "mwl": {"WL": 901.0}})
    assert path.stat().st_mtime > 1


def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    file = LearnedFile(folder / "learned.json")
    assert "No such file" in str(file.keep(LEARNED))
    folder.mkdir()
    file.keep(LEARNED)
    assert LearnedFile(folder / "learned.json").read() == LEARNED
