"""Two Orthancs behind one address and one title: what is stored, found, moved, fetched and committed through it.

Both have the title of the balancer, PACS.  What an archive opens itself (C-MOVE's sub-operations, the report of
storage commitment) goes to the address in its own table: directly, or through the balancer where that is entered.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from equipoise.sim.ports import free_port
from tests.system import dcmtk
from tests.system.certificates import Authority
from tests.system.conversation import CALLED, Client, Line, Study, new_study
from tests.system.dcmtk_client import DcmtkClient
from tests.system.exchange import Certificates, Door, Pool, certificates, open_doors
from tests.system.files import content, stored
from tests.system.orthanc import Orthanc, OrthancClient
from tests.system.peers import DCMTK, ORTHANC, PYNETDICOM, Operation, Talk, Wire, talks
from tests.system.pynet_client import PynetdicomClient
from tests.system.pynet_services import Reports
from tests.system.stage import Stage

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about values in real files

NO_SUCH_INSTANCE = 0x0112  # PS3.3 section C.14.1.1


@dataclass(frozen=True, slots=True)
class Pair:
    """Two archives, in plain or with TLS."""

    a: Orthanc
    b: Orthanc

    def pool(self) -> dict[str, int]:
        return {"a": self.a.port, "b": self.b.port}


@dataclass(frozen=True, slots=True)
class Hospital:
    """Two pairs of archives, a workstation, and a stage to put services before them."""

    stage: Stage
    certificates: Certificates
    pairs: dict[Wire, Pair]
    workstation: Orthanc

    def open(self, talk: Talk, *others: Pool) -> list[Door]:
        """Return the door of the pair that the talk is with, and of other pools."""
        pair = Pool(self.pairs[talk.node_wire].pool(), talk.node_wire)
        return open_doors(self.stage, self.certificates, [pair, *others])

    def line(self, talk: Talk, door: Door) -> Line:
        return Line(door.ports[talk.client_wire], self.certificates.client if talk.client_wire is Wire.TLS else None)

    def client(self, talk: Talk) -> Client:
        return DcmtkClient() if talk.client is DCMTK else OrthancClient(self.workstation)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospital")
    own = certificates(Authority(folder / "authority"))
    with ExitStack() as stack:
        pairs = {}
        for wire, tls in ((Wire.PLAIN, None), (Wire.TLS, own.node)):
            a, b = (stack.enter_context(Orthanc(folder / f"{name}-{wire}", tls=tls)) for name in "ab")
            pairs[wire] = Pair(a, b)
        workstation = stack.enter_context(Orthanc(folder / "ward", "WARD", own.client, serves_tls=False))
        for pair in pairs.values():
            pair.a.know("workstation", workstation.title, workstation.port)
        yield Hospital(stack.enter_context(Stage()), own, pairs, workstation)


def keepers(pair: Pair, study: Study) -> str:
    """Return which of the archives have a study as it was sent."""
    held = {"a": pair.a.content(study), "b": pair.b.content(study)}
    assert set(held.values()) <= {None, content(study.path)}
    return "".join(name for name, found in held.items() if found)


@pytest.mark.parametrize(
    "talk", [*talks(DCMTK, ORTHANC, Operation.STORE), *talks(ORTHANC, ORTHANC, Operation.STORE)], ids=str
)
def test_a_drained_archive_gets_nothing_and_nothing_is_lost(hospital: Hospital, talk: Talk, tmp_path: Path) -> None:
    (door,) = hospital.open(talk)
    pair, client, line = hospital.pairs[talk.node_wire], hospital.client(talk), hospital.line(talk, door)
    studies = [new_study(tmp_path, f"S{number}") for number in range(3)]
    for study, change in zip(studies, ("drain", "enable", "drain"), strict=True):
        client.store(line, study)
        door.served.operate(change, "a")
    assert [keepers(pair, study) for study in studies] == ["a", "b", "a"]
    assert [(each["node"], each["ended"]) for each in door.served.ended(3)] == [(node, "released") for node in "aba"]


@pytest.mark.parametrize("talk", talks(DCMTK, ORTHANC, Operation.STORE, Operation.FIND, Operation.GET), ids=str)
def test_one_title_stores_finds_and_gives_back(hospital: Hospital, talk: Talk, tmp_path: Path) -> None:
    (door,) = hospital.open(talk)
    client, line, study = hospital.client(talk), hospital.line(talk, door), new_study(tmp_path, "F1")
    client.store(line, study)
    assert client.find(line, "F1") == [study.study_uid]
    client.get(line, study.study_uid, made(tmp_path / "got"))
    assert content(study.path) in stored(tmp_path / "got")


# C-MOVE: the archive that took the request dials the destination of its own table


MOVES = talks(DCMTK, ORTHANC, Operation.MOVE)


@pytest.mark.parametrize("talk", MOVES, ids=str)
def test_a_third_party_gets_what_is_moved_from_the_one_title(hospital: Hospital, talk: Talk, tmp_path: Path) -> None:
    (door,) = hospital.open(talk)
    archive, study = hospital.pairs[talk.node_wire].a, new_study(tmp_path, "M1")
    archive.keep(study)
    with dcmtk.storescp(free_port(), tmp_path / "third", "+B") as third:
        archive.know("third", "THIRD", third.port)
        hospital.client(talk).move(hospital.line(talk, door), study.study_uid, "THIRD")
    assert content(study.path) in stored(tmp_path / "third")
    (path,) = (tmp_path / "third").iterdir()
    assert dcmread(path).file_meta.SourceApplicationEntityTitle == CALLED
    (event,) = door.served.ended(1)  # the sub-operation is none of the balancer's
    assert {row["command"] for row in event["messages"]} == {"C-MOVE"}


def test_one_archive_sends_to_the_other_directly(hospital: Hospital, tmp_path: Path) -> None:
    talk = MOVES[0]
    (door,) = hospital.open(talk)
    pair, study = hospital.pairs[talk.node_wire], new_study(tmp_path, "M2")
    pair.a.keep(study)
    pair.a.know("other", "PACS_B", pair.b.port)
    hospital.client(talk).move(hospital.line(talk, door), study.study_uid, "PACS_B")
    assert keepers(pair, study) == "ab"
    assert len(door.served.ended(1)) == 1


@pytest.mark.parametrize("talk", talks(ORTHANC, ORTHANC, Operation.STORE), ids=str)
def test_one_archive_sends_to_the_other_through_the_balancer(hospital: Hospital, talk: Talk, tmp_path: Path) -> None:
    """The destination's entry is an address of the balancer: the sub-operation is an association like any other."""
    pair, study = hospital.pairs[talk.node_wire], new_study(tmp_path, "M3")
    door, other = hospital.open(talk, Pool({"b": pair.b.port}, talk.node_wire, asks_senders=False))
    pair.a.keep(study)
    pair.a.know("vna", "VNA", other.ports[talk.client_wire], tls=talk.client_wire is Wire.TLS)
    hospital.client(talk).move(hospital.line(talk, door), study.study_uid, "VNA")
    assert keepers(pair, study) == "ab"
    (event,) = other.served.ended(1)
    assert (event["calling_ae"], event["called_ae"], event["node"]) == (CALLED, "VNA", "b")
    assert {row["command"] for row in event["messages"]} == {"C-STORE"}


