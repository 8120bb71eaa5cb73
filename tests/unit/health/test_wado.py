"""What `wado` asks, and of how much of the answer it judges."""

from typing import Any

import pytest
from pydantic import ValidationError

from equipoise.health.asking import Outcome
from equipoise.health.checks.wado import CHECK, Params
from tests.unit.health.conftest import Run
from tests.unit.health.fake_peer import Script, probed
from tests.unit.health.peers.http import answering, page, status
from tests.unit.health.peers.wado import FILE, RELATED, SETTINGS, related


async def asked(script: Script, **settings: Any) -> tuple[Outcome, str]:
    outcome, heard = await probed(CHECK, script, **{**SETTINGS, **settings})
    return outcome, heard.decode()


def test_the_request(run: Run) -> None:
    outcome, heard = run(asked(answering(page(related(FILE), RELATED)), path="/rs"))
    assert outcome.reason == "GET of instance 1.2.3.4.5 answered 200 with a DICOM file"
    lines = heard.split("\r\n")
    assert lines[0] == "GET /rs/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.5 HTTP/1.1"
    assert 'Accept: multipart/related; type="application/dicom"; transfer-syntax=*' in lines


@pytest.mark.parametrize(
    "body",
    [
        related(FILE),
        b"\r\n" + related(FILE),
        b"for old readers\r\n" + related(FILE),
        related(FILE).replace(b"--cut\r\n", b"--cut \t\r\n", 1),
        related(FILE + b"x" * 5_000_000),
    ],
)
def test_what_a_multipart_may_look_like(run: Run, body: bytes) -> None:
    outcome, _ = run(asked(answering(page(body, RELATED))))
    assert outcome.ok, outcome.reason


def test_the_beginning_is_enough(run: Run) -> None:
    """Of a large object that comes slowly, or never to its end."""
    beginning = status("200 OK", f"Content-Type: {RELATED}", "Content-Length: 900000000") + related(FILE)[:400]
    outcome, _ = run(asked(answering(beginning + bytes(20_000))))
    assert outcome.ok, outcome.reason


@pytest.mark.parametrize("uid", ["1.02.3", "1..2", "1", "3.1", "1.2.", "1." + "2" * 63, "1.2/3", "", "1.2\n"])
def test_what_is_no_uid_is_refused(uid: str) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate({**SETTINGS, "series": uid})


@pytest.mark.parametrize("uid", ["0.0", "1.2.840.10008.1.1", "2.25.0", "1." + "2" * 62])
def test_what_is_a_uid_is_taken(uid: str) -> None:
    assert Params.model_validate({**SETTINGS, "study": uid}).study == uid


def test_the_object_must_be_named() -> None:
    with pytest.raises(ValidationError, match="instance"):
        Params.model_validate({"study": "1.2", "series": "1.3"})
