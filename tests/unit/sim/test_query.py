"""Matching and levels of C-FIND, on headers alone.  PS3.4, C.2.2.2."""

from typing import Any

import pytest
from pydicom.dataset import Dataset

from equipoise.sim.query import find, selected


def header(study: str, series: str, sop: str, **elements: str) -> Any:
    dataset = Dataset()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = study, series, sop
    dataset.PatientID, dataset.PatientName, dataset.StudyDate, dataset.Modality = "P1", "SIM^0001", "20310304", "CT"
    dataset.update(elements)
    return dataset


HEADERS = [
    header("1.1", "1.1.1", "1.1.1.1"),
    header("1.1", "1.1.1", "1.1.1.2"),
    header("1.1", "1.1.2", "1.1.2.1", Modality="SR"),
    header("1.2", "1.2.1", "1.2.1.1", PatientID="P2", PatientName="SIM^Other", StudyDate="20310401"),
]


def ask(level: str, **keys: Any) -> list[Any]:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return find(HEADERS, identifier, "PACS")


@pytest.mark.parametrize(
    ("level", "matches"),
    [("PATIENT", 2), ("STUDY", 2), ("SERIES", 3), ("IMAGE", 4)],
)
def test_each_level_answers_once_for_each_of_its_things(level: str, matches: int) -> None:
    assert len(ask(level)) == matches


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize(
    ("key", "value", "studies"),
    [
        ("PatientName", "SIM*", 2),
        ("PatientName", "sim^000?", 1),  # names without regard to case
        ("PatientID", "p1", 0),  # anything else with regard to it
        ("PatientID", "P.", 0),  # a dot is a dot
        ("StudyDate", "20310304", 1),
        ("StudyDate", "20310305-", 1),
        ("StudyDate", "-20310401", 2),
        ("StudyDate", "20310101-20310331", 1),
        ("StudyInstanceUID", ["1.1", "1.2"], 2),
        ("StudyInstanceUID", "1.*", 0),  # no wildcards in UIDs
        ("ModalitiesInStudy", "SR", 1),
        ("AccessionNumber", "", 2),
    ],
)
def test_a_key_matches(key: str, value: Any, studies: int) -> None:
    assert len(ask("STUDY", **{key: value})) == studies


def test_an_archive_counts_what_it_holds() -> None:
    (found,) = ask("STUDY", StudyInstanceUID="1.1", NumberOfStudyRelatedInstances="", ModalitiesInStudy="")
    assert found.NumberOfStudyRelatedInstances == 3
    assert list(found.ModalitiesInStudy) == ["CT", "SR"]
    assert (found.QueryRetrieveLevel, found.RetrieveAETitle) == ("STUDY", "PACS")


def test_a_key_that_is_not_held_comes_back_empty() -> None:
    (found,) = ask("STUDY", StudyInstanceUID="1.1", AccessionNumber="")
    assert found["AccessionNumber"].is_empty


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="'VISIT' is not one of PATIENT, STUDY, SERIES, IMAGE"):
        ask("VISIT")


def test_a_retrieve_request_selects_by_its_unique_keys_alone() -> None:
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "SERIES", "1.1"
    identifier.SeriesInstanceUID = ["1.1.1", "1.1.9"]
    assert [str(one.SOPInstanceUID) for one in HEADERS if selected(one, identifier)] == ["1.1.1.1", "1.1.1.2"]
