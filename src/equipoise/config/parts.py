"""Checks that are made of other checks: `all_of` has a list of them, each with its name and its settings.

A check declares such a list as `checks: Parts`; the models of a document then take the checks of the catalogue there.
Leaves out what is done with them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from equipoise.config.base import CheckParams

PARTS_KEY = "checks"


@dataclass(frozen=True, slots=True)
class Part:
    """A check within another one: its name, and its settings as the check itself defines them."""

    check: str
    params: CheckParams


Parts: TypeAlias = tuple[Part, ...]


def has_parts(kind: type[CheckParams]) -> bool:
    """Say whether these are the settings of a check that is made of others."""
    field = kind.model_fields.get(PARTS_KEY)
    return field is not None and field.annotation == Parts


def parts_of(params: CheckParams) -> Parts:
    """Return the checks that this one is made of; none, of most."""
    return getattr(params, PARTS_KEY) if has_parts(type(params)) else ()


def restored(
    kind: type[CheckParams], stored: Mapping[str, Any], checks: Mapping[str, type[CheckParams]]
) -> CheckParams:
    """Return the settings that were stored as JSON values, with parts as {check, params}.

    Raises: KeyError, TypeError or ValueError where they are of another kind.
    """
    if not has_parts(kind):
        return kind.model_validate(stored)
    parts = tuple(
        Part(part["check"], restored(checks[part["check"]], part["params"], checks)) for part in stored[PARTS_KEY]
    )
    return kind.model_validate({**stored, PARTS_KEY: parts})
