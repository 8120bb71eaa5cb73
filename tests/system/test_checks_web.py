"""The checks `qido` and `wado` against Orthanc with its DICOMweb plug-in, which someone else wrote.

Leaves out TLS, which is the runner's, and other archives.  Keys of the configuration: the comments of Debian's
/etc/orthanc/orthanc.json and /etc/orthanc/dicomweb.json.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from equipoise.base.clock import SystemClock
from equipoise.health.asking import Outcome
from equipoise.health.catalogue import checks
from equipoise.health.runner import probe_once
from equipoise.sim.ports import free_port
from tests.system.balancer import eventually
from tests.system.dcmtk import Peer

_PROGRAM = "/usr/sbin/Orthanc"
_PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


@dataclass(frozen=True, slots=True)
class Archive:
    peer: Peer
    port: int

    def answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/system", timeout=5).is_success
        except httpx.TransportError:
            return False

    def keep(self, content: bytes) -> None:
        httpx.post(f"http://127.0.0.1:{self.port}/instances", content=content, timeout=20).raise_for_status()

    def probe(self, check: str, **settings: Any) -> Outcome:
        kind = checks()[check]
        params = kind.params.model_validate({"timeout": 10.0, **settings})
        return asyncio.run(probe_once(kind, params, "127.0.0.1", self.port, SystemClock()))


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    folder, dicom_port, http_port = tmp_path / "orthanc", free_port(), free_port()
    folder.mkdir()
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "Plugins": [_PLUGIN],
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomPort": dicom_port,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with Peer([_PROGRAM, str(folder / "orthanc.json")], dicom_port, folder) as peer:
        started = Archive(peer, http_port)
        eventually(started.answers, 60, "Orthanc's REST API")
        yield started


def example() -> tuple[bytes, dict[str, str]]:
    """Return a real object, and the settings that name it."""
    content = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    dataset = dcmread(BytesIO(content), stop_before_pixels=True)
    named = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}
    return content, {key: str(dataset[keyword].value) for key, keyword in named.items()}


def test_qido_and_wado(archive: Archive) -> None:
    content, place = example()
    asked = f"GET of instance {place['instance']} answered"
    assert archive.probe("qido").reason == "GET /dicom-web/studies?limit=1 answered 200, a list of 0"
    assert archive.probe("wado", **place).reason == (
        f"{asked} 404, expected 200; the node does not have this object: store it there, or name another one; or "
        "correct health.path"
    )
    archive.keep(content)
    assert archive.probe("qido").reason == "GET /dicom-web/studies?limit=1 answered 200, a list of 1"
    assert archive.probe("wado", **place).reason == f"{asked} 200 with a DICOM file"


def test_another_path(archive: Archive) -> None:
    for check, settings in (("qido", {}), ("wado", example()[1]), ("fhir", {})):
        outcome = archive.probe(check, path="/elsewhere", **settings)
        assert not outcome.ok
        assert "answered 404" in outcome.reason
        assert "correct health.path" in outcome.reason


def test_the_rest_api_of_orthanc_is_no_dicomweb(archive: Archive) -> None:
    assert archive.probe("qido", path="/").reason == (
        "GET /studies?limit=1 answered 400, expected 200, 204; correct health.path; where it is right, the node does "
        "not take limit=1: use check http"
    )


def test_the_port_of_dicom_is_no_dicomweb(archive: Archive) -> None:
    outcome = archive.probe("qido", port=archive.peer.port)
    assert not outcome.ok, outcome.reason


def test_soap_at_an_archive_that_has_none(archive: Archive) -> None:
    outcome = archive.probe("xds_registry", path="/xds")
    assert not outcome.ok
    assert outcome.reason.startswith("POST /xds answered 404, expected 200; ")
