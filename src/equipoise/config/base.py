"""What every model of the configuration shares, and the settings that every health check has.

Source: docs/reference/configuration.md is generated from these models.
"""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from equipoise.base.units import format_duration, format_size, parse_duration, parse_size
from equipoise.config.fields import SourceAddress

YEAR_S = 366 * 86400  # the longest duration: timers of an event loop overflow far beyond it


def _seconds(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _bytes(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


Duration = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=str),
    Field(gt=0, le=YEAR_S),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d{1,12}(\.\d{1,6})? ?(ms|s|m|h|d)$", "title": "duration"}),
]
Size = Annotated[
    int,
    BeforeValidator(_bytes, json_schema_input_type=str),
    Field(gt=0),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d{1,12}(\.\d{1,6})? ?([KMG]i?)?B$", "title": "size"}),
]
Port = Annotated[int, Field(ge=1, le=65535)]


class Strict(BaseModel):
    """Frozen, and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class CheckParams(Strict):
    """The settings that every health check has; each check adds its own."""

    interval: Duration = 5.0
    """Time between two checks of a node."""
    timeout: Duration = 3.0
    """How long one check may take, connecting included."""
    rise: Annotated[int, Field(ge=1, le=100)] = 2
    """Checks in a row that must pass before a node that is down is up again."""
    fall: Annotated[int, Field(ge=1, le=100)] = 3
    """Checks in a row that must fail before a node that is up is down."""
    port: Port | None = None
    """The port to check, where it is not the node's own."""
    source_address: SourceAddress | None = None
    """The address to check from, where the machine has several."""
