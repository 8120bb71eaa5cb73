"""A YAML document as plain values in which every scalar is the text as written, and where each of them stands.

`1E5`, `NO` and `007` are AE titles and names here, not a number, a boolean and a seven; only nothing, `~` and `null`
mean that there is no value.  Leaves out what a value means: that is for the models.  What would make a small document
large or ambiguous is refused: tags, merge keys, duplicate keys, aliases that multiply, deep nesting, long scalars.

Source: YAML 1.2.2, chapters 3 (processes) and 7 (flow styles, aliases); events by ruamel.yaml's parser in pure Python.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

from equipoise.base.errors import ConfigError, Problem

MAX_DOCUMENT_BYTES = 1 << 20  # a site of a thousand services has a tenth of it
MAX_SCALAR_CHARACTERS = 4096  # messages repeat a value that is wrong
MAX_DEPTH = 32  # the models have seven levels
MAX_NODES = 300_000  # what a document of the largest size holds without aliases; aliases may not go beyond

_NO_VALUE = ("", "~", "null")
_WAYS_OUT = {  # by what ruamel.yaml says
    "mapping values are not allowed": "check the indentation, and put quotes around a text that contains ': '",
    "cannot start any token": "indent with spaces, and put quotes around a text that starts with a special character",
    "could not find expected ':'": "each line here is 'key: value', with a space after the colon",
    "expected <block end>": "check the indentation: keys that belong together start in the same column",
    "expected ',' or": "a list in one line is [a, b], a mapping {a: 1, b: 2}",
    "unexpected end of stream": "a quote that opens here is never closed",
}

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands in the text; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Tree:
    """A document: values of dict, list, str and None, the places of values and keys, and what is wrong with it."""

    data: object
    values: Mapping[Path, Place]
    keys: Mapping[Path, Place]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Scalar:
    place: Place
    text: str
    plain: bool


@dataclass(frozen=True, slots=True)
class _List:
    place: Place
    items: tuple["_Node", ...]


@dataclass(frozen=True, slots=True)
class _Map:
    place: Place
    entries: tuple[tuple[_Scalar, "_Node"], ...]


_Node = _Scalar | _List | _Map


def read_tree(text: str, file: str) -> Tree:
    """Return the one document in `text`.  Raises: ConfigError where it is not YAML, or too large to be looked at."""
    text = text.removeprefix("\ufeff")  # editors on Windows put a byte order mark first
    if (size := len(text.encode(errors="surrogatepass"))) > MAX_DOCUMENT_BYTES:
        raise _error(file, Place(1, 1), f"the document has {size} bytes, at most {MAX_DOCUMENT_BYTES} are accepted")
    composer = _Composer(file, text)
    root = composer.document()
    flat = _Flattening(file)
    data = flat.value(root, ())
    return Tree(data, flat.values, flat.keys, tuple(flat.problems.values()))


def _error(file: str, place: Place, message: str) -> ConfigError:
    return ConfigError([Problem(file, place.line, place.column, "", message)])


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


class _Composer:
    """Make nodes of the parser's events, within the limits."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text
        self._last = Place(1, 1)
        self._anchors: dict[str, _Node] = {}
        self._events = self._safe_events()

    def _safe_events(self) -> Iterator[Event]:
        try:
            for event in YAML(typ="safe", pure=True).parse(self._text):
                self._last = _place(event.start_mark)
                yield event
        except ReaderError as error:
            raise self._unreadable(error) from None
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            said = error.problem or error.context or "it cannot be read"
            raise _error(self._file, _place(mark) if mark else self._last, _syntax_message(said)) from None
        except (YAMLError, ValueError, OverflowError) as error:  # the last two: an escape beyond Unicode, "\UFFFFFFFF"
            raise _error(self._file, self._last, f"not valid YAML after this place: {error}") from None

    def _unreadable(self, error: ReaderError) -> ConfigError:
        before = self._text[: error.position]
        place = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
        return _error(
            self._file,
            place,
            f"the character U+{error.character:04X} is not allowed in YAML; remove it or save as UTF-8",
        )

    def document(self) -> _Node:
        events = (event for event in self._events if not isinstance(event, DocumentStartEvent))
        next(events)  # the stream's start
        first = next(events)
        if not isinstance(first, ScalarEvent | AliasEvent | SequenceStartEvent | MappingStartEvent):
            return _Scalar(Place(1, 1), "", plain=True)  # the stream ends: nothing, or comments only
        root = self._node(first, 1)
        next(events)  # the document's end
        if isinstance(after := next(events), StreamEndEvent):
            return root
        raise _error(self._file, _place(after.start_mark), "a second document begins here; a site is one document")

    def _node(self, event: Event, depth: int) -> _Node:
        place = _place(event.start_mark)
        if depth > MAX_DEPTH:
            raise _error(self._file, place, f"nested more than {MAX_DEPTH} levels deep; a site needs fewer than 10")
        if isinstance(event, AliasEvent):
            return self._alias(event.anchor, place)
        if (tag := getattr(event, "tag", None)) is not None:
            raise _error(self._file, place, f"the tag {str(tag)!r} is not used here; write the value alone")
        node: _Node
        if isinstance(event, ScalarEvent):
            node = self._scalar(event, place)
        elif isinstance(event, SequenceStartEvent):
            node = _List(place, tuple(self._items(depth)))
        else:
            node = _Map(place, tuple(self._entries(depth)))
        if anchor := getattr(event, "anchor", None):
            self._anchors[anchor] = node
        return node

    def _alias(self, anchor: str, place: Place) -> _Node:
        try:
            return self._anchors[anchor]
        except KeyError:
            message = f"'*{anchor}' refers to nothing that is complete before it; anchors are written '&{anchor}'"
            raise _error(self._file, place, message) from None

    def _scalar(self, event: ScalarEvent, place: Place) -> _Scalar:
        if (length := len(event.value)) > MAX_SCALAR_CHARACTERS:
            raise _error(
                self._file, place, f"a value of {length} characters, at most {MAX_SCALAR_CHARACTERS} are accepted"
            )
        return _Scalar(place, event.value, plain=event.style is None)

    def _items(self, depth: int) -> Iterator[_Node]:
        while not isinstance(event := next(self._events), SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _entries(self, depth: int) -> Iterator[tuple[_Scalar, _Node]]:
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, _Scalar):
                raise _error(self._file, key.place, "a key is one word, not a list or a mapping")
            if key.plain and key.text == "<<":
                raise _error(self._file, key.place, "merge keys ('<<') are not used here; write the keys out")
            value = self._node(next(self._events), depth + 1)
            if value == _Scalar(value.place, "", plain=True):  # nothing is written, so its place is that of its key
                value = _Scalar(key.place, "", plain=True)
            yield key, value


