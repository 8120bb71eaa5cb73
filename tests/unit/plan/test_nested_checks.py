"""A check that is made of others is a value like any other: stored, read back, compared, shown."""

import json
from typing import Any

import pytest

from equipoise.app import wiring
from equipoise.base.errors import EquipoiseError
from equipoise.config.loading import load
from equipoise.config.parts import parts_of
from equipoise.plan.compile import compile_plan, from_json, to_json
from equipoise.plan.diff import diff, to_text
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Plan

SITE = """\
site: here
services:
  ct:
    protocol: dicom
    listen: 10.0.0.100
    health:
      check: all_of
      checks:
        - {{check: dicom_echo, called_ae: {called}, timeout: 2s}}
        - {{check: http, port: 8042, status: [200, 300-302]}}
        - {{check: tcp}}
    nodes: {{a: {{address: 10.0.0.11}}}}
"""


def plan(called: str = "PACS") -> Plan:
    return compile_plan(load(SITE.format(called=called), "f", wiring.catalogue()).site, HostFacts())


def stored() -> Any:
    return json.loads(json.dumps(to_json(plan())))


def test_a_stored_plan_comes_back_with_the_checks_own_settings() -> None:
    checks = wiring.catalogue().checks
    restored = from_json(stored(), checks)
    assert restored == plan()
    parts = parts_of(restored.services[0].health)
    assert [(part.check, type(part.params)) for part in parts] == [
        (name, checks[name]) for name in ("dicom_echo", "http", "tcp")
    ]


def test_reading_the_document_again_changes_nothing() -> None:
    assert plan() == plan()
    assert hash(plan().services[0].health) == hash(plan().services[0].health)
    assert diff(plan(), plan()) == ()


def test_a_change_within_is_shown_with_what_is_not_default() -> None:
    web = "http (port 8042, status 200, 300-302); tcp"
    assert to_text(diff(plan(), plan("VNA"))) == (
        f"~ services.ct.health.checks: dicom_echo (timeout 2s, called_ae PACS); {web}"
        f" -> dicom_echo (timeout 2s, called_ae VNA); {web}"
    )


@pytest.mark.parametrize("part", [None, {}, {"check": "gone", "params": {}}, {"check": "tcp", "params": {"rise": 0}}])
def test_a_part_that_is_none_is_refused(part: Any) -> None:
    broken = stored()
    broken["services"][0]["health"]["checks"][0] = part
    with pytest.raises(EquipoiseError, match="the stored plan cannot be read"):
        from_json(broken, wiring.catalogue().checks)