@pytest.mark.parametrize("talk", talks(ORTHANC, ORTHANC, Operation.MOVE), ids=str)
def test_a_workstation_fetches_for_itself(hospital: Hospital, talk: Talk, tmp_path: Path) -> None:
    (door,) = hospital.open(talk)
    study = new_study(tmp_path, "M4")
    hospital.pairs[talk.node_wire].a.keep(study)
    hospital.client(talk).move(hospital.line(talk, door), study.study_uid, hospital.workstation.title)
    assert hospital.workstation.content(study) == content(study.path)


# Storage commitment: N-ACTION through the balancer, N-EVENT-REPORT on an association that the archive opens


@pytest.mark.parametrize("talk", talks(PYNETDICOM, ORTHANC, Operation.COMMIT), ids=str)
def test_the_report_comes_to_the_device_on_its_own_association(hospital: Hospital, talk: Talk, tmp_path: Path) -> None:
    (door,) = hospital.open(talk)
    archive, study, missing = hospital.pairs[talk.node_wire].a, new_study(tmp_path, "C1"), generate_uid()
    archive.keep(study)
    with Reports("CT1") as device:
        archive.know("ct1", "CT1", device.port)
        transaction = PynetdicomClient("CT1").commit(hospital.line(talk, door), [study.instance_uid, missing])
        caller, report = device.wait()
    assert (caller, report.TransactionUID) == (CALLED, transaction)
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == [study.instance_uid]
    failed = [(item.ReferencedSOPInstanceUID, item.FailureReason) for item in report.FailedSOPSequence]
    assert failed == [(missing, NO_SUCH_INSTANCE)]
    (event,) = door.served.ended(1)
    assert [row["command"] for row in event["messages"]] == ["N-ACTION"]


@pytest.mark.parametrize("talk", talks(ORTHANC, PYNETDICOM, Operation.REPORT), ids=str)
def test_the_report_can_come_through_the_balancer(hospital: Hospital, talk: Talk, tmp_path: Path) -> None:
    """The device's entry in the archive is an address of the balancer, with the device as its node."""
    archive, study = hospital.pairs[talk.client_wire].a, new_study(tmp_path, "C2")
    archive.keep(study)
    tls = hospital.certificates.node if talk.node_wire is Wire.TLS else None
    with Reports("CT2", tls) as device:
        (door,) = open_doors(
            hospital.stage, hospital.certificates, [Pool({"ct2": device.port}, talk.node_wire, asks_senders=False)]
        )
        archive.know("ct2", "CT2", door.ports[talk.client_wire], tls=talk.client_wire is Wire.TLS)
        asked = Line(archive.port, hospital.certificates.client if talk.client_wire is Wire.TLS else None)
        transaction = PynetdicomClient("CT2").commit(asked, [study.instance_uid])
        caller, report = device.wait()
    assert (caller, report.TransactionUID) == (CALLED, transaction)
    (event,) = door.served.ended(1)
    assert [row["command"] for row in event["messages"]] == ["N-EVENT-REPORT"]


@pytest.mark.parametrize("talk", talks(ORTHANC, ORTHANC, Operation.COMMIT), ids=str)
def test_a_workstation_asks_whether_its_studies_are_safe(hospital: Hospital, talk: Talk, tmp_path: Path) -> None:
    (door,) = hospital.open(talk)
    client, line = OrthancClient(hospital.workstation), hospital.line(talk, door)
    safe, lost = new_study(tmp_path, "C3"), new_study(tmp_path, "C4")
    client.store(line, safe)
    assert client.commit(line, [safe])["Status"] == "Success"
    report = client.commit(line, [safe, lost])
    assert (report["Status"], report["RemoteAET"]) == ("Failure", CALLED)
    assert [each["SOPInstanceUID"] for each in report["Failures"]] == [lost.instance_uid]


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder
