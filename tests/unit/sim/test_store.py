"""The archive's files: whole or not there, and never outside their directory."""

from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import pytest

from equipoise.base.errors import PeerError
from equipoise.sim.audit import audit
from equipoise.sim.ledger import Acknowledged
from equipoise.sim.store import Store
from equipoise.sim.studies import Instance, Kind, Shape, make_study


def part_10(dataset: Any) -> bytes:
    file = BytesIO()
    dataset.file_meta.ReceivingApplicationEntityTitle = "pacs-a"
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.fixture
def instance(small: Shape) -> Instance:
    return make_study(Random(1), Kind.CT, 1, small).series[0][0]


def test_a_saved_object_is_found_again_and_leaves_no_draft(tmp_path: Path, instance: Instance) -> None:
    store = Store(tmp_path / "store")
    path = store.save(part_10(instance.dataset), instance.sop_instance_uid)
    assert store.paths() == store.paths(instance.study_instance_uid) == [path]
    assert [entry for entry in (tmp_path / "store").rglob("*") if entry.is_file()] == [path]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")
@pytest.mark.parametrize("uid", ["../../escape", "..", "1..2", "1.2/3", "", "1" * 65])
def test_a_uid_that_is_none_is_never_a_file_name(tmp_path: Path, instance: Instance, uid: str) -> None:
    store = Store(tmp_path / "store")
    instance.dataset["StudyInstanceUID"]._value = uid
    with pytest.raises(PeerError, match=r"StudyInstanceUID .* is not a UID"):
        store.save(part_10(instance.dataset), instance.sop_instance_uid)
    assert not list(tmp_path.rglob("*.dcm"))


def test_an_object_that_is_not_the_one_the_command_named_is_refused(tmp_path: Path, instance: Instance) -> None:
    with pytest.raises(PeerError, match=r"its command says 1\.2\.3"):
        Store(tmp_path / "store").save(part_10(instance.dataset), "1.2.3")


def test_a_failed_write_leaves_nothing(tmp_path: Path, instance: Instance) -> None:
    store = Store(tmp_path / "store")
    target = tmp_path / "store" / instance.study_instance_uid / f"{instance.sop_instance_uid}.dcm"
    target.mkdir(parents=True)  # so that the rename fails
    with pytest.raises(OSError, match="directory"):
        store.save(part_10(instance.dataset), instance.sop_instance_uid)
    assert not [entry for entry in tmp_path.rglob("*") if entry.is_file()]


@pytest.mark.parametrize("harm", ["none", "bit", "cut", "gone"])
def test_an_audit_tells_unharmed_harmed_and_missing_apart(tmp_path: Path, instance: Instance, harm: str) -> None:
    store = Store(tmp_path / "store")
    uid = instance.sop_instance_uid
    path = store.save(part_10(instance.dataset), uid)
    content = path.read_bytes()
    match harm:
        case "bit":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 0x80]))
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "gone":
            path.unlink()
    found = audit(store, {uid: Acknowledged(instance.study_instance_uid, instance.fingerprint)})
    assert found.unharmed == ((uid,) if harm == "none" else ())
    assert found.harmed == ((uid,) if harm in {"bit", "cut"} else ())
    assert found.missing == ((uid,) if harm == "gone" else ())
    assert found.by_archive == ({"pacs-a": 1} if harm == "none" else {})


def test_an_audit_of_one_study_expects_nothing_of_another(tmp_path: Path, instance: Instance) -> None:
    expected = {"1.2": Acknowledged("1.9", "hash"), "1.3": Acknowledged(instance.study_instance_uid, "hash")}
    assert audit(Store(tmp_path), expected, instance.study_instance_uid).missing == ("1.3",)
