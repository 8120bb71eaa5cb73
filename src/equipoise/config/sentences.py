"""What pydantic found wrong, in sentences for the person who wrote the document.

Leaves out where it stands (`loading.py`).  Each kind of error that the models can give has a sentence here; another one
gets a plain last resort, never the library's own words, which speak of Python.

Source: the error types of pydantic-core, `pydantic_core.core_schema.ErrorType`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from equipoise.base.units import format_duration, format_size, parse_duration, parse_size
from equipoise.config.words import nearest

_SHOWN_CHARACTERS = 60

_Sentence = Callable[[Any, Mapping[str, Any]], str]


def sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Return what is wrong and what to do, for one error of validating against `model`."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return "missing, and it has no default; add it"
    if kind == "extra_forbidden":
        return _unknown_key(error["loc"], model)
    if value is None:
        return "has no value; write one, or leave the key out"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _unknown_check(value, _checks_at(model, error["loc"]))
    return _SENTENCES.get(kind, _last_resort)(value, context)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping of keys"
    if isinstance(value, list | tuple):
        return "a list"
    text = str(value)
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")


def _is_not(what: str) -> _Sentence:
    return lambda value, _: f"{_shown(value)} is not {what}"


def _limit(rule: str, key: str) -> _Sentence:
    return lambda value, context: f"{_shown(value)} is out of range; {rule} {_like(value, context[key])}"


def _like(value: object, limit: Any) -> str:
    """Return `limit` in the unit that the value was written in."""
    if limit:
        for parse, show in ((parse_duration, format_duration), (parse_size, format_size)):
            try:
                parse(str(value))
            except ValueError:
                continue
            return show(limit)
    return f"{limit:g}" if isinstance(limit, float) else str(limit)


def _own_words(value: Any, context: Mapping[str, Any]) -> str:
    said = str(context["error"])
    full = repr(value)
    return said.replace(full, _shown(value)) if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS else said


def _last_resort(value: Any, _: Mapping[str, Any]) -> str:
    return f"{_shown(value)} is not what this key takes; docs/reference/configuration.md says what it does"


def _unknown_check(value: object, known: list[str]) -> str:
    chosen = value.get("check") if isinstance(value, dict) else value
    if chosen is None:
        return f"names no check; add 'check', one of {', '.join(known)}"
    return f"{_shown(chosen)} is not a known check; {nearest(str(chosen), known)}"


_LIST = _is_not("a list; write [a, b], or one '- a' in each line")
_MAPPING = _is_not("a mapping of keys; write {key: value}, or one indented 'key: value' in each line")
_SENTENCES: dict[str, _Sentence] = {
    "value_error": _own_words,
    "assertion_error": _own_words,
    "string_type": _is_not("one text"),
    "int_type": _is_not("a whole number"),
    "int_parsing": _is_not("a whole number"),
    "int_parsing_size": _is_not("a whole number of a usual size"),
    "int_from_float": _is_not("a whole number"),
    "float_type": _is_not("one value, such as 5s"),
    "float_parsing": _is_not("a number"),
    "finite_number": _is_not("a finite number"),
    "bool_type": _is_not("true or false"),
    "bool_parsing": _is_not("true or false"),
    "dict_type": _MAPPING,
    "mapping_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dataclass_type": _MAPPING,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "frozen_set_type": _LIST,
    "set_item_not_hashable": _is_not("one text"),
    "greater_than": _limit("it must be more than", "gt"),
    "greater_than_equal": _limit("at least", "ge"),
    "less_than": _limit("it must be less than", "lt"),
    "less_than_equal": _limit("at most", "le"),
    "multiple_of": _limit("it must be a multiple of", "multiple_of"),
    "too_short": lambda _, context: f"has too few entries; at least {context['min_length']} is needed",
    "too_long": lambda _, context: f"has too many entries; at most {context['max_length']} are taken",
    "string_too_short": lambda value, context: (
        f"{_shown(value)} is too short; at least {context['min_length']} characters"
    ),
    "string_too_long": lambda value, context: (
        f"{_shown(value)} is too long; at most {context['max_length']} characters"
    ),
    "string_pattern_mismatch": lambda value, context: f"{_shown(value)} does not have the form {context['pattern']}",
    "literal_error": lambda value, context: f"{_shown(value)} is not known; it takes {context['expected']}",
    "enum": lambda value, context: f"{_shown(value)} is not known; it takes {context['expected']}",
}


def _unknown_key(path: tuple[str | int, ...], model: type[BaseModel]) -> str:
    key, owner = str(path[-1]), model_at(model, path[:-1])
    later: Mapping[str, str] = getattr(owner, "LATER", {})
    if key in later:
        return f"comes with a later version; for now, {later[key]}"
    known = [field.alias or name for name, field in owner.model_fields.items()]
    return f"unknown key; {nearest(key, known)}"


def model_at(model: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel]:
    """Return the model that an error's path leads to; a discriminated union is told apart by its tag in the path."""
    choice: dict[str, type[BaseModel]] = {}
    parts = iter(path)
    for part in parts:
        if part in choice:
            model, choice = choice[str(part)], {}
        elif (field := model.model_fields.get(str(part))) is not None:
            below = list(_models_in(field.annotation))
            choice = {tag: each for each in below for tag in _tags_of(each)}
            model = below[0] if below else model
            if get_origin(field.annotation) in (dict, tuple):
                next(parts, None)  # a name that the document chose, or an index
    return model


def _checks_at(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    if isinstance(path[-1], int):  # an entry of a list of checks
        path = path[:-1]
    field = model_at(model, path[:-1]).model_fields[str(path[-1])]
    return [tag for each in _models_in(field.annotation) for tag in _tags_of(each)]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _tags_of(model: type[BaseModel]) -> Iterable[str]:
    field = model.model_fields.get("check")
    return [str(tag) for tag in get_args(field.annotation)] if field is not None else []
