"""What `fhir` asks, and which statements it takes."""

from typing import Any

import pytest
from pydantic import ValidationError

from equipoise.health.asking import Outcome
from equipoise.health.checks.fhir import CHECK, Params
from tests.unit.health.conftest import Run
from tests.unit.health.fake_peer import Script, probed
from tests.unit.health.peers.fhir import statement
from tests.unit.health.peers.http import answering, page

R4 = "GET /fhir/metadata answered 200 with a CapabilityStatement of FHIR 4.0.1"


async def asked(script: Script, **settings: Any) -> tuple[Outcome, str]:
    outcome, heard = await probed(CHECK, script, **settings)
    return outcome, heard.decode()


@pytest.mark.parametrize(
    ("version", "ok", "reason"),
    [
        (None, True, f"{R4}, active"),
        ("4", True, f"{R4}, active"),
        ("4.0", True, f"{R4}, active"),
        ("4.0.1", True, f"{R4}, active"),
        ("4.3", False, f"{R4}, expected 4.3; correct health.path, or health.fhir_version"),
        ("4.0.10", False, f"{R4}, expected 4.0.10; correct health.path, or health.fhir_version"),
    ],
)
def test_the_version(run: Run, version: str | None, ok: bool, reason: str) -> None:
    outcome, _ = run(asked(answering(statement()), fhir_version=version))
    assert (outcome.ok, outcome.reason) == (ok, reason)


@pytest.mark.parametrize(
    ("content", "ok"),
    [
        (b'{"resourceType": "CapabilityStatement", "status": "draft", "fhirVersion": "4.0.1", "rest": "%s"}', True),
        (b'{"resourceType": "CapabilityStatement", "rest": "%s"}', False),
        (b'{"resourceType": "OperationOutcome", "status": "active", "fhirVersion": "4.0.1", "rest": "%s"}', False),
        (b'{"rest": "%s"}', False),
        (b"<html>%s", False),
    ],
)
def test_of_a_long_answer_the_beginning_is_judged(run: Run, content: bytes, ok: bool) -> None:
    outcome, _ = run(asked(answering(page(content % (b"x" * 3_000_000)))))
    assert outcome.ok is ok, outcome.reason


@pytest.mark.parametrize(
    "more",
    [b'"status":"active","fhirVersion":4', b'"status":[],"fhirVersion":"4.0.1"', b'"status":"x","fhirVersion":"4.0.1"'],
)
def test_values_of_another_kind_fail(run: Run, more: bytes) -> None:
    outcome, _ = run(asked(answering(statement(more))))
    assert "without fhirVersion or status" in outcome.reason


def test_the_request(run: Run) -> None:
    _, heard = run(asked(answering(statement()), path="/baseR4/", host="fhir.example"))
    lines = heard.split("\r\n")
    assert lines[0] == "GET /baseR4/metadata HTTP/1.1"
    assert {"Host: fhir.example", "Accept: application/fhir+json"} <= set(lines)


@pytest.mark.parametrize("settings", [{"path": "fhir"}, {"fhir_version": "R4"}, {"fhir_version": "4.0.1.2"}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate(settings)
