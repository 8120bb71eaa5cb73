"""Turn the text of a site document into a `Site`, or into all of its problems at once, each with its place.

Leaves out files and directories: the text is handed in.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from equipoise.base.errors import ConfigError, Problem
from equipoise.config.base import Strict
from equipoise.config.crosscheck import findings
from equipoise.config.models import Catalogue, Site, site_model
from equipoise.config.sentences import sentence
from equipoise.config.suited import Finding
from equipoise.config.templating import Expansion, expand
from equipoise.config.tree import Path, Place, Tree, read_tree

MOST_PROBLEMS = 100  # more help nobody; the rest is counted

Settings = TypeVar("Settings", bound=Strict)

_AT_KEY = ("extra_forbidden", "invalid_key")


@dataclass(frozen=True, slots=True)
class Document:
    """A site that is valid, where each of its keys and values stands in the text, and which services templates made."""

    site: Site
    file: str
    values: Mapping[Path, Place]
    origins: Mapping[str, str] = field(default_factory=dict)

    def place(self, *path: str | int) -> tuple[int, int]:
        """Return line and column of the value at this path of keys, or of the nearest one above it."""
        place = _nearest_place(self.values, path)
        return place.line, place.column

    def problem(self, message: str, *path: str | int) -> Problem:
        """Return a problem with the value at this path, for what only shows outside the document."""
        line, column = self.place(*path)
        return _named(Problem(self.file, line, column, ".".join(map(str, path)), message), path, self.origins)


def load(text: str, file: str, catalogue: Catalogue) -> Document:
    """Return the site that `text` describes.  Raises: ConfigError with every problem, in the order of the text."""
    tree = read_tree(text, file)
    if not isinstance(tree.data, dict):
        message = "the document is not a mapping of keys; it starts with 'site: NAME' and 'services:'"
        raise ConfigError([Problem(file, 1, 1, "", message)])
    model = site_model(catalogue)
    expansion = expand(tree, catalogue.templates)
    tree = expansion.tree
    data: Any = tree.data
    site, errors = _validate(model, data)
    if expansion.spoiled:
        errors = [error for error in errors if error["loc"] != ("services",)]  # it is empty because `use` is wrong
    problems = [*tree.problems, *(_problem(error, model, expansion, file) for error in errors)]
    problems += _rules_broken(expansion.findings, expansion, file)
    sound = site if site is not None else _sound_part(model, data, errors)
    if sound is not None:
        problems += _rules_broken(findings(sound, _left_out(sound, expansion)), expansion, file)
    if problems or site is None:
        raise ConfigError(_in_order(problems))
    return Document(site, file, tree.values, expansion.origins)


def check_settings(model: type[Settings], settings: Mapping[str, object]) -> Settings:
    """Return the settings of one model, such as a check's, given one by one.

    Raises: ConfigError, whose paths are the settings' names.
    """
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        raise ConfigError(
            [Problem("", 0, 0, str(one["loc"][0]) if one["loc"] else "", sentence(one, model)) for one in wrong]
        ) from None


def _validate(model: type[Site], data: object) -> tuple[Site | None, list[ErrorDetails]]:
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        found = error.errors(include_url=False)
        return None, [each for each in found if not _is_echo(each)]


def _is_echo(error: ErrorDetails) -> bool:
    """Say whether a list counts as too short only because its entries are wrong, which is said already."""
    return error["type"] == "too_short" and bool(error["input"])


def _sound_part(model: type[Site], data: dict[str, object], errors: list[ErrorDetails]) -> Site | None:
    """Return the site without what is wrong in it, so that rules between the rest are checked in the same run."""
    broken = {error["loc"][:2] for error in errors}
    services = data.get("services")
    if not isinstance(services, dict):
        return None
    kept = {name: service for name, service in services.items() if ("services", name) not in broken}
    return _validate(model, {"site": "unnamed", "services": kept})[0]


def _left_out(site: Site, expansion: Expansion) -> list[str]:
    """Return the names of services that the document has beside those of the site, or would have."""
    written = [path[1] for path in expansion.tree.values if path[:1] == ("services",) and len(path) == 2]
    return [*(str(name) for name in written if name not in site.services), *expansion.spoiled]


def _rules_broken(broken: Iterable[Finding], expansion: Expansion, file: str) -> Iterator[Problem]:
    for finding in broken:
        path, place = _resolve(finding.path, expansion.tree)
        problem = Problem(file, place.line, place.column, path, finding.message)
        yield _named(problem, finding.path, expansion.origins)


def _named(problem: Problem, path: Path, origins: Mapping[str, str]) -> Problem:
    """Return the problem with the template whose service it is in, if that is so."""
    if path[:1] != ("services",) or len(path) < 2 or (origin := origins.get(str(path[1]))) is None:
        return problem
    return replace(problem, message=f"{problem.message} (from template {origin})")


def _problem(error: ErrorDetails, model: type[Site], expansion: Expansion, file: str) -> Problem:
    message = sentence(error, model)
    parts = error["loc"]
    if error["type"] == "union_tag_invalid":
        parts = (*parts, "check")  # the value that is wrong, not the mapping around it
    path, place = _resolve(parts, expansion.tree, at_key=error["type"] in _AT_KEY)
    return _named(Problem(file, place.line, place.column, path, message), parts, expansion.origins)


def _resolve(parts: Path, tree: Tree, *, at_key: bool = False) -> tuple[str, Place]:
    """Return the keys that lead to an error as people write them, and the place to look at.

    pydantic's path also has the tag of a union, `[key]` behind a key that is wrong itself, and an index where one value
    stands for a list; none of these is in the text.
    """
    path: Path = ()
    below: Any = tree.data
    tag_may_follow = True
    for part in parts:
        at_key = at_key or part == "[key]"
        if tag_may_follow and isinstance(below, dict) and part == below.get("check"):
            tag_may_follow = False  # the check `tls` has a key `tls`, which would follow behind its tag
        elif (*path, part) in tree.values:
            path, below, tag_may_follow = (*path, part), below[part], True
        elif isinstance(below, dict) and part != "[key]":
            path, below = (*path, part), None
    place = tree.keys.get(path) if at_key else None
    return ".".join(map(str, path)), place or _nearest_place(tree.values, path)


def _nearest_place(values: Mapping[Path, Place], path: Path) -> Place:
    while path not in values:
        path = path[:-1]
    return values[path]


def _in_order(problems: list[Problem]) -> list[Problem]:
    ordered = sorted(set(problems), key=lambda problem: (problem.line, problem.column, problem.path, problem.message))
    if (more := len(ordered) - MOST_PROBLEMS) <= 0:
        return ordered
    shown = ordered[:MOST_PROBLEMS]
    return [*shown, Problem(shown[0].file, 0, 0, "", f"and {more} more problems; mend these first")]
