"""Several checks of one node: in order, each with its time, and the first failure is the answer."""

from typing import Any

import pytest
from pydantic import ValidationError

from equipoise.base.clock import SystemClock
from equipoise.config.parts import Part
from equipoise.health.asking import Outcome, ask
from equipoise.health.catalogue import checks
from equipoise.health.checks.all_of import Params
from equipoise.health.question import Question
from tests.unit.health.conftest import Run
from tests.unit.health.fake_peer import says_nothing, serving
from tests.unit.health.peers import dicom_echo, http


def part(check: str, **settings: Any) -> Part:
    return Part(check, checks()[check].params.model_validate(settings))


async def seen(port: int, *parts: Part, timeout_s: float = 3) -> Outcome:
    question = Question.by_hand("all_of", Params(checks=parts, timeout=timeout_s), "127.0.0.1", port)
    return await ask(question, checks(), SystemClock())


def test_passes_when_each_passes_and_says_each(run: Run) -> None:
    async def body() -> tuple[Outcome, int, int]:
        async with serving(dicom_echo.HEALTHY) as pacs, serving(http.HEALTHY) as web:
            outcome = await seen(pacs.port, part("tcp"), part("dicom_echo"), part("http", port=web.port))
            return outcome, len(pacs.heard), len(web.heard)

    outcome, of_pacs, of_web = run(body())
    assert (outcome.ok, outcome.reason) == (
        True,
        "tcp: connected; dicom_echo: C-ECHO answered 0000; http: HEAD / answered 200",
    )
    assert (of_pacs, of_web) == (2, 1)


def test_the_first_failure_is_the_answer_and_the_rest_is_not_asked(run: Run) -> None:
    async def body() -> tuple[Outcome, int]:
        async with serving(dicom_echo.saying(dicom_echo.rejection(2, 3, 1))) as pacs, serving(http.HEALTHY) as web:
            outcome = await seen(pacs.port, part("dicom_echo"), part("http", port=web.port))
            return outcome, len(web.heard)

    outcome, of_web = run(body())
    assert outcome.reason.startswith("dicom_echo: rejected (2,3,1): transient")
    assert (outcome.ok, of_web) == (False, 0)


def test_each_has_its_own_time_within_that_of_the_whole(run: Run) -> None:
    async def body() -> tuple[Outcome, Outcome]:
        async with serving(says_nothing) as peer:
            own = await seen(peer.port, part("dicom_echo", timeout="200ms"))
            whole = await seen(peer.port, part("tcp"), part("dicom_echo", timeout="9s"), timeout_s=0.3)
            return own, whole

    own, whole = run(body())
    assert own.reason == "dicom_echo: connected, but no answer within 0.2 s"
    assert whole.reason.startswith("dicom_echo: connected, but no answer within 0.")
    assert whole.took_ms < 3000  # of those 9 s that the part has


def test_a_script_is_one_of_them(run: Run) -> None:
    outcome = run(seen(104, part("script", program="/bin/echo"), part("script", program="/bin/false")))
    assert outcome.reason == "script: /bin/false ended with 1, 0 is up"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{"check": "all_of", "checks": []}], "all_of within all_of"),
        ([{"check": "tcp", "interval": "5s"}], "'interval' of tcp belongs to all_of itself"),
        ([], "at least 1"),
    ],
)
def test_what_it_does_not_take(entries: list[Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Params.model_validate({"checks": entries})
