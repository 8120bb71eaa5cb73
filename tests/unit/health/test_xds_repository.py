"""What `xds_repository` asks, and which forms of an answer it reads."""

from email import message_from_bytes
from typing import Any

import pytest
from pydantic import ValidationError

from equipoise.health.asking import Outcome
from equipoise.health.checks.xds_repository import CHECK, Params
from tests.unit.health.conftest import Run
from tests.unit.health.fake_peer import Script, probed
from tests.unit.health.peers.http import answering, page
from tests.unit.health.peers.xds_registry import FAILURE, SUCCESS, errors, soap
from tests.unit.health.peers.xds_repository import MTOM, SETTINGS, packed, retrieved

NOBODY_HAS = retrieved(FAILURE, errors("XDSDocumentUniqueIdError"))


async def asked(script: Script, **settings: Any) -> tuple[Outcome, bytes]:
    return await probed(CHECK, script, **{**SETTINGS, **settings})


@pytest.mark.parametrize(
    "script",
    [
        soap(NOBODY_HAS),
        answering(page(packed(NOBODY_HAS), MTOM)),
        answering(page(packed(NOBODY_HAS), MTOM.replace('"<0.7@example.org>"', '"0.7@example.org"'))),
        answering(page(packed(NOBODY_HAS), MTOM.replace(' start="<0.7@example.org>";', ""))),
        # Frameworks in Java nest the quotation marks.
        answering(
            page(
                packed(NOBODY_HAS),
                'multipart/related;type="application/xop+xml";start-info="application/soap+xml;'
                'action="urn:ihe:iti:2007:RetrieveDocumentSet"";boundary="MIMEBoundary_7"',
            )
        ),
        answering(page(packed(retrieved(SUCCESS), b"DOE^JANE" * 500_000), MTOM)),
    ],
)
def test_what_an_answer_may_look_like(run: Run, script: Script) -> None:
    outcome, _ = run(asked(script))
    assert outcome.ok, outcome.reason


def test_the_root_part_need_not_be_the_first(run: Run) -> None:
    first, second = (
        packed(NOBODY_HAS, b"<not>xml").removesuffix(b"--MIMEBoundary_7--\r\n").split(b"--MIMEBoundary_7\r\n")[1:]
    )
    turned = b"".join(b"--MIMEBoundary_7\r\n" + part for part in (second, first)) + b"--MIMEBoundary_7--\r\n"
    outcome, _ = run(asked(answering(page(turned, MTOM))))
    assert outcome.reason == "ITI-43 answered Failure with XDSDocumentUniqueIdError, as it must for what nobody has"


def test_the_request_is_mtom_as_the_standard_library_reads_it(run: Run) -> None:
    _, heard = run(asked(soap(NOBODY_HAS), document="1.2.3^<&9>"))
    line, _, rest = heard.partition(b"\r\n")
    assert line == b"POST /xds/repository HTTP/1.1"
    received: Any = message_from_bytes(rest)
    assert received.get_content_type() == "multipart/related"
    assert received.get_param("type") == "application/xop+xml"
    assert received.get_param("start-info") == "application/soap+xml"
    assert received.get_param("action") == "urn:ihe:iti:2007:RetrieveDocumentSet"
    (root,) = received.get_payload()
    assert root["Content-ID"] == received.get_param("start")
    assert root.get_content_type() == "application/xop+xml"
    said = root.get_payload(decode=True).decode()
    assert "<x:RepositoryUniqueId>1.2.3.9</x:RepositoryUniqueId>" in said
    assert "<x:DocumentUniqueId>1.2.3^&lt;&amp;9&gt;</x:DocumentUniqueId>" in said
    assert int(received["Content-Length"]) == len(heard.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("settings", [{"repository": "x"}, {"repository": ""}, {"document": "a b"}, {"document": ""}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate({**SETTINGS, **settings})


@pytest.mark.parametrize("missing", ["path", "repository"])
def test_what_has_no_default(missing: str) -> None:
    with pytest.raises(ValidationError, match=missing):
        Params.model_validate({key: value for key, value in SETTINGS.items() if key != missing})
