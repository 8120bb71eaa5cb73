"""`check` on real files: no supervisor, names that do not resolve, places."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Equipoise = Callable[..., Any]

_SITE = """\
site: general-hospital
services:
  ct:
    protocol: dicom
    listen: 127.0.0.1:11112
    nodes:
      a: {address: 127.0.0.1:104}
      b: {address: 'localhost:104'}
      c: {address: '127.0.0.2:104'}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(_SITE)
    return path


def test_a_good_file(equipoise: Equipoise, site: Path) -> None:
    result = equipoise("check", str(site))
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{site}: good: 1 service, 3 nodes\n", "")
    assert json.loads(equipoise("check", str(site), "--json").stdout) == {
        "file": str(site),
        "good": True,
        "services": 1,
        "nodes": 3,
        "warnings": [],
    }


def test_a_name_that_does_not_resolve_is_a_warning_with_its_place(equipoise: Equipoise, site: Path) -> None:
    site.write_text(_SITE.replace("localhost", "pacs-b.invalid"))  # RFC 2606: never resolves
    result = equipoise("check", str(site))
    assert result.exit_code == 2
    assert result.stdout == f"{site}: good: 1 service, 3 nodes, 1 warning\n"
    assert result.stderr.startswith(
        f"equipoise: warning: {site}:8:20: services.ct.nodes.b.address: 'pacs-b.invalid' does not resolve here ("
    )
    assert "/etc/hosts" in result.stderr
    warnings = json.loads(equipoise("check", str(site), "--json").stdout)["warnings"]
    assert [(warning["line"], warning["path"]) for warning in warnings] == [(8, "services.ct.nodes.b.address")]


def test_a_bad_file_is_an_error_with_every_problem(equipoise: Equipoise, site: Path) -> None:
    site.write_text(_SITE.replace("listen:", "lissen:").replace("127.0.0.2:104", "127.0.0.2:99999"))
    result = equipoise("check", str(site))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"{site}:5:5: services.ct.lissen" in result.stderr
    assert f"{site}:9:" in result.stderr
    document = json.loads(equipoise("check", str(site), "--json").stdout)
    assert document["good"] is False
    assert {problem["line"] for problem in document["problems"]} >= {5, 9}


def test_plan_without_a_supervisor_compares_with_what_was_applied_last(equipoise: Equipoise, site: Path) -> None:
    result = equipoise("plan", str(site))  # nothing was ever applied: everything is new
    assert result.exit_code == 2
    assert "no supervisor answers" in result.stderr
    assert "+ services.ct" in result.stdout
