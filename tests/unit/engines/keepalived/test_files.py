"""The files by which keepalived is told, and what is kept for the next supervisor."""

from pathlib import Path

import pytest

from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories
from equipoise.engines.keepalived.files import Files
from equipoise.engines.keepalived.groups import GroupNow

NOW = (GroupNow("primary", "master", 12.5, "silence", ("10.0.0.100",)), GroupNow("secondary"))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    found = Files(Directories(tmp_path, tmp_path))
    found.create()
    return found


def test_what_is_told_is_found_again(files: Files) -> None:
    assert (files.has_fault(), files.given()) == (False, frozenset())
    files.tell_fault(is_there=True)
    files.tell_give("primary", away=True)
    files.tell_give("secondary", away=False)
    assert (files.has_fault(), files.given()) == (True, frozenset({"primary"}))
    files.tell_fault(is_there=False)
    assert not files.has_fault()
    assert files.directory.stat().st_mode & 0o777 == 0o750


def test_how_groups_stood_is_kept(files: Files) -> None:
    assert files.kept() is None
    files.keep(NOW, 77)
    kept = files.kept()
    assert kept is not None
    assert (kept.groups, kept.log_end) == (NOW, 77)
    (files.directory / "groups.json").write_text('{"groups":')
    assert files.kept() is None


def test_addresses_of_a_configuration_are_found_in_it(files: Files) -> None:
    assert files.configured_hosts() == frozenset()
    files.write(
        files.configuration,
        "  unicast_peer {\n    10.0.0.3\n  }\n    169.254.112.51/32 dev lo\n    fd00::100/128 dev eth0\n",
    )
    assert files.configured_hosts() == {"169.254.112.51", "fd00::100"}


def test_the_log_is_read_in_whole_lines_and_cut_when_it_is_long(files: Files) -> None:
    assert files.log_since(0) == ([], 0)
    files.log.write_text("one\ntwo\nthr")
    assert files.log_since(0) == (["one", "two"], 8)
    assert files.log_since(8) == ([], 8)
    assert not files.trim_log()
    files.log.write_bytes(b"x" * (1024 * 1024 + 1))
    assert files.trim_log()
    files.log.write_text("new\n")
    assert files.log_since(900_000) == (["new"], 4)


def test_a_fifo_takes_the_place_of_whatever_is_there(files: Files) -> None:
    files.fifo.write_text("")
    files.make_fifo()
    files.make_fifo()
    assert files.fifo.is_fifo()
    files.log.write_text("")
    files.remove_all()
    assert list(files.directory.iterdir()) == [files.log]


def test_what_cannot_be_written_is_said_with_a_way_out(tmp_path: Path) -> None:
    files = Files(Directories(tmp_path / "none", tmp_path))
    with pytest.raises(EngineError, match=r"fault cannot be written: No such file.*set EQUIPOISE_RUNTIME_DIR"):
        files.tell_fault(is_there=True)
    with pytest.raises(EngineError, match=r"keepalived.conf cannot be written"):
        files.write(files.configuration, "x")
    (tmp_path / "none").write_text("")
    with pytest.raises(EngineError, match="cannot be written"):
        files.create()
    files.keep(NOW, 1)  # the next supervisor knows less then
