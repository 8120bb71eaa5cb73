"""The repository's own files, as these tests look at them."""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "equipoise"
REFERENCE = ROOT / "docs" / "reference"
_UNTRACKED = {".git", ".venv", "__pycache__", ".hypothesis", ".mypy_cache", ".ruff_cache", ".pytest_cache", "build"}


def modules() -> list[Path]:
    """Return every module of the package."""
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return what git has or would take; of a copy without git, every file outside the usual caches."""
    # safe.directory: a clone that belongs to another user, as in a container, is no danger to `ls-files`.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        paths = [ROOT / name for name in listed.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in ROOT.rglob("*") if not _UNTRACKED & set(path.relative_to(ROOT).parts)]
    return tuple(sorted(path for path in paths if path.is_file()))


def shown(path: Path) -> str:
    """Return a path as people name it."""
    return str(path.relative_to(ROOT))
