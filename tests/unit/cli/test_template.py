"""`template list` and `template show`: what there is, as people and as programs read it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from equipoise.templates.reader import names, read

Equipoise = Callable[..., Any]


def test_the_list_names_every_template(equipoise: Equipoise) -> None:
    result = equipoise("template", "list")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in names())
    assert "INFINITT PACS" in result.stdout
    listed = json.loads(equipoise("template", "list", "--json").stdout)
    assert [each["name"] for each in listed] == list(names())
    assert {"name": "infinitt_pacs", "title": "INFINITT PACS", "services": ["web", "dicom", "query", "mwl"]} in listed


def test_a_template_is_shown_with_its_sources(equipoise: Equipoise) -> None:
    result = equipoise("template", "show", "infinitt_pacs")
    assert result.exit_code == 0
    assert read("infinitt_pacs").text in result.stdout
    assert "# guide: table of ports, modality worklist communication" in result.stdout


def test_what_is_shown_can_be_copied(equipoise: Equipoise, tmp_path: Path) -> None:
    shown = equipoise("template", "show", "infinitt_pacs").stdout
    use = shown.partition("# To use it:\n")[2]
    site = tmp_path / "site.yaml"
    site.write_text("site: s\n" + "".join(line.removeprefix("# ") + "\n" for line in use.splitlines()))
    assert "good: 4 services, 8 nodes" in equipoise("check", str(site)).stdout


def test_programs_get_all_of_it(equipoise: Equipoise) -> None:
    shown = json.loads(equipoise("template", "show", "orthanc", "--json").stdout)
    assert shown["asks"]["called_ae"] == {
        "about": "the AE title that the servers answer to",
        "default": "ORTHANC",
        "takes_list": False,
    }
    assert shown["services"]["dicom"]["ports"] == ["4242"]
    assert shown["sources"]["services.dicom.ports"].startswith("book: ")
    assert shown["documents"]["book"] == "Orthanc Book"


def test_an_unknown_name_is_an_error_that_helps(equipoise: Equipoise) -> None:
    result = equipoise("template", "show", "infinit")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no template 'infinit'; did you mean 'infinitt_pacs'?" in result.stderr
