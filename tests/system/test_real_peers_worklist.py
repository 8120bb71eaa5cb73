"""The worklist and the performed procedure steps of a department, through the balancer, in plain and with TLS."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from pydicom.uid import generate_uid

from tests.system.certificates import Authority
from tests.system.conversation import Client, Line
from tests.system.dcmjs import DcmjsClient
from tests.system.dcmtk_client import DcmtkClient
from tests.system.exchange import Certificates, Door, Pool, certificates, open_doors
from tests.system.orthanc import Orthanc, OrthancClient
from tests.system.peers import DCMJS, DCMTK, ORTHANC, PYNETDICOM, Operation, Peer, Talk, Wire, talks
from tests.system.pynet_client import PynetdicomClient
from tests.system.pynet_services import ProcedureSteps
from tests.system.stage import Stage
from tests.system.worklist import SCHEDULED, wlmscpfs

IN_PROGRESS = {
    "PerformedProcedureStepStatus": "IN PROGRESS",
    "PerformedStationAETitle": "CT1",
    "PerformedProcedureStepID": "PPS-1",
    "PerformedProcedureStepStartDate": "20310304",
    "PerformedProcedureStepStartTime": "083000",
}
NO_SUCH_INSTANCE = 0x0112  # PS3.7 annex C.5.6
COMPLETED = {"PerformedProcedureStepStatus": "COMPLETED", "PerformedProcedureStepEndTime": "084500"}


@dataclass(frozen=True, slots=True)
class Department:
    """The servers, and the services before them."""

    certificates: Certificates
    workstation: Orthanc
    steps: dict[Wire, ProcedureSteps]
    worklist: Door
    procedure_steps: dict[Wire, Door]

    def line(self, talk: Talk, door: Door) -> Line:
        tls = self.certificates.client if talk.client_wire is Wire.TLS else None
        return Line(door.ports[talk.client_wire], tls)

    def client(self, peer: Peer) -> Client:
        match peer.name:
            case DCMTK.name:
                return DcmtkClient()
            case ORTHANC.name:
                return OrthancClient(self.workstation)
            case DCMJS.name:
                return DcmjsClient()
        return PynetdicomClient()


@pytest.fixture(scope="module")
def department(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Department]:
    folder = tmp_path_factory.mktemp("department")
    own = certificates(Authority(folder / "authority"))
    with ExitStack() as stack:
        stage = stack.enter_context(Stage())
        worklist = stack.enter_context(wlmscpfs(folder / "worklist"))
        steps = {wire: stack.enter_context(ProcedureSteps(own.node if wire is Wire.TLS else None)) for wire in Wire}
        workstation = stack.enter_context(Orthanc(folder / "ward", "WARD", own.client, serves_tls=False))
        pools = [
            Pool({"a": worklist.port}, Wire.PLAIN),
            *(Pool({"a": each.port}, wire) for wire, each in steps.items()),
        ]
        door, *doors = open_doors(stage, own, pools)
        yield Department(own, workstation, steps, door, dict(zip(steps, doors, strict=True)))


WORKLIST_CLIENTS = (DCMTK, ORTHANC, PYNETDICOM, DCMJS)


@pytest.mark.parametrize(
    "talk", [talk for client in WORKLIST_CLIENTS for talk in talks(client, DCMTK, Operation.WORKLIST)], ids=str
)
def test_a_device_is_told_what_is_scheduled_for_it(department: Department, talk: Talk) -> None:
    client, line = department.client(talk.client), department.line(talk, department.worklist)
    for station in ("CT1", "MR1", "XA1"):
        expected = {accession for accession, scheduled_for in SCHEDULED.items() if scheduled_for == station}
        found = client.worklist(line, station)
        assert (set(found), len(found)) == (expected, len(expected))


@pytest.mark.parametrize(
    "talk",
    [talk for client in (PYNETDICOM, DCMJS) for talk in talks(client, PYNETDICOM, Operation.CREATE, Operation.SET)],
    ids=str,
)
def test_a_device_reports_what_it_did(department: Department, talk: Talk) -> None:
    client, line = department.client(talk.client), department.line(talk, department.procedure_steps[talk.node_wire])
    steps, uid = department.steps[talk.node_wire].steps, generate_uid()
    client.create(line, uid, IN_PROGRESS)
    assert {element.keyword: element.value for element in steps[uid]} == IN_PROGRESS
    client.set(line, uid, COMPLETED)
    assert {element.keyword: element.value for element in steps[uid]} == IN_PROGRESS | COMPLETED


@pytest.mark.parametrize("make", [PynetdicomClient, DcmjsClient], ids=["pynetdicom", "dcmjs-dimse"])
def test_what_the_provider_refuses_is_refused_in_its_own_words(department: Department, make: type[Client]) -> None:
    """A step that was never created cannot be set."""
    line = Line(department.procedure_steps[Wire.PLAIN].ports[Wire.PLAIN])
    with pytest.raises(AssertionError, match=str(NO_SUCH_INSTANCE)):
        make().set(line, generate_uid(), COMPLETED)
