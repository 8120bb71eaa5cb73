"""pynetdicom as a client of everything; TLS by Python's own ssl module."""

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import build_context, build_role, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from equipoise.sim.peers import heed
from tests.system.conversation import CALLED, Client, Credentials, Line, Study
from tests.system.files import EXPLICIT
from tests.system.pynet import entity

_PENDING = (0xFF00, 0xFF01)


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """Return what a client needs: it checks the server's name, and shows a certificate of its own."""
    context = ssl.create_default_context(cafile=credentials.ca)
    context.load_cert_chain(credentials.cert, credentials.key)
    return context


def server_context(credentials: Credentials | None) -> ssl.SSLContext | None:
    """Return what a server needs that takes only clients with a certificate; None for plain."""
    if credentials is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=credentials.ca)
    context.load_cert_chain(credentials.cert, credentials.key)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class PynetdicomClient(Client):
    """One association for each method."""

    def __init__(self, calling: str = "PYNETDICOM") -> None:
        self._calling = calling

    def echo(self, line: Line) -> None:
        with self.associate(line, [build_context(Verification)]) as opened:
            assert opened.send_c_echo().Status == 0x0000

    def store(self, line: Line, study: Study) -> None:
        with self.associate(line, [build_context(CTImageStorage, EXPLICIT)]) as opened:
            assert opened.send_c_store(study.path).Status == 0x0000

    def find(self, line: Line, patient_id: str) -> list[str]:
        asked = _dataset({"QueryRetrieveLevel": "STUDY", "PatientID": patient_id, "StudyInstanceUID": ""})
        found = self._find(line, StudyRootQueryRetrieveInformationModelFind, asked)
        return [str(each.StudyInstanceUID) for each in found]

    def move(self, line: Line, study_uid: str, destination: str) -> None:
        model = StudyRootQueryRetrieveInformationModelMove
        with self.associate(line, [build_context(model)]) as opened:
            *_, (last, _) = opened.send_c_move(_study(study_uid), destination, model)
            assert (last.Status, last.NumberOfCompletedSuboperations) == (0x0000, 1)

    def get(self, line: Line, study_uid: str, folder: Path) -> None:
        def keep(event: Any) -> int:
            event.dataset.file_meta = event.file_meta
            event.dataset.save_as(folder / str(event.request.AffectedSOPInstanceUID), enforce_file_format=True)
            return 0x0000

        model = StudyRootQueryRetrieveInformationModelGet
        contexts = [build_context(model), build_context(CTImageStorage, EXPLICIT)]
        roles = [build_role(CTImageStorage, scp_role=True)]
        with self.associate(line, contexts, roles, [(evt.EVT_C_STORE, keep)]) as opened:
            *_, (last, _) = opened.send_c_get(_study(study_uid), model)
            assert (last.Status, last.NumberOfCompletedSuboperations) == (0x0000, 1)

    def worklist(self, line: Line, station: str) -> list[str]:
        asked = _dataset(
            {"AccessionNumber": "", "ScheduledProcedureStepSequence": [{"ScheduledStationAETitle": station}]}
        )
        return [str(each.AccessionNumber) for each in self._find(line, ModalityWorklistInformationFind, asked)]

    def create(self, line: Line, instance_uid: str, values: Mapping[str, Any]) -> None:
        with self.associate(line, [build_context(ModalityPerformedProcedureStep)]) as opened:
            answer, _ = opened.send_n_create(_dataset(values), ModalityPerformedProcedureStep, instance_uid)
            assert answer.Status == 0x0000, answer.Status

    def set(self, line: Line, instance_uid: str, values: Mapping[str, Any]) -> None:
        with self.associate(line, [build_context(ModalityPerformedProcedureStep)]) as opened:
            answer, _ = opened.send_n_set(_dataset(values), ModalityPerformedProcedureStep, instance_uid)
            assert answer.Status == 0x0000, answer.Status

    def commit(self, line: Line, instance_uids: Sequence[str]) -> str:
        """N-ACTION of storage commitment for CT images; return the transaction's UID, which the report will have."""
        transaction = generate_uid()
        objects = [{"ReferencedSOPClassUID": CTImageStorage, "ReferencedSOPInstanceUID": uid} for uid in instance_uids]
        asked = _dataset({"TransactionUID": transaction, "ReferencedSOPSequence": objects})
        model = StorageCommitmentPushModel
        with self.associate(line, [build_context(model)]) as opened:
            answer, _ = opened.send_n_action(asked, 1, model, StorageCommitmentPushModelInstance)
            assert answer.Status == 0x0000, answer.Status
        return str(transaction)

    def _find(self, line: Line, model: str, asked: Dataset) -> list[Dataset]:
        with self.associate(line, [build_context(model)]) as opened:
            answers = list(opened.send_c_find(asked, model))
        *pending, (last, _) = answers
        assert last.Status == 0x0000
        assert all(status.Status in _PENDING for status, _ in pending)
        return [identifier for _, identifier in pending]

    @contextmanager
    def associate(
        self, line: Line, contexts: list[Any], items: list[Any] | None = None, handlers: list[Any] | None = None
    ) -> Iterator[Any]:
        """Hold an association open, and release it."""
        opened = entity(self._calling).associate(
            "127.0.0.1",
            line.port,
            contexts=contexts,
            ae_title=CALLED,
            ext_neg=items or [],
            evt_handlers=handlers or [],
            tls_args=(client_context(line.tls), "127.0.0.1") if line.tls else None,
        )
        assert opened.is_established
        heed(opened)
        yield opened
        opened.release()
        assert opened.is_released


def _study(study_uid: str) -> Dataset:
    return _dataset({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study_uid})


def _dataset(values: Mapping[str, Any]) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, [_dataset(item) for item in value] if isinstance(value, list) else value)
    return dataset
