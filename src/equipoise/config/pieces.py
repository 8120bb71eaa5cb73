"""Values together with the places where they were written.

What is put together of several texts can then still say where to look.  Leaves out what the values mean.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from equipoise.config.tree import Path, Place, Tree


@dataclass(frozen=True, slots=True)
class Piece:
    """A value, its place and that of its key; what is within it are pieces too."""

    content: "str | list[Piece] | dict[str, Piece] | None"
    place: Place
    key: Place

    @property
    def entries(self) -> "Mapping[str, Piece]":
        """Return what is within a mapping; nothing, of other values."""
        return self.content if isinstance(self.content, dict) else {}

    @property
    def text(self) -> str | None:
        """Return the value of a text; None, of other values."""
        return self.content if isinstance(self.content, str) else None


def piece_at(tree: Tree, path: Path) -> Piece:
    """Return the value at this path of a document."""
    value: Any = tree.data
    for part in path:
        value = value[part]
    return _of_tree(tree, path, value)


def _of_tree(tree: Tree, path: Path, value: Any) -> Piece:
    place = tree.values[path]
    key = tree.keys.get(path, place)
    if isinstance(value, dict):
        return Piece({name: _of_tree(tree, (*path, name), each) for name, each in value.items()}, place, key)
    if isinstance(value, list):
        return Piece([_of_tree(tree, (*path, number), each) for number, each in enumerate(value)], place, key)
    return Piece(value, place, key)


def overlaid(base: Piece, over: Piece) -> Piece:
    """Return `base` with what `over` says: mappings are joined, other values replaced.

    An empty value takes away what `base` has.
    """
    if not isinstance(base.content, dict) or not isinstance(over.content, dict):
        return over
    joined = dict(base.content)
    for name, each in over.content.items():
        if name not in joined:
            joined[name] = each
        elif each.content is None:
            del joined[name]
        else:
            joined[name] = overlaid(joined[name], each)
    return replace(over, content=joined)


def plain(piece: Piece) -> Any:
    """Return the value alone, as in the data of a tree."""
    if isinstance(piece.content, dict):
        return {name: plain(each) for name, each in piece.content.items()}
    if isinstance(piece.content, list):
        return [plain(each) for each in piece.content]
    return piece.content


def places(piece: Piece, path: Path) -> Iterator[tuple[Path, Piece]]:
    """Yield this piece and all within it, by their paths."""
    yield path, piece
    if isinstance(piece.content, dict):
        for name, each in piece.content.items():
            yield from places(each, (*path, name))
    elif isinstance(piece.content, list):
        for number, each in enumerate(piece.content):
            yield from places(each, (*path, number))
