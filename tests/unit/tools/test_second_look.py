"""The second look with real runs of pytest, of files that fail as often as their names say."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import second_look

FAILS = """
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range({tests}))
def test_it(number):
    runs = Path(__file__).with_suffix(f".{{number}}")
    runs.write_text(runs.read_text() + "." if runs.exists() else ".")
    assert len(runs.read_text()) > {times}
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def first_look(cache: Path, name: str, *, tests: int = 1, times: int = 1) -> int:
    """Run so many tests that fail so many times; return pytest's exit code."""
    Path(name).write_text(FAILS.format(tests=tests, times=times))
    run = [sys.executable, "-m", "pytest", "-q", "-o", f"cache_dir={cache}", name]
    return subprocess.run(run, check=False, stdout=subprocess.DEVNULL).returncode


def runs(name: str) -> int:
    return len(Path(name).with_suffix(".0").read_text())


def test_what_passes_alone_passes_and_is_named(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert first_look(cache, "test_once.py") == 1
    assert second_look.main([str(cache)]) == 0
    assert "PASSED ALONE" in (said := capfd.readouterr().out)
    assert "test_once.py::test_it[0]" in said.rpartition("PASSED ALONE")[2]


def test_what_fails_twice_fails(cache: Path) -> None:
    first_look(cache, "test_twice.py", times=2)
    assert second_look.main([str(cache)]) == 1
    assert runs("test_twice.py") == 2


@pytest.mark.parametrize(
    ("name", "tests", "why"),
    [
        ("test_many.py", second_look.MOST + 1, "4 tests failed"),
        ("test_fault_run.py", 1, "nothing may be lost"),
        ("test_hl7_soak.py", 1, "nothing may be lost"),
    ],
)
def test_some_are_not_looked_at_again(
    cache: Path, capfd: pytest.CaptureFixture[str], name: str, tests: int, why: str
) -> None:
    first_look(cache, name, tests=tests)
    assert second_look.main([str(cache)]) == 1
    assert why in capfd.readouterr().out
    assert runs(name) == 1


def test_a_run_that_ended_without_a_failed_test_is_no_success(cache: Path) -> None:
    assert second_look.main([str(cache)]) == 1


def test_the_tests_that_count_what_was_acknowledged_have_these_names() -> None:
    files = {path.name for path in Path(__file__).parents[2].glob("system/test_*.py")}
    for word in second_look.LOSSES:
        assert any(word in name for name in files), word
