"""Values that are one of some known words, and lists of which one member may stand alone."""

import difflib
from collections.abc import Iterable, Mapping
from types import GenericAlias
from typing import Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a sentence that proposes the known word nearest to `word`, or lists all of them."""
    words = sorted(known)
    if close := difflib.get_close_matches(word, words, n=1, cutoff=0.6):
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(words)}"


def word(known: Iterable[str], later: Iterable[str] = (), refused: Mapping[str, str] | None = None) -> tuple[Any, Any]:
    """Return what makes a text one of `known`; `later` and `refused` get a sentence of their own."""
    words = sorted(known)

    def check(text: str) -> str:
        if text in words:
            return text
        if text in (refused or {}):
            raise ValueError(f"{text!r} {(refused or {})[text]}")
        if text in later:
            raise ValueError(f"{text!r} comes with a later version; this one can do {', '.join(words)}")
        raise ValueError(f"{text!r} is not known; {nearest(text, words)}")

    return AfterValidator(check), WithJsonSchema({"type": "string", "enum": words})


def one_or_more(item: Any) -> BeforeValidator:
    """Return what takes one `item` for a list of it."""
    return BeforeValidator(_as_list, json_schema_input_type=item | GenericAlias(list, (item,)))


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value