def _syntax_message(said: str) -> str:
    way_out = next((hint for part, hint in _WAYS_OUT.items() if part in said), "check this line and the one above")
    return f"not valid YAML: {said}; {way_out}"


@dataclass(slots=True)
class _Flattening:
    """Make plain values of nodes, aliases written out, and note places on the way."""

    file: str
    values: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    problems: dict[Place, Problem] = field(default_factory=dict)

    def value(self, node: _Node, path: Path) -> object:
        if len(self.values) >= MAX_NODES or len(path) > MAX_DEPTH:
            raise _error(
                self.file, node.place, "aliases make this document too large; write out what differs, or use fewer"
            )
        self.values[path] = node.place
        if isinstance(node, _Scalar):
            return None if node.plain and node.text in _NO_VALUE else node.text
        if isinstance(node, _List):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.items)]
        return self._mapping(node, path)

    def _mapping(self, node: _Map, path: Path) -> dict[str, object]:
        taken: dict[str, object] = {}
        for key, value in node.entries:
            below = (*path, key.text)
            if (first := self.keys.get(below)) is not None:
                message = f"written twice, in lines {first.line} and {key.place.line}; join the two or remove one"
                dotted = ".".join(map(str, below))
                self.problems[key.place] = Problem(self.file, key.place.line, key.place.column, dotted, message)
                continue
            self.keys[below] = key.place
            taken[key.text] = self.value(value, below)
        return taken
