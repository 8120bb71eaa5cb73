"""A simulated viewer: it looks for a study, retrieves it, and compares what arrives with what was sent.

Source: DICOM PS3.4, C.4.1 (C-FIND), C.4.3 (C-GET); PS3.7, D.3.3.4 (role selection, without which C-GET sends nothing).
"""

import threading
from collections.abc import Mapping
from random import Random
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_context, build_role

from equipoise.sim.ledger import Ledger
from equipoise.sim.peers import AssociationError, Peer, open_association
from equipoise.sim.studies import SHAPES, fingerprint

_FIND = "1.2.840.10008.5.1.4.1.2.2.1"  # study root
_GET = "1.2.840.10008.5.1.4.1.2.2.3"
_SUCCESS, _PENDING = 0x0000, (0xFF00, 0xFF01)


class Reader:
    """One viewer; `run` it in a thread."""

    def __init__(
        self,
        ae_title: str,
        peer: Peer,
        *,
        rng: Random,
        ledger: Ledger,
        stop: threading.Event,
        pause_s: float,
        source: str | None = None,
    ) -> None:
        self._ae_title = ae_title
        self._peer = peer
        self._rng = rng
        self._ledger = ledger
        self._stop = stop
        self._pause_s = pause_s
        self._source = source

    def run(self) -> None:
        """Read one study after the other until told to stop."""
        while not self._stop.wait(self._pause_s):
            if (chosen := self._ledger.choose_finished(self._rng)) is not None:
                self.read(*chosen)

    def read(self, study_instance_uid: str, expected: Mapping[str, str]) -> None:
        """Query and retrieve one study; what differs from `expected` goes into the ledger."""
        try:
            found, arrived = self._query_and_get(study_instance_uid)
        except AssociationError as error:
            self._ledger.failed(str(error))
            return
        differences = [f"C-FIND does not list object {uid}" for uid in expected.keys() - found]
        differences += [f"C-FIND lists object {uid}, never sent" for uid in found - expected.keys()]
        self._ledger.compared(len(arrived), differences + _compare(expected, arrived))

    def _query_and_get(self, study_instance_uid: str) -> tuple[set[str], Mapping[str, str]]:
        arrived: dict[str, str] = {}

        def on_store(event: Any) -> int:
            dataset = event.dataset
            arrived[str(dataset.SOPInstanceUID)] = fingerprint(dataset)
            return _SUCCESS

        sop_classes = sorted(shape.sop_class_uid for shape in SHAPES.values())
        contexts = [build_context(uid, [ExplicitVRLittleEndian]) for uid in (_FIND, _GET, *sop_classes)]
        roles = [build_role(uid, scp_role=True) for uid in sop_classes]
        association = open_association(self._peer, self._ae_title, contexts, roles, on_store, source=self._source)
        self._ledger.association()
        found = _find(association, study_instance_uid)
        self._ledger.queried()
        _get(association, study_instance_uid)
        association.release()
        return found, arrived


def _find(association: Any, study_instance_uid: str) -> set[str]:
    request = _request("IMAGE", study_instance_uid)
    request.SOPInstanceUID = ""
    found: set[str] = set()
    for identifier in answers(association, "C-FIND", association.send_c_find, request, _FIND):
        found.add(str(identifier.SOPInstanceUID))
    return found


def _get(association: Any, study_instance_uid: str) -> None:
    request = _request("STUDY", study_instance_uid)
    for _ in answers(association, "C-GET", association.send_c_get, request, _GET):
        pass


def _request(level: str, study_instance_uid: str) -> Any:
    request = Dataset()
    request.QueryRetrieveLevel = level
    request.StudyInstanceUID = study_instance_uid
    return request


def answers(association: Any, command: str, send: Any, request: Any, sop_class_uid: str) -> list[Any]:
    """Return the identifiers of the pending answers.  Raises: AssociationError unless the last one is a success."""
    identifiers: list[Any] = []
    if not association.is_established:
        raise AssociationError(f"ended by the other side before {command}")
    for status, identifier in send(request, sop_class_uid):
        code = status.get("Status")
        if code in _PENDING:
            identifiers.append(identifier)
        elif code != _SUCCESS:
            association.abort()
            outcome = "aborted or closed before it was answered" if code is None else f"answered with status {code:04X}"
            raise AssociationError(f"{command}: {outcome}")
    return identifiers


def _compare(expected: Mapping[str, str], arrived: Mapping[str, str]) -> list[str]:
    missing = [f"C-GET did not give object {uid}" for uid in expected.keys() - arrived.keys()]
    harmed = [f"C-GET gave object {uid} altered" for uid, hashed in arrived.items() if expected.get(uid) != hashed]
    return missing + harmed
