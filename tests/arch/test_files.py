"""How the files of the repository look: names, sizes, docstrings, and nothing of the machine they were made on."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.arch.repository import PACKAGE, ROOT, modules, shown, tracked_files

MOST_LINES = 400  # at 400 look for the seam
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "constants", "common", "misc"}
# Written so that this file does not find itself.
# /home/x is nobody's: an example.
MACHINE_PATHS = re.compile(r"(?<![\w.~}$-])[/](?:work|root|home)[/](?!x\b)")
REGISTRIES = re.compile(r"pypi[.]org|python[h]osted|npm[j]s|deb[.]debian|crates[.]io|proxy[.]golang")
PYTHON_FOLDERS = ("src", "tests", "bench", "tools")


def python_files() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".py" and shown(path).startswith(PYTHON_FOLDERS)]


def test_every_module_says_what_it_is() -> None:
    spoken = [path for path in python_files() if not shown(path).startswith("tests")]  # a test says it in its names
    silent = [shown(path) for path in spoken if ast.get_docstring(ast.parse(path.read_text())) is None]
    assert silent == []


def test_no_module_is_a_drawer() -> None:
    drawers = [shown(path) for path in python_files() if {path.stem, *path.parent.parts} & FORBIDDEN_NAMES]
    assert drawers == [], "name a module after what it says"


def test_no_module_is_too_long() -> None:
    lengths = {shown(path): len(path.read_text().splitlines()) for path in modules()}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_every_folder_of_the_package_is_a_package() -> None:
    folders = {path.parent for path in modules()}
    assert [shown(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize(
    ("pattern", "what"),
    [(MACHINE_PATHS, "a path of one machine"), (REGISTRIES, "the host of a package registry")],
    ids=["paths", "registries"],
)
def test_tracked_files_name_no(pattern: re.Pattern[str], what: str) -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # a picture, or a DICOM file
        found += [f"{shown(path)}: {match[0]}" for match in pattern.finditer(text)]
    assert found == [], f"holds {what}"


def test_the_patterns_find_what_they_are_for() -> None:
    assert MACHINE_PATHS.search("see /" + "root/.cache")
    assert MACHINE_PATHS.search('"/' + 'home/anna/x"')
    assert not MACHINE_PATHS.search("bench/" + "work/x")
    assert REGISTRIES.search("https://files.python" + "hosted.org/x")


def test_shell_scripts_are_strict_and_whole() -> None:
    scripts = [path for path in tracked_files() if path.suffix == ".sh" or shown(path) == ".ci/run"]
    assert scripts
    for script in scripts:
        text = script.read_text()
        assert text.startswith("#!/usr/bin/env bash\n"), shown(script)
        assert "set -euo pipefail" in text, shown(script)
        assert script.stat().st_mode & 0o111, f"{shown(script)} is not executable"
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_version_is_written_once() -> None:
    """Twice at most: where packaging reads it and where the program does, and both are the same."""
    inside = re.search(r'__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text())
    outside = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert inside
    assert outside
    assert inside[1] == outside[1]
