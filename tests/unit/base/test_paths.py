import os
import stat
from pathlib import Path

import pytest

from equipoise.base.errors import EquipoiseError
from equipoise.base.paths import Directories, directories, replace_file, socket_path


@pytest.mark.parametrize(
    ("environment", "is_root", "runtime", "state"),
    [
        ({}, True, "/run/equipoise", "/var/lib/equipoise"),
        ({"HOME": "/home/x"}, False, "/home/x/.local/state/equipoise/run", "/home/x/.local/state/equipoise"),
        ({"XDG_RUNTIME_DIR": "/r", "XDG_STATE_HOME": "/s"}, False, "/r/equipoise", "/s/equipoise"),
        ({"XDG_RUNTIME_DIR": "/r", "XDG_STATE_HOME": "/s"}, True, "/run/equipoise", "/var/lib/equipoise"),
        ({"EQUIPOISE_RUNTIME_DIR": "/a", "EQUIPOISE_STATE_DIR": "/b"}, True, "/a", "/b"),
        ({"EQUIPOISE_STATE_DIR": "/b", "HOME": "/h"}, False, "/b/run", "/b"),
    ],
)
def test_directories_are_named_or_usual(environment: dict[str, str], is_root: bool, runtime: str, state: str) -> None:
    assert directories(environment, is_root=is_root) == Directories(Path(runtime), Path(state))


def test_directories_are_made_for_owner_and_group_alone(tmp_path: Path) -> None:
    made = Directories(tmp_path / "run", tmp_path / "deep" / "state")
    made.create()
    made.create()
    for directory in (made.runtime, made.state):
        assert stat.S_IMODE(directory.stat().st_mode) & 0o007 == 0


def test_a_directory_that_cannot_be_made_is_said_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EquipoiseError, match=r"file/run.*set EQUIPOISE_RUNTIME_DIR"):
        Directories(tmp_path / "file" / "run", tmp_path).create()


def test_a_socket_path_has_107_bytes_at_most() -> None:
    assert socket_path(Path("/" + "x" * 106)) == "/" + "x" * 106
    with pytest.raises(EquipoiseError, match=r"108 bytes, Linux takes 107; set EQUIPOISE_RUNTIME_DIR"):
        socket_path(Path("/" + "x" * 107))
    with pytest.raises(EquipoiseError):
        socket_path(Path("/" + "é" * 54))


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    replace_file(path, b"one")
    with path.open("rb") as reader:
        replace_file(path, b"two", mode=0o600)
        assert reader.read() == b"one"
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["site.yaml"]


def test_a_file_that_cannot_be_replaced_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "taken", b"x")
    assert os.listdir(tmp_path) == ["taken"]


@pytest.mark.parametrize("mode", [0o664, 0o600, 0o444])
def test_a_files_mode_does_not_depend_on_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        replace_file(tmp_path / "site.yaml", b"x", mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "site.yaml").stat().st_mode) == mode
