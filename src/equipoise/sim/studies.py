"""Synthetic studies: invented patients, real structure, pixels from a seeded generator.

The same seed gives the same studies, byte for byte.  Nothing here looks like an image: what is tested is transport.
Source: DICOM PS3.3, A.2 (CR), A.3 (CT), A.4 (MR); PS3.5 B.2 (UIDs made from a UUID, below 2.25).
"""

import hashlib
import uuid
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

_PRIVATE_GROUP = 0x0019


class Kind(StrEnum):
    """What takes the images; the value is the code in (0008,0060)."""

    CT = "CT"
    MR = "MR"
    RADIOGRAPHY = "CR"


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the studies of a kind are."""

    sop_class_uid: str
    series: int
    instances: int
    rows: int
    columns: int


SHAPES = {
    Kind.CT: Shape("1.2.840.10008.5.1.4.1.1.2", series=2, instances=8, rows=512, columns=512),
    Kind.MR: Shape("1.2.840.10008.5.1.4.1.1.4", series=3, instances=10, rows=256, columns=256),
    Kind.RADIOGRAPHY: Shape("1.2.840.10008.5.1.4.1.1.1", series=1, instances=2, rows=1024, columns=1024),
}


@dataclass(frozen=True, slots=True)
class Instance:
    """One object to store, with the fingerprint that it must have wherever it arrives; its size is its pixels'."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    fingerprint: str
    size_bytes: int
    dataset: Any


@dataclass(frozen=True, slots=True)
class Study:
    """What one patient's visit to a modality produces; each series goes out in an association of its own."""

    study_instance_uid: str
    series: tuple[tuple[Instance, ...], ...]


def new_uid(rng: Random) -> str:
    """Return a UID made from a random UUID: at most 44 characters."""
    return f"2.25.{uuid.UUID(int=rng.getrandbits(128), version=4).int}"


def fingerprint(dataset: Any) -> str:
    """Return a hash over every element and pixel, whatever transfer syntax and sequence lengths it was sent with.

    File meta information is left out: the archive that stores writes its own.
    """
    digest = hashlib.sha256()
    _digest_elements(digest, dataset)
    return digest.hexdigest()


def _digest_elements(digest: Any, dataset: Any) -> None:
    for element in dataset:
        if element.tag.element == 0:
            continue  # group lengths are retired, and senders drop them: PS3.5, section 7.2
        digest.update(f"\n{element.tag} {element.VR} ".encode())
        if element.VR == "SQ":
            for item in element.value:
                digest.update(b"{")
                _digest_elements(digest, item)
                digest.update(b"}")
        elif isinstance(element.value, bytes):
            digest.update(f"{len(element.value)} ".encode())
            digest.update(element.value)
        elif not element.is_empty:
            digest.update(str(element.value).encode())


def make_study(rng: Random, kind: Kind, patient_number: int, shape: Shape | None = None) -> Study:
    """Return one study of the patient `SIM^NUMBER`."""
    shape = shape or SHAPES[kind]
    study_uid = new_uid(rng)
    base = _study_level(study_uid, kind, patient_number)
    series = tuple(_make_series(rng, base, number, shape) for number in range(1, shape.series + 1))
    return Study(study_uid, series)


def _study_level(study_uid: str, kind: Kind, patient_number: int) -> Any:
    base = Dataset()
    base.SpecificCharacterSet = "ISO_IR 192"
    base.StudyDate = "20310304"  # a day to come: no real study has it
    base.StudyTime = f"{patient_number // 3600 % 24:02}{patient_number // 60 % 60:02}{patient_number % 60:02}"
    base.AccessionNumber = f"A{patient_number:07}"
    base.Modality = kind.value
    base.Manufacturer = "Equipoise simulated modality"
    base.ReferringPhysicianName = "SIM^Müller"  # not ASCII, so that a lost character set shows
    base.PatientName = f"SIM^{patient_number:04}"
    base.PatientID = f"SIM{patient_number:04}"
    base.PatientBirthDate = "19700101"
    base.PatientSex = "O"
    base.StudyInstanceUID = study_uid
    base.StudyID = str(patient_number)
    return base


def _make_series(rng: Random, base: Any, number: int, shape: Shape) -> tuple[Instance, ...]:
    series_uid, frame_uid = new_uid(rng), new_uid(rng)
    instances = []
    for index in range(1, shape.instances + 1):
        dataset = Dataset()
        dataset.update(base)
        dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = series_uid, frame_uid
        dataset.SeriesNumber, dataset.InstanceNumber = str(number), str(index)
        _add_image(dataset, rng, shape)
        instances.append(_instance(dataset))
    return tuple(instances)


def _add_image(dataset: Any, rng: Random, shape: Shape) -> None:
    dataset.SOPClassUID = shape.sop_class_uid
    dataset.SOPInstanceUID = new_uid(rng)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    source = Dataset()  # a sequence and a private element: a relay that decodes what it carries often loses these
    source.ReferencedSOPClassUID = shape.sop_class_uid
    source.ReferencedSOPInstanceUID = new_uid(rng)
    dataset.SourceImageSequence = [source]
    dataset.private_block(_PRIVATE_GROUP, "EQUIPOISE SIM", create=True).add_new(0x01, "LO", "private text")
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = shape.rows, shape.columns
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.add_new(0x7FE00010, "OW", rng.randbytes(shape.rows * shape.columns * 2))


def _instance(dataset: Any) -> Instance:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return Instance(
        sop_instance_uid=str(dataset.SOPInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        study_instance_uid=str(dataset.StudyInstanceUID),
        fingerprint=fingerprint(dataset),
        size_bytes=len(dataset.PixelData),
        dataset=dataset,
    )
