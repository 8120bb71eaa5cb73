"""The schema knows what the models know, in the words of the document; the reference page names every key."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from equipoise.config.models import Catalogue, site_model
from equipoise.config.schema import json_schema, reference, write_reference


def definition(catalogue: Catalogue, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json_schema(catalogue)["$defs"][name]
    return found


def test_each_check_has_its_own_settings(catalogue: Catalogue) -> None:
    assert "called_ae" in definition(catalogue, "Check_dicom_echo")["properties"]
    assert "called_ae" not in definition(catalogue, "Check_tcp")["properties"]
    health = definition(catalogue, "Service")["properties"]["health"]
    assert health["default"] == {"check": "tcp"}
    assert [each["$ref"] for each in health["oneOf"]] == ["#/$defs/Check_dicom_echo", "#/$defs/Check_tcp"]


def test_defaults_are_as_people_write_them(catalogue: Catalogue) -> None:
    dicom = definition(catalogue, "Dicom")["properties"]
    assert (dicom["idle_timeout"]["default"], dicom["max_associate"]["default"]) == ("12h", "128KiB")
    for name, part in json_schema(catalogue)["$defs"].items():
        for key, value in part["properties"].items():
            if "pattern" in value and "default" in value:
                assert re.search(value["pattern"], value["default"]), f"{name}.{key}"


@pytest.mark.parametrize(
    ("model", "key", "good", "bad"),
    [
        ("Check_dicom_echo", "called_ae", "CT 1", "A\\B"),
        ("Check_dicom_echo", "called_ae", "X" * 16, "X" * 17),
        ("Check_tcp", "interval", "250ms", "5"),
        ("Dicom", "max_associate", "64KiB", "64 K"),
    ],
)
def test_patterns(model: str, key: str, good: str, bad: str, catalogue: Catalogue) -> None:
    pattern = definition(catalogue, model)["properties"][key]["pattern"]
    assert re.search(pattern, good)
    assert not re.search(pattern, bad)


def test_one_value_may_stand_for_a_list(catalogue: Catalogue) -> None:
    kinds = definition(catalogue, "Service")["properties"]["ports"]["anyOf"]
    assert [kind["type"] for kind in kinds] == ["integer", "array", "null"]


def test_every_key_is_described(catalogue: Catalogue) -> None:
    schema = json_schema(catalogue)
    page = reference(catalogue)
    for part in (schema, *schema["$defs"].values()):
        assert part["additionalProperties"] is False
        for key in part["properties"]:
            rows = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
            assert rows, key
            assert all(cell.strip() for row in rows for cell in row.strip("|").split("|")), key


def test_a_catalogue_of_one_check_works(catalogue: Catalogue) -> None:
    one = Catalogue({"tcp": catalogue.checks["tcp"]}, catalogue.balances)
    assert "Check_tcp" in json_schema(one)["$defs"]
    assert site_model(one)


def test_both_files_are_written(tmp_path: Path, catalogue: Catalogue) -> None:
    write_reference(tmp_path, catalogue)
    assert json.loads((tmp_path / "site.schema.json").read_text()) == json_schema(catalogue)
    assert (tmp_path / "configuration.md").read_text() == reference(catalogue)
