from dataclasses import replace

import pytest

from equipoise.engines.gateway.admission import refusal
from equipoise.proto.dicom.association import AssociateRequest, parse_request
from equipoise.proto.dicom.pdu import REJECT_CALLED_AE, REJECT_CALLING_AE, REJECT_NO_REASON, REJECT_VERSION
from tests.playbook.scene import SETTINGS
from tests.unit.proto.captures import ECHOSCU_RQ, HEADER_BYTES

REQUEST = parse_request(ECHOSCU_RQ[HEADER_BYTES:])


def called(title: str, *patterns: str) -> bool:
    settings = replace(SETTINGS, called_ae_allow=patterns)
    return refusal(replace(REQUEST, called_ae=title), settings, None) is None


@pytest.mark.parametrize(
    ("title", "patterns", "allowed"),
    [
        ("PACS", (), True),
        ("PACS", ("PACS",), True),
        ("PACS", ("RIS", "PACS"), True),
        ("PACS2", ("PACS",), False),
        ("XPACS", ("PACS",), False),
        ("pacs", ("PACS",), False),  # titles are case-sensitive: PS3.5 section 6.2, AE
        ("PACS2", ("PACS?",), True),
        ("PACS", ("PACS?",), False),
        ("PACS_WEST", ("PACS*",), True),
        ("PACS", ("P.CS",), False),
        ("A", ("[A-Z]",), False),
        ("A+B(1)", ("A+B(1)",), True),
        ("ABC", ("A|ABC",), False),
        ("A", ("A", "B|"), True),
        ("", (), False),
    ],
)
def test_only_stars_and_question_marks_are_special(title: str, patterns: tuple[str, ...], allowed: bool) -> None:
    assert called(title, *patterns) is allowed


@pytest.mark.parametrize(
    ("request_", "settings", "source", "reject"),
    [
        (REQUEST, replace(SETTINGS, called_ae_allow=("X",)), "source", REJECT_NO_REASON),
        (replace(REQUEST, protocol_version=2), replace(SETTINGS, called_ae_allow=("X",)), None, REJECT_VERSION),
        (REQUEST, replace(SETTINGS, called_ae_allow=("X",), calling_ae_allow=("Y",)), None, REJECT_CALLED_AE),
        (REQUEST, replace(SETTINGS, calling_ae_allow=("Y",)), None, REJECT_CALLING_AE),
    ],
)
def test_the_source_comes_first_then_the_version_then_the_titles(
    request_: AssociateRequest, settings: object, source: str | None, reject: object
) -> None:
    assert isinstance(settings, type(SETTINGS))
    refused = refusal(request_, settings, source)
    assert refused is not None
    assert refused[0] == reject
    assert refused[1]
