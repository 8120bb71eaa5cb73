"""Find and read site templates.

A template is YAML whose scalars are the text as written, like a site document.  Where a value is from stands as a
comment behind it, or behind the key that it stands under; a list is one value.  Leaves out whether the services make
sense: a test compiles each template.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from equipoise.templates.model import Ask, Template

_SUFFIX = ".yaml"
_WITH_SOURCES = ("asks.", "services.")
_COMMENT = re.compile(r"\s#\s*(.+?)\s*$")  # templates have no other ' #'


@cache
def names() -> tuple[str, ...]:
    """Return the names of all templates, in order."""
    found = (each.name for each in files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX)))


@cache
def read(name: str) -> Template:
    """Return a template.  Raises: KeyError where there is none of that name."""
    if name not in names():
        raise KeyError(name)
    return parse(name, files(__package__).joinpath(name + _SUFFIX).read_text(encoding="utf-8"))


class Templates(Mapping[str, Template]):
    """All templates by name; each is read when it is asked for."""

    def __getitem__(self, name: str) -> Template:
        return read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(names())

    def __len__(self) -> int:
        return len(names())


def parse(name: str, text: str) -> Template:
    """Return the template that `text` is.  Raises: KeyError where a part is missing."""
    reading = _Reading(text.splitlines(), {})
    content = reading.value(YAML(typ="safe", pure=True).compose(text), "", "")
    return Template(
        name=name,
        title=content["title"],
        about=content["about"],
        asks={key: _ask(value) for key, value in content["asks"].items()},
        services=content["services"],
        documents=content.get("documents", {}),
        sources={path: source for path, source in reading.sources.items() if path.startswith(_WITH_SOURCES)},
        text=text,
    )


def _ask(value: Any) -> Ask:
    if isinstance(value, str):
        return Ask(value)
    return Ask(value["about"], value.get("default"), takes_list=value.get("list") == "true")


@dataclass(slots=True)
class _Reading:
    """Make plain values of YAML nodes, and note the comment of each on the way."""

    lines: list[str]
    sources: dict[str, str]

    def value(self, node: Any, path: str, above: str) -> Any:
        if isinstance(node, MappingNode):
            return {key.value: self._entry(key, value, path, above) for key, value in node.value}
        if source := self._comment(node.start_mark.line) or above:
            self.sources[path] = source
        if isinstance(node, SequenceNode):
            return [each.value for each in node.value]
        if isinstance(node, ScalarNode):
            return node.value
        raise TypeError(f"{path}: {node!r}")

    def _entry(self, key: Any, value: Any, path: str, above: str) -> Any:
        below = f"{path}.{key.value}" if path else key.value
        return self.value(value, below, self._comment(key.start_mark.line) or above)

    def _comment(self, line: int) -> str:
        found = _COMMENT.search(self.lines[line])
        return found[1] if found else ""
