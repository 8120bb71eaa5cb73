"""How `dicom_echo` leaves its peer, whatever the peer does."""

import pytest

from equipoise.base.clock import SystemClock
from equipoise.health.asking import Outcome
from equipoise.health.checks.dicom_echo import CHECK, Params
from equipoise.health.runner import probe_once
from tests.unit.health.conftest import Run
from tests.unit.health.fake_peer import Script, says_nothing, serving, speaks_http
from tests.unit.health.peers.dicom_echo import (
    abortion,
    answering,
    data,
    echo_response,
    rejection,
    saying,
)

RELEASE_RQ = bytes([5, 0, 0, 0, 0, 4, 0, 0, 0, 0])
ABORT_BY_USER = bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0])
ABORT_UNRECOGNIZED_PDU = bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, 1])
ABORT_UNEXPECTED_PDU = bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, 2])
ABORT_INVALID_VALUE = bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, 6])


def heard_by(run: Run, script: Script, timeout_s: float = 1.0, params: Params | None = None) -> tuple[Outcome, bytes]:
    asked = params or Params(timeout=timeout_s)

    async def talk() -> tuple[Outcome, bytes]:
        async with serving(script) as peer:
            outcome = await probe_once(CHECK, asked, "127.0.0.1", peer.port, SystemClock())
            await peer.left_alone()
            return outcome, bytes(peer.heard[0].data)

    result: tuple[Outcome, bytes] = run(talk())
    return result


def kinds(heard: bytes) -> list[int]:
    found = []
    while heard:
        found.append(heard[0])
        heard = heard[6 + int.from_bytes(heard[2:6], "big") :]
    return found


def test_a_whole_conversation_is_request_echo_and_release(run: Run) -> None:
    outcome, heard = heard_by(run, answering())
    assert outcome == Outcome(True, "C-ECHO answered 0000", outcome.at_wall_s, outcome.took_ms)
    assert kinds(heard) == [1, 4, 5]


def test_the_titles_of_the_settings_are_sent(run: Run) -> None:
    _, heard = heard_by(run, answering(), params=Params(calling_ae="LB1", called_ae="PACS"))
    assert heard[10:42] == b"PACS".ljust(16) + b"LB1".ljust(16)


@pytest.mark.parametrize(
    ("script", "farewell"),
    [
        (says_nothing, ABORT_BY_USER),
        (answering(echo=b""), ABORT_BY_USER),
        (answering(echo=data(echo_response(0))[:20]), ABORT_BY_USER),
        (speaks_http, ABORT_UNRECOGNIZED_PDU),
        (saying(data(echo_response(0))), ABORT_UNEXPECTED_PDU),
        (saying(bytes([2, 0, 0, 0, 0, 3, 1, 2, 3])), ABORT_INVALID_VALUE),
        (answering(echo=data(b"nonsense, not a command")), ABORT_INVALID_VALUE),
        (answering(accept_result=3), RELEASE_RQ),
        (answering(echo=data(echo_response(0x0110))), RELEASE_RQ),
    ],
)
def test_a_failed_check_ends_the_association_in_order(run: Run, script: Script, farewell: bytes) -> None:
    outcome, heard = heard_by(run, script)
    assert not outcome.ok
    assert heard.endswith(farewell), heard[-20:]


@pytest.mark.parametrize("answer", [rejection(1, 1, 7), abortion(2, 1)])
def test_nothing_is_sent_to_a_peer_that_ended_the_association(run: Run, answer: bytes) -> None:
    _, heard = heard_by(run, saying(answer))
    assert kinds(heard) == [1]


@pytest.mark.parametrize("release", [abortion(0, 0), b"nonsense"])
def test_a_peer_that_answered_the_echo_and_not_the_release_has_passed(run: Run, release: bytes) -> None:
    outcome, _ = heard_by(run, answering(release=release))
    assert outcome.ok


def test_a_command_set_in_several_fragments_and_pdus_is_one_answer(run: Run) -> None:
    response = echo_response(0)
    cut = data(response[:10], control=1) + data(response[10:12], control=1) + data(response[12:], control=3)
    outcome, _ = heard_by(run, answering(echo=cut))
    assert outcome.ok, outcome.reason


def test_a_peer_that_is_slow_to_answer_is_told_of_by_how_far_it_came(run: Run) -> None:
    outcome, _ = heard_by(run, answering(echo=b""))
    assert outcome.reason.startswith("connected, but no whole answer within 1 s, only ")
    outcome, _ = heard_by(run, says_nothing)
    assert outcome.reason == "connected, but no answer within 1 s"
