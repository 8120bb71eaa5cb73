"""Every SOP class that pydicom and pynetdicom know, held against our words: they write their tables themselves."""

import pydicom.uid
import pynetdicom.sop_class as theirs
import pytest
from pydicom.uid import UID_dictionary

from equipoise.config.dicom import SERVICE_WORDS
from equipoise.proto.dicom.sop_classes import is_get, service_of

CLASSES = {uid: row[0] for uid, row in UID_dictionary.items() if row[1] == "SOP Class"}
NAMELESS = {"1.2.840.10008.5.1.4.1.1.12.77", "1.2.840.10008.5.1.4.1.1.40"}  # retired before they had a name
MEDIA = "1.2.840.10008.1.3.10"  # the DICOMDIR of a disc: never sent


def test_what_pynetdicom_stores_is_stored() -> None:
    classes = {*theirs._STORAGE_CLASSES.values(), *theirs._NON_PATIENT_OBJECT_CLASSES.values()}
    assert len(classes) > 150
    assert {uid: service_of(uid) for uid in classes if service_of(uid) != "store"} == {}


def test_what_is_named_storage_is_stored_and_nothing_else() -> None:
    named = {uid for uid, name in CLASSES.items() if "Storage" in name and "Commitment" not in name}
    assert {uid for uid in CLASSES if service_of(uid) == "store"} - NAMELESS == named - {MEDIA}


@pytest.mark.parametrize(("ending", "word"), [("FIND", "query"), ("MOVE", "retrieve"), ("GET", "retrieve")])
def test_models_are_told_by_their_command(ending: str, word: str) -> None:
    models = {
        uid: name
        for uid, name in CLASSES.items()
        if name.removesuffix(" SOP Class").endswith(f"- {ending}") and "Worklist" not in name
    }
    assert len(models) >= 9
    assert {name: service_of(uid) for uid, name in models.items() if service_of(uid) != word} == {}
    assert {uid for uid in models if is_get(uid)} == (set(models) if ending == "GET" else set())


def test_only_models_of_c_get_are_gets() -> None:
    assert {name for uid, name in CLASSES.items() if is_get(uid) and "GET" not in name} == set()


@pytest.mark.parametrize(
    ("keyword", "word"),
    [
        ("ModalityWorklistInformationFind", "worklist"),
        ("ModalityPerformedProcedureStep", "mpps"),
        ("ModalityPerformedProcedureStepRetrieve", "mpps"),
        ("ModalityPerformedProcedureStepNotification", "mpps"),
        ("StorageCommitmentPushModel", "commitment"),
        ("RepositoryQuery", "query"),
        ("Verification", None),
        ("InventoryCreation", None),
        ("UnifiedProcedureStepPull", None),
        ("BasicFilmSession", None),
        ("InstanceAvailabilityNotification", None),
        ("MediaStorageDirectoryStorage", None),
    ],
)
def test_the_others(keyword: str, word: str | None) -> None:
    assert service_of(getattr(pydicom.uid, keyword, None) or getattr(theirs, keyword)) == word


@pytest.mark.parametrize("uid", ["", "1.3.12.2.1107.5.9.1", "1.2.840.10008.5.1.4.1.1", "1.2.840.10008.5.1.4.1.2.1.4"])
def test_what_is_private_or_unknown_has_no_word(uid: str) -> None:
    assert service_of(uid) is None
    assert not is_get(uid)


def test_words_are_those_that_a_route_may_name() -> None:
    assert {service_of(uid) for uid in CLASSES} - {None} == set(SERVICE_WORDS)
