"""What every model of the configuration shares, and the settings that every health check has.

Source: docs/reference/configuration.md is generated from these models.
"""

from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from equipoise.base.units import format_duration, format_size, parse_duration, parse_size
from equipoise.config.fields import SourceAddress

YEAR_S = 366 * 86400  # the longest duration: timers of an event loop overflow far beyond it


def _seconds(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _bytes(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


_DURATION_SCHEMA = {"type": "string", "pattern": r"^\d{1,12}(\.\d{1,6})? ?(ms|s|m|h|d)$", "title": "duration"}

Duration = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=str),
    Field(gt=0, le=YEAR_S),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(_DURATION_SCHEMA),
]
DurationOrZero = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=str),
    Field(ge=0, le=YEAR_S),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(_DURATION_SCHEMA),
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

    NEEDS_SERVICE: ClassVar[bool] = False  # whether the answer may differ from service to service
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
    tls: bool | None = None
    """Whether the check speaks TLS.  By default as `node_tls` says, and plain where `port` is not the nodes' own."""
