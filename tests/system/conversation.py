"""What clients of every make are asked in the tests with real peers, and the studies that they exchange.

Each implementation has a file of its own with a `Client`; it overrides what that implementation can.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.uid import generate_uid

from tests.system.files import named

CALLED = "PACS"  # the one title of the balancer's address and of every archive behind it


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM files: a certificate with its key, and the authority that the other side's certificate must be from."""

    cert: Path
    key: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class Line:
    """Where a client calls: a port of 127.0.0.1, with TLS when it has credentials for that."""

    port: int
    tls: Credentials | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """A study of one object."""

    path: Path
    study_uid: str
    instance_uid: str
    patient_id: str


def new_study(folder: Path, patient_id: str, original: str = "CT_small.dcm") -> Study:
    """Write a real object under new names, so that it is in no archive yet."""
    (file,) = named(original)
    dataset = dcmread(file.path)
    dataset.PatientID = patient_id
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = (generate_uid() for _ in range(3))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path)
    return Study(path, str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID), patient_id)


class Client:
    """An implementation as a client.  Every method ends its association, and fails when the answer is not success."""

    def echo(self, line: Line) -> None:
        """C-ECHO."""
        raise NotImplementedError

    def store(self, line: Line, study: Study) -> None:
        """C-STORE."""
        raise NotImplementedError

    def find(self, line: Line, patient_id: str) -> list[str]:
        """C-FIND at the study root; return the studies' UIDs."""
        raise NotImplementedError

    def move(self, line: Line, study_uid: str, destination: str) -> None:
        """C-MOVE of a study."""
        raise NotImplementedError

    def get(self, line: Line, study_uid: str, folder: Path) -> None:
        """C-GET of a study, into a folder that is there."""
        raise NotImplementedError

    def worklist(self, line: Line, station: str) -> list[str]:
        """C-FIND of the worklist; return the accession numbers."""
        raise NotImplementedError

    def create(self, line: Line, instance_uid: str, values: Mapping[str, Any]) -> None:
        """N-CREATE of a performed procedure step."""
        raise NotImplementedError

    def set(self, line: Line, instance_uid: str, values: Mapping[str, Any]) -> None:
        """N-SET of a performed procedure step."""
        raise NotImplementedError
