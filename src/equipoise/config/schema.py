"""The JSON Schema of a site document, for editors, and the reference page, for people; both made of the models.

Leaves out rules between keys, which `load` explains.

Source: JSON Schema draft 2020-12, which pydantic writes.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from equipoise.base.paths import replace_file
from equipoise.base.units import format_duration, format_size
from equipoise.config.models import Catalogue, site_model

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"


class _Generator(GenerateJsonSchema):
    """Titles only where a type has a name of its own: 'Max Connections' tells nobody anything."""

    schema_dialect = SCHEMA_ID

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Say no: keys are shown as they are written."""
        return False


def json_schema(catalogue: Catalogue) -> dict[str, Any]:
    """Return the schema of a site document with these checks and balances."""
    schema = site_model(catalogue).model_json_schema(schema_generator=_Generator)
    for properties in _each_properties(schema):
        for name, value in properties.items():
            properties[name] = _as_written(value)
    return {"$schema": SCHEMA_ID, **schema, "title": "Equipoise site"}


def reference(catalogue: Catalogue) -> str:
    """Return the reference page in Markdown: every key, its type, default and meaning."""
    schema = json_schema(catalogue)
    parts = [_INTRODUCTION, *_section("The document", schema, schema)]
    checks = sorted(name for name in schema["$defs"] if name.startswith("Check_"))
    for name, key in _KEY_OF.items():
        parts += _section(f"`{key}`", schema["$defs"][name], schema)
    for name in checks:
        parts += _section(f"`health`, with `check: {name.removeprefix('Check_')}`", schema["$defs"][name], schema)
    return "\n".join(parts)


def write_reference(directory: Path, catalogue: Catalogue) -> None:
    """Write `configuration.md` and `site.schema.json` into `directory`.  Raises: OSError."""
    for name, content in reference_files(catalogue).items():
        replace_file(directory / name, content.encode(), mode=0o644)


def reference_files(catalogue: Catalogue) -> dict[str, str]:
    """Return what `write_reference` writes, by file name; a test compares it with what is there."""
    return {
        "configuration.md": reference(catalogue),
        "site.schema.json": json.dumps(json_schema(catalogue), indent=2, ensure_ascii=False) + "\n",
    }


_KEY_OF = {
    "Use": "use",
    "Gateway": "gateway",
    "Network": "network",
    "Cluster": "cluster",
    "Service": "services.NAME",
    "Node": "services.NAME.nodes.NAME",
    "Persistence": "services.NAME.persistence",
    "Route": "services.NAME.routes",
    "Tls": "services.NAME.tls",
    "CertificateFile": "services.NAME.tls.more_certificates",
    "NodeTls": "services.NAME.node_tls",
    "ProxyProtocol": "services.NAME.proxy_protocol",
    "PassiveHealth": "services.NAME.passive_health",
    "Dicom": "services.NAME.dicom",
    "Hl7": "services.NAME.hl7",
    "Timeouts": "services.NAME.timeouts",
    "Http": "services.NAME.http",
}
_INTRODUCTION = """# Configuration: `site.yaml`

Generated from the models in `src/equipoise/config`; change those, then run `make docs`.

Every value is taken as the text that is written: `NO`, `1E5` and `007` are fine as AE titles and need no quotes. IPv6
addresses do. Durations are written `250ms`, `5s`, `30m`, `12h`, `1d`; sizes `64KiB`, `1MiB`. Where a list is taken, one
value may stand alone. An empty value is the same as a key left out, where the key may be left out.
"""


def _each_properties(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for part in (schema, *schema.get("$defs", {}).values()):
        yield part.get("properties", {})


def _as_written(value: dict[str, Any]) -> dict[str, Any]:
    """Return a property whose default is as a person writes it: `30s`, not 30.0; objects have defaults of their own."""
    default, title = value.get("default"), value.get("title")
    if title == "duration" and isinstance(default, float):
        return {**value, "default": format_duration(default)}
    if title == "size" and isinstance(default, int):
        return {**value, "default": format_size(default).replace(" ", "")}
    if "default" in value and (default is None or (isinstance(default, dict) and "$ref" in value)):
        return {key: each for key, each in value.items() if key != "default"}
    return value


def _section(title: str, part: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    required = part.get("required", [])
    rows = [
        f"| `{name}` | {_type(value)} | {_default(name, value, required)} | {_meaning(value, schema)} |"
        for name, value in part["properties"].items()
    ]
    about = part.get("description", "")
    table = ["| key | type | default | meaning |", "|---|---|---|---|", *(row.replace("\n", " ") for row in rows)]
    return [f"## {title}\n", *([f"{about}\n"] if about else []), *table, ""]


def _meaning(value: dict[str, Any], schema: dict[str, Any]) -> str:
    if said := value.get("description"):
        return str(said)
    return str(schema["$defs"][value["$ref"].rpartition("/")[2]]["description"])


def _default(name: str, value: dict[str, Any], required: list[str]) -> str:
    if "default" not in value:
        return "required" if name in required else "see below" if "$ref" in value else "none"
    default = value["default"]
    if isinstance(default, str):
        return f"`{default}`"
    if isinstance(default, dict):
        return "`{" + ", ".join(f"{key}: {each}" for key, each in default.items()) + "}`"
    return f"`{json.dumps(default)}`"


def _type(value: dict[str, Any]) -> str:
    if alternatives := value.get("anyOf", value.get("oneOf")):
        single = next(each for each in alternatives if each.get("type") != "null")
        listed = any(each.get("type") == "array" for each in alternatives)
        return f"{_type(single)}; or a list" if listed else _type(single)
    if "$ref" in value:
        return "see below"
    if "enum" in value:
        return ", ".join(f"`{word}`" for word in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    return value.get("title") or _plain_type(value)


def _plain_type(value: dict[str, Any]) -> str:
    match value.get("type"):
        case "integer" if "maximum" in value:
            return f"{value.get('minimum', 0)} to {value['maximum']}"
        case "array" if "discriminator" in value.get("items", {}):
            return "list of checks"
        case "array":
            return f"list of {_type(value.get('items', {}))}"
        case "boolean":
            return "`true` or `false`"
        case "object":
            return "mapping by name"
        case other:
            return str(other or "any")
