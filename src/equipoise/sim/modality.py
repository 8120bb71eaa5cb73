"""A simulated modality: it sends each series in an association of its own, and tries again what was not acknowledged.

What was acknowledged is never sent again: a second copy would hide that the first one was lost.
Source: DICOM PS3.4, annex B; what a sender does about a failed job as in PS3.2, annex B.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_context

from equipoise.sim.ledger import Ledger
from equipoise.sim.peers import AssociationError, Peer, open_association
from equipoise.sim.studies import Instance, Kind, Study, make_study

_SUCCESS = 0x0000


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a device works; a real one pauses too."""

    between_objects_s: float = 0.04
    between_studies_s: float = 0.3
    before_retry_s: float = 0.5
    attempts: int = 20


class Modality:
    """One sending device; `run` it in a thread."""

    def __init__(
        self,
        ae_title: str,
        kind: Kind,
        peer: Peer,
        *,
        rng: Random,
        ledger: Ledger,
        stop: threading.Event,
        pace: Pace,
        source: str | None = None,
    ) -> None:
        self._ae_title = ae_title
        self._kind = kind
        self._peer = peer
        self._rng = rng
        self._ledger = ledger
        self._stop = stop
        self._pace = pace
        self._source = source

    def run(self) -> None:
        """Send study after study until told to stop."""
        for _ in count():
            self.send_study(make_study(self._rng, self._kind, patient_number=self._rng.randrange(1, 10_000)))
            if self._stop.wait(self._pace.between_studies_s):
                return

    def send_study(self, study: Study) -> None:
        """Send one study, series by series, and offer it to the readers once it is all acknowledged."""
        for series in study.series:
            self.send_series(series)
        self._ledger.finished(study)

    def send_series(self, series: Sequence[Instance]) -> list[Instance]:
        """Send one series, in as many associations as it takes; return what was never acknowledged."""
        waiting = list(series)
        for attempt in range(self._pace.attempts):
            if self._stop.is_set():
                return waiting
            if attempt:
                self._ledger.retried()
            waiting = self._attempt(waiting)
            if not waiting:
                return []
            self._stop.wait(self._pace.before_retry_s)
        self._ledger.gave_up(len(waiting))
        return waiting

    def _attempt(self, waiting: list[Instance]) -> list[Instance]:
        """Send in one association and return what it did not get through."""
        left = list(waiting)
        sop_classes = sorted({instance.sop_class_uid for instance in waiting})
        try:
            contexts = [build_context(uid, [ExplicitVRLittleEndian]) for uid in sop_classes]
            association = open_association(self._peer, self._ae_title, contexts, source=self._source)
            self._ledger.association()
            self._store_all(association, left)
        except AssociationError as error:
            self._ledger.failed(str(error))
        return left

    def _store_all(self, association: Any, left: list[Instance]) -> None:
        """Store one after the other; take out of `left` what was acknowledged.  Raises: AssociationError."""
        while left and not self._stop.is_set():
            instance = left[0]
            self._ledger.sent()
            _store(association, instance)
            self._ledger.acknowledged(left.pop(0))
            self._stop.wait(self._pace.between_objects_s)
        association.release()


def _store(association: Any, instance: Instance) -> None:
    if not association.is_established:
        raise AssociationError("ended by the other side between two objects")
    try:
        answer = association.send_c_store(instance.dataset)
    except (RuntimeError, ValueError) as error:  # pynetdicom: no association any more; no context for this object
        association.abort()
        raise AssociationError(f"not sent: {error}") from None
    status = answer.get("Status")
    if status is None:
        association.abort()
        raise AssociationError("aborted or closed before a C-STORE was answered")
    if status != _SUCCESS:
        association.abort()  # PS3.2 annex B: the example modality aborts and retries the job
        raise AssociationError(f"C-STORE answered with status {status:04X}")
