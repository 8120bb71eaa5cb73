"""One DICOM port for a whole hospital: store, query, worklist and MPPS pools behind it, in plain and with TLS.

The peers are those of the other tests; what a request's contexts ask for decides where it goes.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from equipoise.sim.ports import free_port
from tests.system import dcmtk
from tests.system.archives import DcmtkArchive
from tests.system.balancer import Balancer, eventually
from tests.system.certificates import Authority
from tests.system.conversation import Client, Line, new_study
from tests.system.dcmjs import DcmjsClient
from tests.system.dcmtk_client import DcmtkClient
from tests.system.dicom_echo import DicomEchoClient
from tests.system.exchange import certificates
from tests.system.files import content, stored
from tests.system.odil import OdilClient
from tests.system.orthanc import Orthanc, OrthancClient
from tests.system.pynet_client import PynetdicomClient
from tests.system.pynet_services import ProcedureSteps
from tests.system.worklist import wlmscpfs

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about values in real files

# What is stored stays at the service itself, whose archive is an Orthanc with TLS; the other pools have no address.
SITE = """
site: general-hospital
services:
  pacs:
    protocol: dicom
    listen: 127.0.0.1
    ports: [{plain_port}, {tls_port}]
    tls: {{cert: {balancer.cert}, key: {balancer.key}, client_ca: {balancer.ca}, ports: [{tls_port}]}}
    node_tls: {{ca: {caller.ca}, cert: {caller.cert}, key: {caller.key}}}
    health: {{check: dicom_echo, called_ae: PACS, interval: 1h, rise: 1}}
    nodes: {{store-a: {{address: "127.0.0.1:{store}"}}}}
    routes:
      - {{calling_ae: WARD, to: pacs-query}}    # proposes queries and the worklist together
      - {{service: [query, retrieve], to: pacs-query}}
      - {{service: worklist, to: pacs-mwl}}
      - {{service: mpps, to: ris}}
  pacs-query:
    protocol: dicom
    health: {{check: dicom_echo, called_ae: PACS, interval: 1h, rise: 1}}
    nodes: {{query-a: {{address: "127.0.0.1:{query}"}}}}
  pacs-mwl:
    protocol: dicom
    health: {{check: dicom_echo, called_ae: PACS, interval: 1h, rise: 1}}
    nodes: {{mwl-a: {{address: "127.0.0.1:{worklist}"}}}}
  ris:
    protocol: dicom
    health: {{check: dicom_echo, called_ae: PACS, interval: 1h, rise: 1}}
    nodes: {{ris-a: {{address: "127.0.0.1:{steps}"}}}}
