"""What `dicom_find` sends, and how it stops a node that answers with matches."""

import io
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import UID

from equipoise.base.clock import SystemClock
from equipoise.health.asking import Outcome
from equipoise.health.checks.dicom_find import CHECK, Params
from equipoise.health.runner import probe_once
from equipoise.proto.dicom.dimse import parse_command
from equipoise.proto.dicom.find import encode_cancel_request
from tests.unit.health.conftest import Run
from tests.unit.health.fake_peer import Script, serving
from tests.unit.health.peers.dicom_echo import answering, data
from tests.unit.health.peers.dicom_find import CANCELLED, HEALTHY, find_response, match

ABORT, RELEASE = 7, 5


def heard_by(run: Run, script: Script, **settings: Any) -> tuple[Outcome, list[bytes]]:
    async def talk() -> tuple[Outcome, bytes]:
        async with serving(script) as peer:
            params = Params.model_validate({"timeout": 2.0, **settings})
            outcome = await probe_once(CHECK, params, "127.0.0.1", peer.port, SystemClock())
            await peer.left_alone()
            return outcome, bytes(peer.heard[0].data)

    outcome, heard = run(talk())
    return outcome, list(_pdus(heard))


def _pdus(heard: bytes) -> Any:
    while heard:
        end = 6 + int.from_bytes(heard[2:6], "big")
        yield heard[:end]
        heard = heard[end:]


def dataset(pdu: bytes) -> Any:
    """Read a data set as pydicom does: Implicit VR Little Endian."""
    return dcmread(io.BytesIO(pdu[12:]), force=True)


def test_asks_for_a_study_that_no_one_has(run: Run) -> None:
    outcome, (_, command, identifier, release) = heard_by(run, HEALTHY)
    assert (outcome.ok, outcome.reason) == (True, "C-FIND (study) answered 0000, nothing found, as it must be")
    read = parse_command(command[12:])
    assert (read.command, read.sop_class, read.has_data_set) == ("C-FIND", "1.2.840.10008.5.1.4.1.2.2.1", True)
    assert (command[11], identifier[11]) == (3, 2)  # the last fragment of a command set, and of a data set
    asked = dataset(identifier)
    assert (asked.QueryRetrieveLevel, UID(asked.StudyInstanceUID).is_valid) == ("STUDY", True)
    assert asked.StudyInstanceUID.startswith("2.25.")
    assert len(asked) == 2
    assert release[0] == RELEASE


def test_asks_a_worklist_for_an_order_that_no_one_has(run: Run) -> None:
    outcome, (_, command, identifier, _) = heard_by(run, HEALTHY, model="worklist")
    assert outcome.ok
    assert parse_command(command[12:]).sop_class == "1.2.840.10008.5.1.4.31"
    asked = dataset(identifier)
    assert asked.AccessionNumber == "EQUIPOISE-PROBE"
    assert asked.ScheduledProcedureStepSequence[0].ScheduledStationAETitle == "EQUIPOISE-PROBE"
    assert len(asked) == 2


def test_a_few_matches_pass_and_are_said(run: Run) -> None:
    outcome, pdus = heard_by(run, answering(echo=match() * 3 + data(find_response(0))))
    assert (outcome.ok, outcome.reason) == (
        True,
        "C-FIND (study) answered 0000, but 3 matches for a key that nothing has",
    )
    assert [pdu[0] for pdu in pdus] == [1, 4, 4, 5]


@pytest.mark.parametrize("end", [0, CANCELLED])
def test_a_node_that_ignores_the_key_is_cancelled(run: Run, end: int) -> None:
    outcome, pdus = heard_by(run, answering(echo=match() * 40 + data(find_response(end))))
    assert outcome.ok
    assert outcome.reason == f"C-FIND (study) answered {end:04X}, but 40 matches for a key that nothing has"
    assert pdus[3][12:] == encode_cancel_request(1)
    assert [pdu[0] for pdu in pdus] == [1, 4, 4, 4, 5]


def test_one_that_does_not_stop_fails(run: Run) -> None:
    outcome, pdus = heard_by(run, answering(echo=match() * 1000))
    assert not outcome.ok
    assert [pdu[0] for pdu in pdus][:5] == [1, 4, 4, 4, 5]
