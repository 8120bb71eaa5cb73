"""Synthetic studies: reproducible, valid, and with a fingerprint that notices every change."""

from io import BytesIO
from random import Random

import pytest
from pydicom import dcmread
from pydicom.uid import UID, ImplicitVRLittleEndian

from equipoise.sim.studies import Kind, Shape, fingerprint, make_study


def test_the_same_seed_gives_the_same_study_and_another_seed_another(small: Shape) -> None:
    first, again, other = (make_study(Random(seed), Kind.CT, 1, small) for seed in (7, 7, 8))
    assert [[one.fingerprint for one in series] for series in first.series] == [
        [one.fingerprint for one in series] for series in again.series
    ]
    assert first.study_instance_uid != other.study_instance_uid


@pytest.mark.parametrize("kind", list(Kind))
def test_uids_are_valid_unique_and_below_the_uuid_root(kind: Kind) -> None:
    study = make_study(Random(1), kind, 1)
    uids = [one.sop_instance_uid for series in study.series for one in series] + [study.study_instance_uid]
    assert len(set(uids)) == len(uids)
    assert all(UID(uid).is_valid and uid.startswith("2.25.") and uid.count(".") == 2 for uid in uids)


@pytest.mark.parametrize("change", ["pixel", "private", "sequence", "name"])
def test_the_fingerprint_notices_one_changed(change: str, small: Shape) -> None:
    instance = make_study(Random(1), Kind.CT, 1, small).series[0][0]
    dataset = instance.dataset
    assert fingerprint(dataset) == instance.fingerprint
    match change:
        case "pixel":
            dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]
        case "private":
            del dataset[0x0019, 0x1001]
        case "sequence":
            del dataset.SourceImageSequence[0].ReferencedSOPClassUID
        case "name":
            dataset.ReferringPhysicianName = "SIM^Muller"
    assert fingerprint(dataset) != instance.fingerprint


def test_the_fingerprint_does_not_depend_on_the_transfer_syntax(small: Shape) -> None:
    instance = make_study(Random(1), Kind.CT, 1, small).series[0][0]
    dataset = instance.dataset
    del dataset[0x0019, 0x1001], dataset[0x0019, 0x0010]  # implicit VR knows no VR of a private element
    expected = fingerprint(dataset)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True, implicit_vr=True, little_endian=True)
    file.seek(0)
    assert fingerprint(dcmread(file)) == expected