"""
DESTINATION = "DEST"


@dataclass(frozen=True, slots=True)
class Hospital:
    """The balancer, what is behind it, and the Orthanc that is a workstation."""

    balancer: Balancer
    lines: dict[str, Line]
    store: Orthanc
    query: DcmtkArchive
    steps: ProcedureSteps
    workstation: Orthanc
    moved: Path

    def services_since(self, count: int, more: int) -> list[tuple[str, str | None, bool]]:
        """Return where the associations behind the first `count` went: service, from where, with TLS."""
        events = self.balancer.ended(count + more)[count:]
        assert {event["ended"] for event in events} <= {"released", "client_closed"}  # dicom-echo just closes
        return [(event["service"], event["routed_from"], event["tls"] is not None) for event in events]

    def ended_so_far(self) -> int:
        return len(self.balancer.events("association.ended"))


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospital")
    own = certificates(Authority(folder / "authority"))
    with ExitStack() as stack:
        destination = stack.enter_context(dcmtk.storescp(free_port(), folder / "moved", "+B"))
        store = stack.enter_context(Orthanc(folder / "store", tls=own.node))
        query = stack.enter_context(DcmtkArchive(folder / "query", {DESTINATION: destination.port}))
        worklist = stack.enter_context(wlmscpfs(folder / "worklist"))
        steps = stack.enter_context(ProcedureSteps())
        workstation = stack.enter_context(Orthanc(folder / "ward", "WARD", own.client, serves_tls=False))
        ports = {"plain_port": free_port(), "tls_port": free_port()}
        nodes = {"store": store.port, "query": query.port, "worklist": worklist.port, "steps": steps.port}
        document = SITE.format(balancer=own.balancer, caller=own.caller, **ports, **nodes)
        balancer = stack.enter_context(Balancer(document))
        eventually(lambda: is_up(balancer), what="every node up")
        lines = {"plain": Line(ports["plain_port"]), "TLS": Line(ports["tls_port"], own.client)}
        yield Hospital(balancer, lines, store, query, steps, workstation, folder / "moved")


def is_up(balancer: Balancer) -> bool:
    services = balancer.status()["services"].values()
    return all(node["state"] == "up" and node["check"] for service in services for node in service["nodes"].values())


@pytest.fixture(params=["plain", "TLS"])
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("make", [DcmtkClient, PynetdicomClient, DcmjsClient])
def test_each_operation_goes_to_its_pool(hospital: Hospital, make: type[Client], wire: str, tmp_path: Path) -> None:
    client, line, before = make(), hospital.lines[wire], hospital.ended_so_far()
    study, archived = new_study(tmp_path, f"R-{make.__name__}-{wire}"), new_study(tmp_path, f"Q-{make.__name__}-{wire}")
    hospital.query.keep(archived)

    client.echo(line)
    client.store(line, study)
    assert hospital.store.content(study) is not None
    assert client.find(line, archived.patient_id) == [archived.study_uid]
    assert set(client.worklist(line, "CT1")) == {"ACC-1", "ACC-2"}
    with_tls = wire == "TLS"
    went = [("pacs", None, with_tls)] * 2 + [("pacs-query", "pacs", with_tls), ("pacs-mwl", "pacs", with_tls)]
    assert hospital.services_since(before, 4) == went


@pytest.mark.parametrize(
    ("make", "wire"),
    [(DcmtkClient, "plain"), (PynetdicomClient, "plain"), (PynetdicomClient, "TLS"), (DcmjsClient, "TLS")],
)
def test_what_is_retrieved_comes_from_where_it_was_found(
    hospital: Hospital, make: type[Client], wire: str, tmp_path: Path
) -> None:
    """With C-GET the objects come back on the association, whose contexts are then for storing, too."""
    client, line, before = make(), hospital.lines[wire], hospital.ended_so_far()
    archived = new_study(tmp_path, f"M-{make.__name__}-{wire}")
    hospital.query.keep(archived)
    client.move(line, archived.study_uid, DESTINATION)
    assert content(archived.path) in stored(hospital.moved)
    (tmp_path / "got").mkdir()
    client.get(line, archived.study_uid, tmp_path / "got")
    assert hospital.services_since(before, 2) == [("pacs-query", "pacs", wire == "TLS")] * 2


@pytest.mark.parametrize("make", [PynetdicomClient, DcmjsClient])
def test_what_a_device_did_goes_to_the_ris(hospital: Hospital, make: type[Client], wire: str) -> None:
    client, line, before, uid = make(), hospital.lines[wire], hospital.ended_so_far(), generate_uid()
    client.create(line, uid, {"PerformedProcedureStepStatus": "IN PROGRESS"})
    client.set(line, uid, {"PerformedProcedureStepStatus": "COMPLETED"})
    assert hospital.steps.steps[uid].PerformedProcedureStepStatus == "COMPLETED"
    assert hospital.services_since(before, 2) == [("ris", "pacs", wire == "TLS")] * 2


def test_a_workstation_that_proposes_everything_has_a_route_by_its_title(
    hospital: Hospital, wire: str, tmp_path: Path
) -> None:
    """Orthanc proposes queries, retrieval and the worklist in every association that is not for storing."""
    client, line, before = OrthancClient(hospital.workstation), hospital.lines[wire], hospital.ended_so_far()
    archived = new_study(tmp_path, f"W-{wire}")
    hospital.query.keep(archived)
    client.echo(line)
    assert client.find(line, archived.patient_id) == [archived.study_uid]
    client.move(line, archived.study_uid, DESTINATION)
    assert content(archived.path) in stored(hospital.moved)
    assert hospital.services_since(before, 3) == [("pacs-query", "pacs", wire == "TLS")] * 3


def test_without_such_a_route_it_is_refused_and_the_event_says_why(hospital: Hospital) -> None:
    client, before = OrthancClient(hospital.workstation, calling="OTHER"), hospital.ended_so_far()
    with pytest.raises(AssertionError):
        client.echo(hospital.lines["plain"])
    (event,) = hospital.balancer.ended(before + 1)[before:]
    assert (event["service"], event["calling_ae"], event["node"]) == ("pacs", "OTHER", None)
    assert "query (pacs-query)" in event["reason"]
    assert "worklist (pacs-mwl)" in event["reason"]


def test_old_modalities_that_have_no_tls(hospital: Hospital, tmp_path: Path) -> None:
    line, before, study = hospital.lines["plain"], hospital.ended_so_far(), new_study(tmp_path, "OLD")
    hospital.query.keep(study)
    DicomEchoClient().echo(line)
    OdilClient().store(line, study)
    assert hospital.store.content(study) is not None
    assert OdilClient().find(line, "OLD") == [study.study_uid]
    assert hospital.services_since(before, 3) == [("pacs", None, False)] * 2 + [("pacs-query", "pacs", False)]
