"""What `xds_registry` asks, byte by byte as another reader sees it, and what it takes as a sign of health."""

import re
from typing import Any
from xml.etree import ElementTree

import pytest
from pydantic import ValidationError

from equipoise.health.asking import Outcome
from equipoise.health.checks.xds_registry import CHECK, Params
from tests.unit.health.conftest import Run
from tests.unit.health.fake_peer import Script, probed
from tests.unit.health.peers.http import answering, page
from tests.unit.health.peers.xds_registry import (
    FAILURE,
    QUERY,
    RIM,
    SETTINGS,
    SICK,
    SUCCESS,
    enveloped,
    errors,
    queried,
    soap,
)


async def asked(script: Script, **settings: Any) -> tuple[Outcome, bytes]:
    return await probed(CHECK, script, **{**SETTINGS, **settings})


ADDRESSING = "http://www.w3.org/2005/08/addressing"


def message(heard: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(heard.partition(b"\r\n\r\n")[2])


def text(root: ElementTree.Element, namespace: str, name: str) -> list[str | None]:
    return [each.text for each in root.iter(f"{{{namespace}}}{name}")]


REFERENCES = f'<r:RegistryObjectList xmlns:r="{RIM}"><r:ObjectRef id="urn:uuid:1"/></r:RegistryObjectList>'
PARTIAL = "urn:ihe:iti:2007:ResponseStatusType:PartialSuccess"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (queried(SUCCESS), "ITI-18 answered Success"),
        (queried(SUCCESS, REFERENCES), "ITI-18 answered Success"),
        (queried(SUCCESS, errors("XDSRegistryError")), "ITI-18 answered Success"),
        (
            queried(FAILURE, errors("XDSUnknownPatientId", "XDSUnknownPatientId")),
            "ITI-18 answered Failure with XDSUnknownPatientId, as it must for what nobody has",
        ),
        (
            queried(PARTIAL, errors("XDSUnknownPatientId")),
            "ITI-18 answered PartialSuccess with XDSUnknownPatientId, as it must for what nobody has",
        ),
    ],
)
def test_what_passes(run: Run, body: str, reason: str) -> None:
    outcome, _ = run(asked(soap(body)))
    assert (outcome.ok, outcome.reason) == (True, reason)


def test_the_first_bad_code_counts(run: Run) -> None:
    outcome, _ = run(asked(soap(queried(FAILURE, errors("XDSUnknownPatientId", "XDSRegistryBusy")))))
    assert outcome.reason == "ITI-18 answered Failure with XDSRegistryBusy; too many requests at the node"


@pytest.mark.parametrize("script", SICK.values())
def test_no_reason_tells_of_a_patient(run: Run, script: Script) -> None:
    outcome, _ = run(asked(script, patient_id="JANE-1^^^&1.2.3&ISO"))
    assert "JANE" not in outcome.reason


def test_the_request(run: Run) -> None:
    _, heard = run(asked(soap(queried(SUCCESS)), host="xds.example:8443", patient_id="O'N1^^^&1.2.3&ISO"))
    lines = heard.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert lines[0] == "POST /xds/registry HTTP/1.1"
    kind = 'Content-Type: application/soap+xml; charset=UTF-8; action="urn:ihe:iti:2007:RegistryStoredQuery"'
    assert {kind, "Host: xds.example:8443"} <= set(lines)
    document = message(heard)
    assert text(document, ADDRESSING, "To") == ["http://xds.example:8443/xds/registry"]
    assert text(document, ADDRESSING, "Action") == ["urn:ihe:iti:2007:RegistryStoredQuery"]
    assert text(document, ADDRESSING, "Address") == ["http://www.w3.org/2005/08/addressing/anonymous"]
    assert text(document, RIM, "Value") == [
        "'O''N1^^^&1.2.3&ISO'",
        "('urn:oasis:names:tc:ebxml-regrep:StatusType:Approved')",
    ]
    (query,) = document.iter(f"{{{RIM}}}AdhocQuery")
    assert query.get("id") == "urn:uuid:14d4debf-8f97-4251-9a74-a90016b0af0d"
    (option,) = document.iter(f"{{{QUERY}}}ResponseOption")
    assert option.get("returnType") == "ObjectRef"


def test_each_request_has_a_message_id_of_its_own(run: Run) -> None:
    found = {text(message(run(asked(soap(queried(SUCCESS))))[1]), ADDRESSING, "MessageID")[0] for _ in range(3)}
    assert len(found) == 3
    assert all(re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", each or "") for each in found)


@pytest.mark.parametrize(
    "content",
    [
        b'<!DOCTYPE a SYSTEM "file:///etc/hostname"><a/>',
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "http://127.0.0.1:9/">]><a>&x;</a>',
        b'<?xml version="1.0" encoding="no-such"?><a/>',
        b"<a>" * 100_000,
        b"&unknown;",
        b"",
        enveloped(queried(SUCCESS))[:-20],
        enveloped(""),
        b"\0" * 5000,
    ],
)
def test_bad_xml_fails_in_one_sentence(run: Run, content: bytes) -> None:
    outcome, _ = run(asked(answering(page(content, "application/soap+xml"))))
    assert not outcome.ok
    assert len(outcome.reason) < 200


@pytest.mark.parametrize(
    "settings",
    [
        {"path": None},
        {"patient_id": "1"},
        {"patient_id": "1^^^&ISO"},
        {"patient_id": "1^^^&1.02&ISO"},
        {"patient_id": "1^^^X&1.2&ISO"},
        {"patient_id": "1^2^^&1.2&ISO"},
        {"patient_id": "1 2^^^&1.2&ISO"},
        {"patient_id": "1^^^&1.2&GUID"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate({**SETTINGS, **settings})


def test_the_path_has_no_default() -> None:
    with pytest.raises(ValidationError, match="path"):
        Params.model_validate({})
