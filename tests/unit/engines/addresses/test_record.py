from pathlib import Path

import pytest

from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories
from equipoise.engines.addresses.record import Record
from equipoise.plan.model import ManagedAddress

OURS = frozenset({ManagedAddress("10.0.0.100", "eth0"), ManagedAddress("fd00::100", "eth1")})


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    path = tmp_path / "boot_id"
    path.write_text("first\n")
    return path


@pytest.fixture
def record(tmp_path: Path, boot: Path) -> Record:
    return Record(Directories(tmp_path, tmp_path), boot)


def test_what_was_written_is_read(record: Record) -> None:
    assert record.read() == frozenset()
    record.write(OURS)
    assert record.read() == OURS
    record.write([])
    assert record.read() == frozenset()


def test_after_a_restart_of_the_machine_nothing_is_ours(record: Record, boot: Path) -> None:
    record.write(OURS)
    boot.write_text("second\n")
    assert record.read() == frozenset()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1, "boot": "first", "addresses": [{"host": 1}]}'])
def test_a_damaged_file_is_said_to_be_one(record: Record, content: str) -> None:
    record.path.write_text(content)
    with pytest.raises(EngineError, match=r"addresses\.json is damaged"):
        record.read()


def test_a_later_version_is_not_read(record: Record) -> None:
    record.path.write_text('{"version": 2}')
    with pytest.raises(EngineError, match="of version 2, known is 1"):
        record.read()


def test_what_cannot_be_written_is_said(tmp_path: Path, boot: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(EngineError, match=r"cannot write .*addresses\.json: No such file"):
        Record(Directories(gone, gone), boot).write(OURS)
