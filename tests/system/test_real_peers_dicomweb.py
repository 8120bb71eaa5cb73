"""Two Orthancs behind one address, used by dicomweb-client: what is stored, found and fetched, in plain and with TLS.

Debian's Orthanc cannot share its store, so a study that both are to have is stored in both.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread

from equipoise.sim.ports import free_port
from tests.system.balancer import eventually
from tests.system.certificates import Authority
from tests.system.conversation import Study, new_study
from tests.system.files import content, content_of
from tests.system.orthanc_web import ROOT, OrthancWeb
from tests.system.stage import Served
from tests.system.web_stage import WebStage

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about values in real files

CHECK = {
    "check": "http",
    "path": f"{ROOT}/studies?limit=1",
    "method": "GET",
    "interval": "500ms",
    "timeout": "5s",
    "rise": 1,
    "fall": 1,
}
_patients = itertools.count(1)
RETRIEVE_URL, BULK_DATA = "00081190", "BulkDataURI"


@dataclass(frozen=True, slots=True)
class Archive:
    """The service, its two nodes, and a client of it."""

    served: Served
    base: str
    client: DICOMwebClient
    session: requests.Session
    a: OrthancWeb
    b: OrthancWeb

    def keep(self, folder: Path, original: str = "CT_small.dcm") -> Study:
        """Put a new study into both stores, not through the balancer."""
        study = new_study(folder, f"WEB{next(_patients)}", original)
        for node in (self.a, self.b):
            node.rest.post("/instances", content=study.path.read_bytes()).raise_for_status()
        return study


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OrthancWeb, OrthancWeb]]:
    folder = tmp_path_factory.mktemp("orthanc")
    with OrthancWeb(folder / "a", "a") as a, OrthancWeb(folder / "b", "b") as b:
        yield a, b


@pytest.fixture(scope="module", params=["plain", "TLS"])
def archive(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    nodes: tuple[OrthancWeb, OrthancWeb],
) -> Iterator[Archive]:
    a, b = nodes
    authority, port = Authority(tmp_path_factory.mktemp("authority")), free_port()
    tls = {"tls": {"cert": str(authority.issue("archive").both)}} if request.param == "TLS" else {}
    with WebStage() as stage, requests.Session() as session:
        served = stage.serve(
            {"a": a.port, "b": b.port},
            protocol="dicomweb",
            listen=f"127.0.0.1:{port}",
            balance="round_robin",
            health=CHECK,
            slow_start="0s",
            **tls,
        )
        session.verify, session.trust_env = str(authority.ca_file), False
        base = f"{'https' if tls else 'http'}://localhost:{port}{ROOT}"
        client = DICOMwebClient(base, session=session)
        client.host = f"localhost:{port}"  # its header Host leaves the port out
        yield Archive(served, base, client, session, a, b)


def test_what_is_stored_is_in_one_archive_as_it_was(archive: Archive, tmp_path: Path) -> None:
    study = new_study(tmp_path, "STORED")
    answer = archive.client.store_instances([dcmread(study.path)])
    (reference,) = answer.ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == study.instance_uid
    assert str(reference.RetrieveURL).startswith(f"{archive.base}/studies/{study.study_uid}/")
    holders = [node for node in (archive.a, archive.b) if study.study_uid in node.studies()]
    assert len(holders) == 1
    held = archive.session.get(str(reference.RetrieveURL), headers={"Accept": "multipart/related"})
    assert held.status_code in (200, 404)  # it is in one of the two stores, and any node may be asked


def test_what_is_found_can_be_fetched_where_the_answer_says(archive: Archive, tmp_path: Path) -> None:
    study = archive.keep(tmp_path)
    for _ in range(4):  # each node is asked
        (found,) = archive.client.search_for_studies(search_filters={"PatientID": study.patient_id})
        (url,) = found[RETRIEVE_URL]["Value"]
        assert url == f"{archive.base}/studies/{study.study_uid}"
        (series,) = archive.client.search_for_series(study.study_uid)
        assert series[RETRIEVE_URL]["Value"][0].startswith(f"{url}/series/")
        fetched = archive.session.get(url, headers={"Accept": 'multipart/related; type="application/dicom"'})
        assert fetched.status_code == 200
        assert b"DICM" in fetched.content


def test_what_is_fetched_is_what_was_stored(archive: Archive, tmp_path: Path) -> None:
    for name in ("CT_small.dcm", "JPEG2000.dcm", "SC_rgb_rle.dcm"):
        study = archive.keep(tmp_path, name)
        # Any transfer syntax: the plug-in would change it otherwise, to the one that DICOMweb has by default.
        for got in archive.client.retrieve_study(study.study_uid, media_types=(("application/dicom", "*"),)):
            assert content_of(got, str(got.file_meta.TransferSyntaxUID)) == content(study.path)


def test_metadata_points_at_the_balancer(archive: Archive, tmp_path: Path) -> None:
    study = archive.keep(tmp_path)
    (metadata,) = archive.client.retrieve_study_metadata(study.study_uid)
    assert Dataset.from_json(metadata, bulk_data_uri_handler=lambda uri: b"").PatientID == study.patient_id
    uris = list(bulk_data(metadata))
    assert uris
    assert [uri for uri in uris if not uri.startswith(f"{archive.base}/")] == []
    assert archive.session.get(uris[0]).status_code == 200


def test_viewers_go_on_when_an_archive_dies(archive: Archive, tmp_path: Path) -> None:
    study = archive.keep(tmp_path)
    archive.a.kill()
    try:
        for _ in range(12):
            assert archive.client.search_for_studies(search_filters={"PatientID": study.patient_id})
            assert len(archive.client.retrieve_study(study.study_uid)) == 1
        archive.served.wait_state("a", "down")
    finally:
        archive.a.start()
    archive.served.wait_state("a", "up")
    before = archive.served.status()["nodes"]["a"]["bytes_out"]

    def again() -> bool:
        archive.client.search_for_studies(limit=1)
        return bool(archive.served.status()["nodes"]["a"]["bytes_out"] > before)

    eventually(again, what="work for the archive that is back")


def bulk_data(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        if BULK_DATA in found:
            yield found[BULK_DATA]
        found = list(found.values())
    if isinstance(found, list):
        for each in found:
            yield from bulk_data(each)
