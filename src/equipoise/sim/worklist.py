"""Modality worklist: what a simulated department has scheduled, and a modality that asks for it.

Every station has the same few steps every day, so that an answer can be compared.  Leaves out all matching but by
station, and sequences within the request.
Source: DICOM PS3.4, K.6 (worklist information model) and table K.6-1 (keys).
"""

import threading
from random import Random
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_context

from equipoise.sim.ledger import Ledger
from equipoise.sim.peers import AssociationError, Peer, open_association
from equipoise.sim.reader import answers

WORKLIST = "1.2.840.10008.5.1.4.31"
STEPS_EACH = 3
_STATIONS = ("CT1", "CT2", "MR1", "MR2", "CR1")


def scheduled(request: Any) -> list[Any]:
    """Return the worklist items that a C-FIND identifier asks for: of the station that it names, of all otherwise."""
    steps = request.get("ScheduledProcedureStepSequence") or [Dataset()]
    wanted = str(steps[0].get("ScheduledStationAETitle") or "").strip()
    stations = [wanted] if wanted else list(_STATIONS)
    return [_item(station, number) for station in stations for number in range(1, STEPS_EACH + 1)]


def _item(station: str, number: int) -> Any:
    step = Dataset()
    step.Modality, step.ScheduledStationAETitle = station[:2], station
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = "20310304", f"{7 + number:02}0000"
    step.ScheduledProcedureStepID = f"SPS-{station}-{number}"
    step.ScheduledProcedureStepDescription = "SIMULATED"
    item = Dataset()
    item.AccessionNumber = f"ACC-{station}-{number}"
    item.PatientName, item.PatientID = f"SIM^{number:04}", f"SIM-{station}-{number}"
    item.StudyInstanceUID = f"2.25.{Random(f'{station} {number}').getrandbits(122)}"  # noqa: S311 invented, not secret
    item.RequestedProcedureID = f"RP-{station}-{number}"
    item.ScheduledProcedureStepSequence = [step]
    return item


class WorklistAsker:
    """A modality that asks for its worklist; `run` it in a thread."""

    def __init__(
        self,
        ae_title: str,
        peer: Peer,
        *,
        ledger: Ledger,
        stop: threading.Event,
        pause_s: float,
        source: str | None = None,
    ) -> None:
        self._ae_title = ae_title
        self._peer = peer
        self._ledger = ledger
        self._stop = stop
        self._pause_s = pause_s
        self._source = source

    def run(self) -> None:
        """Ask again and again until told to stop."""
        while not self._stop.wait(self._pause_s):
            self.ask()

    def ask(self) -> None:
        """Ask once; what failed, or was not the station's list, goes into the ledger."""
        try:
            items = self._query()
        except AssociationError as error:
            self._ledger.failed(str(error))
            return
        expected = {str(item.AccessionNumber) for item in scheduled(self._request())}
        found = {str(item.AccessionNumber) for item in items}
        self._ledger.worklist([f"worklist of {self._ae_title}: {accession}" for accession in sorted(expected ^ found)])

    def _query(self) -> list[Any]:
        contexts = [build_context(WORKLIST, [ExplicitVRLittleEndian])]
        association = open_association(self._peer, self._ae_title, contexts, source=self._source)
        self._ledger.association()
        items = answers(association, "C-FIND", association.send_c_find, self._request(), WORKLIST)
        association.release()
        return items

    def _request(self) -> Any:
        step, request = Dataset(), Dataset()
        step.ScheduledStationAETitle, step.ScheduledProcedureStepStartDate, step.Modality = self._ae_title, "", ""
        request.AccessionNumber, request.PatientName, request.PatientID = "", "", ""
        request.ScheduledProcedureStepSequence = [step]
        return request
