"""The page of limits and timers says what the code does, and leaves no limit of a site out."""

import importlib
import json
import re
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from equipoise.base.units import format_duration, format_size
from equipoise.config import cluster, dicom, hl7, models, web
from equipoise.config.base import CheckParams
from tests.arch.repository import PACKAGE, ROOT

PAGE = ROOT / "docs" / "explanation" / "limits-and-timers.md"
MODELS: dict[str, type[BaseModel]] = {
    "": models.Site,
    "gateway.": models.Gateway,
    "cluster.": cluster.Cluster,
    "services.NAME.": models.Service,
    "services.NAME.dicom.": dicom.Dicom,
    "services.NAME.hl7.": hl7.Hl7,
    "services.NAME.nodes.NAME.": models.Node,
    "services.NAME.persistence.": models.Persistence,
    "services.NAME.passive_health.": models.PassiveHealth,
    "services.NAME.health.": CheckParams,
    "services.NAME.timeouts.": web.Timeouts,
    "services.NAME.http.": web.Http,
}
MOST_CONNECTIONS = 1_000_000  # the bound by which a number of connections is known


def rows() -> dict[str, str]:
    """Return the first two cells of every row that begins with a name in code."""
    found = re.findall(r"^\| `([\w.]+)` \| ([^|]+?) \|", PAGE.read_text(), re.MULTILINE)
    assert len(found) == len(dict(found)), "a limit stands there twice"
    return dict(found)


SETTINGS = {name: said for name, said in rows().items() if f"{name.rpartition('.')[0]}.".lstrip(".") in MODELS}
FIXED = {name: said for name, said in rows().items() if name not in SETTINGS}


def test_there_are_both_kinds() -> None:
    assert len(SETTINGS) > 15
    assert len(FIXED) > 15


@pytest.mark.parametrize("name", SETTINGS)
def test_a_default_is_the_models(name: str) -> None:
    prefix, _, key = name.rpartition(".")
    field = MODELS[f"{prefix}." if prefix else ""].model_fields[key]
    assert SETTINGS[name] == shown(field.default, str(field.metadata))


def shown(default: object, metadata: str) -> str:
    if default is None:
        return "none"
    if isinstance(default, float):
        return format_duration(default)
    assert isinstance(default, int)
    return format_size(default).replace(" ", "") if "format_size" in metadata else str(default)


@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_limit_is_the_codes(name: str) -> None:
    module, _, constant = name.rpartition(".")
    value = getattr(importlib.import_module(f"equipoise.{module}"), constant)
    assert FIXED[name] == fixed(constant, value)


def fixed(constant: str, value: float) -> str:
    if constant.endswith("_S"):
        return format_duration(value)
    if constant.endswith("_BYTES") or constant == "UNLIMITED_AS":
        return format_size(value)
    return f"{value:,}".replace(",", " ")


def test_no_limit_of_a_site_is_left_out() -> None:
    assert [name for name in bounded_settings() if name not in SETTINGS] == []


def bounded_settings() -> Iterator[str]:
    """Yield every setting that is a duration, a size or a number of connections."""
    for prefix, model in MODELS.items():
        for key, schema in model.model_json_schema()["properties"].items():
            if "$ref" in json.dumps(schema):
                continue  # a part, which is listed by itself
            words = {schema.get("title"), *(each.get("title") for each in schema.get("anyOf", ()))}
            most = {schema.get("maximum"), *(each.get("maximum") for each in schema.get("anyOf", ()))}
            if words & {"duration", "size"} or MOST_CONNECTIONS in most:
                yield f"{prefix}{key}"


def test_no_bound_of_the_gateway_is_left_out() -> None:
    """A constant MAX_SOMETHING of the gateway or of a codec is a limit that somebody will meet."""
    sources = [*(PACKAGE / "engines" / "gateway").rglob("*.py"), *(PACKAGE / "proto").rglob("*.py")]
    named = {
        constant
        for path in sources
        for constant in re.findall(r"^(MAX_\w+)(?:: \w+)? = ", path.read_text(), re.MULTILINE)
    }
    assert len(named) > 5
    assert sorted(named - {name.rpartition(".")[2] for name in FIXED}) == []
