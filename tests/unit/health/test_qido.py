"""What `qido` asks, what it takes, and that nothing of a patient is told."""

from typing import Any

import pytest
from pydantic import ValidationError

from equipoise.health.asking import Outcome
from equipoise.health.checks.qido import CHECK, Params
from tests.unit.health.conftest import Run
from tests.unit.health.fake_peer import Script, probed
from tests.unit.health.peers.http import answering, closing, page, status
from tests.unit.health.peers.qido import DICOM_JSON, SICK, STUDY


async def asked(script: Script, **settings: Any) -> tuple[Outcome, str]:
    outcome, heard = await probed(CHECK, closing(script), **settings)
    return outcome, heard.decode()


@pytest.mark.parametrize(
    ("answer", "settings", "reason"),
    [
        (page(b"[]", DICOM_JSON), {}, "GET /dicom-web/studies?limit=1 answered 200, a list of 0"),
        (
            page(b"\xef\xbb\xbf [{}]", "application/json"),
            {},
            "GET /dicom-web/studies?limit=1 answered 200, a list of 1",
        ),
        (status("204 None"), {}, "GET /dicom-web/studies?limit=1 answered 204"),
        (status("401 No", "Content-Length: 0"), {"status": [200, 401]}, "GET /dicom-web/studies?limit=1 answered 401"),
        (page(b"[]", DICOM_JSON), {"path": "/a/rs/"}, "GET /a/rs/studies?limit=1 answered 200, a list of 0"),
        (page(b"[]", DICOM_JSON), {"path": "/"}, "GET /studies?limit=1 answered 200, a list of 0"),
        (
            page(b"[" + b",".join([STUDY] * 3) + b"]", DICOM_JSON),
            {},
            "GET /dicom-web/studies?limit=1 answered 200, a list of 3",
        ),
        (
            page(b"[" + b",\n".join([STUDY] * 20_000) + b"]", DICOM_JSON),
            {},
            "GET /dicom-web/studies?limit=1 answered 200, a list of more than 1 MiB; the node does not heed limit=1",
        ),
    ],
)
def test_what_passes(run: Run, answer: bytes, settings: dict[str, Any], reason: str) -> None:
    outcome, _ = run(asked(answering(answer), **settings))
    assert (outcome.ok, outcome.reason) == (True, reason)


@pytest.mark.parametrize("content", [b"<html>" + b"x" * 2_000_000, b"[" * 2_000_000, b'["' + b"x" * 2_000_000])
def test_a_long_answer_that_begins_otherwise_fails(run: Run, content: bytes) -> None:
    outcome, _ = run(asked(answering(page(content))))
    assert not outcome.ok
    assert "not a list in DICOM JSON" in outcome.reason


def test_an_answer_that_breaks_off_fails_without_a_word_of_it(run: Run) -> None:
    cut = status("200 OK", "Content-Length: 900") + b"[" + STUDY
    outcome, _ = run(asked(answering(cut)))
    assert outcome.reason.startswith("the HTTP answer broke off after ")
    assert "JANE" not in outcome.reason


@pytest.mark.parametrize("script", SICK.values())
def test_no_reason_tells_of_a_patient(run: Run, script: Script) -> None:
    outcome, _ = run(asked(script))
    assert "JANE" not in outcome.reason


def test_the_request(run: Run) -> None:
    _, heard = run(asked(answering(page(b"[]")), host="pacs.example"))
    lines = heard.split("\r\n")
    assert lines[0] == "GET /dicom-web/studies?limit=1 HTTP/1.1"
    assert {"Host: pacs.example", "Accept: application/dicom+json", "Accept-Encoding: identity"} <= set(lines)


def test_a_path_is_kept_without_its_last_slash() -> None:
    assert [Params.model_validate({"path": path}).path for path in ("/", "/a/", "/a/b")] == ["/", "/a", "/a/b"]


@pytest.mark.parametrize("settings", [{"path": "x"}, {"path": "/a?b"}, {"path": "/a b"}, {"status": []}, {"limit": 5}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate(settings)
