"""The key `health` of a document: one of the catalogue's checks by its name, with the settings of that check.

A check that is made of others (`parts.py`) takes all of them that are not.  Leaves out how the answer is used.
"""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from types import GenericAlias
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from equipoise.config.base import CheckParams
from equipoise.config.parts import PARTS_KEY, Part, has_parts


def named(health: CheckParams) -> Part:
    """Return name and settings of a member of the union that `health_field` makes, as the check itself defines them."""
    settings = dict(health)
    name = str(settings.pop("check"))
    params = next(kind for kind in type(health).__mro__[1:] if issubclass(kind, CheckParams))
    if has_parts(params):
        settings[PARTS_KEY] = tuple(named(each) for each in settings[PARTS_KEY])
    return Part(name, params.model_construct(**settings))


def health_field(checks: Mapping[str, type[CheckParams]], description: str | None) -> tuple[Any, Any]:
    """Return type and field of the key `health` for these checks, told apart by `check`; `tcp` is the default."""
    simple = {name: _member(name, params) for name, params in sorted(checks.items()) if not has_parts(params)}
    made = {name: _made_of(simple, name, params) for name, params in checks.items() if has_parts(params)}
    members = dict(sorted({**simple, **made}.items()))
    kind: Any = reduce(or_, members.values())
    discriminator = "check" if len(members) > 1 else None
    if (tcp := members.get("tcp")) is None:
        return kind, Field(discriminator=discriminator, description=description)
    return kind, Field(
        default_factory=lambda: tcp(check="tcp"),
        discriminator=discriminator,
        description=description,
        json_schema_extra={"default": {"check": "tcp"}},
    )


def _member(name: str, params: type[CheckParams], **more: Any) -> Any:
    check: Any = Literal[name]
    return create_model(
        f"Check_{name}",
        __base__=params,
        __doc__=f"The health check `{name}` and its settings.",
        check=(check, Field(description="The name of the health check.")),
        **more,
    )


def _made_of(others: Mapping[str, Any], name: str, params: type[CheckParams]) -> Any:
    """Return the member for a check that is made of `others`: they are what its list takes."""
    one: Any = reduce(or_, others.values())
    entry: Any = Annotated[one, Field(discriminator="check")] if len(others) > 1 else one
    declared = params.model_fields[PARTS_KEY]
    entries: Any = Annotated[GenericAlias(tuple, (entry, ...)), *declared.metadata]
    return _member(name, params, **{PARTS_KEY: (entries, Field(description=declared.description))})
