"""DCMTK's wlmscpfs as a worklist: a folder of files, one a scheduled procedure step, made here with pydicom.

Source: DCMTK's documentation of wlmscpfs (a folder named like the called title, in it a `lockfile` and `*.wl`); the
elements that a worklist item must have, DICOM PS3.4 table K.6-1.
"""

from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from equipoise.sim.ports import free_port
from tests.system.conversation import CALLED
from tests.system.dcmtk import BIN, Peer

# Accession number by the station that the step is scheduled for.
SCHEDULED = {"ACC-1": "CT1", "ACC-2": "CT1", "ACC-3": "MR1"}


def wlmscpfs(folder: Path) -> Peer:
    """Return a worklist server with what is `SCHEDULED`; it answers to `PACS` alone."""
    items = folder / CALLED
    items.mkdir(parents=True)
    (items / "lockfile").touch()
    for accession, station in SCHEDULED.items():
        _item(accession, station).save_as(items / f"{accession}.wl", enforce_file_format=True)
    port = free_port()
    return Peer([str(BIN / "wlmscpfs"), "-dfp", str(folder), str(port)], port, folder)


def _item(accession: str, station: str) -> Dataset:
    item = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.file_meta.MediaStorageSOPClassUID = "1.2.276.0.7230010.3.1.0.1"  # DCMTK's own, for what is in no archive
    item.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    item.AccessionNumber, item.StudyInstanceUID = accession, generate_uid()
    item.PatientName, item.PatientID, item.PatientBirthDate, item.PatientSex = "Test^Patient", "WL-1", "19700101", "O"
    item.RequestedProcedureID, item.RequestedProcedureDescription = f"RP-{accession}", "Head"
    item.ScheduledProcedureStepSequence = [_step(accession, station)]
    return item


def _step(accession: str, station: str) -> Dataset:
    step = Dataset()
    step.Modality, step.ScheduledStationAETitle = station[:2], station
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = "20310304", "083000"
    step.ScheduledPerformingPhysicianName = "Test^Physician"
    step.ScheduledProcedureStepID, step.ScheduledProcedureStepDescription = f"SPS-{accession}", "Head"
    return step
