"""The small file that says what differs between the two machines of a pair; joining writes it, leaving removes it.

Leaves out what its keys mean: that is `config.cluster`, whose document it has precedence over.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

from equipoise.base.certificates import MAX_FILE_BYTES, read_file
from equipoise.base.errors import ConfigError, EquipoiseError, Problem
from equipoise.cluster.identity import make_directory, removed, written
from equipoise.config.cluster import Here
from equipoise.config.loading import check_settings
from equipoise.config.tree import Tree, read_tree

_COMMENT = """\
# What differs between the two machines of a pair.  `equipoise cluster join` wrote it, `equipoise cluster leave` removes
# it; what stands here goes before `cluster` in the document, which is the same on both machines.
"""
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def here_file(state: Path) -> Path:
    """Return where the file is."""
    return state / "cluster" / "here.yaml"


def read_here(state: Path) -> Here | None:
    """Return what the file says; None where there is none.  Raises: EquipoiseError, ConfigError with its places."""
    path = here_file(state)
    if not path.exists():
        return None
    tree = read_tree(_text(path), str(path))
    settings = {} if tree.data is None else tree.data
    if not isinstance(settings, dict):
        raise ConfigError([Problem(str(path), 1, 1, "", "the file is not a mapping of keys, such as 'role: primary'")])
    if tree.problems:
        raise ConfigError(list(tree.problems))
    try:
        return check_settings(Here, settings)
    except ConfigError as error:
        raise ConfigError([_placed(problem, tree, path) for problem in error.problems]) from None


def write_here(state: Path, here: Here) -> None:
    """Write the file, whole or not at all.  Raises: EquipoiseError."""
    values = {key: value for key, value in here.model_dump(mode="python").items() if value is not None}
    lines = "".join(f"{key}: {_scalar(str(value))}\n" for key, value in values.items())
    path = here_file(state)
    make_directory(path.parent)
    written(path, (_COMMENT + lines).encode(), 0o640)


def remove_here(state: Path) -> None:
    """Remove the file, if it is there.  Raises: EquipoiseError."""
    removed(here_file(state))


def _text(path: Path) -> str:
    try:
        content = read_file(str(path))
    except OSError as error:
        raise EquipoiseError(f"cannot read {path}: {error.strerror}; let the balancer's user read it") from None
    try:
        return content[:MAX_FILE_BYTES].decode()
    except UnicodeDecodeError:
        raise EquipoiseError(f"{path} is not text in UTF-8; write it again, or join again") from None


def _placed(problem: Problem, tree: Tree, path: Path) -> Problem:
    key = (problem.path,)
    place = tree.keys.get(key) or tree.values.get(key)
    if place is None:
        return replace(problem, file=str(path))
    return replace(problem, file=str(path), line=place.line, column=place.column)


def _scalar(text: str) -> str:
    """Return a text as YAML; in double quotes, which take JSON, where it might be read as something else."""
    return text if _PLAIN.fullmatch(text) and text.lower() != "null" else json.dumps(text)
