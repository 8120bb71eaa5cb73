"""Orthanc as an archive and as a client: an instance of its own for each test run, asked over its REST API.

Leaves out its plug-ins.  This version listens on every address; its REST API answers callers of this machine alone.
Keys of the configuration: the comments of Debian's /etc/orthanc/orthanc.json.
"""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from pydicom import dcmread

from equipoise.sim.ports import free_port
from tests.system.balancer import eventually
from tests.system.conversation import CALLED, Client, Credentials, Line, Study
from tests.system.dcmtk import Peer
from tests.system.files import Content, content_of

_PROGRAM = "/usr/sbin/Orthanc"
_VIP = "vip"  # the balancer, in the list of modalities of an Orthanc that is a client


def version() -> str:
    """Return the version of what is installed."""
    said = subprocess.run([_PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Orthanc (\S+)", said)
    assert found is not None, said
    return found[1]


class Orthanc:
    """One Orthanc with an empty store, until it is left.

    Args:
        folder: Where it keeps everything; is made.
        title: Its AE title.
        tls: With it, the DICOM port takes TLS alone, and only from clients with a certificate.
        serves_tls: Without it the credentials are for its own calls alone, and the port stays plain.
    """

    def __init__(
        self, folder: Path, title: str = CALLED, tls: Credentials | None = None, *, serves_tls: bool = True
    ) -> None:
        folder.mkdir()
        self.title, self.port, http_port = title, free_port(), free_port()
        settings = {
            "Name": title,
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "Plugins": [],
            "HttpPort": http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomPort": self.port,
            "DicomAet": title,
            **{f"DicomAlwaysAllow{asked}": True for asked in ("Echo", "Store", "Find", "Get", "Move")},
            "SyncStorageArea": False,
            "StableAge": 1,
            **_tls_settings(tls, serves=serves_tls),
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self._peer = Peer([_PROGRAM, str(folder / "orthanc.json")], self.port, folder)
        self.rest = httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=20)

    def __enter__(self) -> "Orthanc":
        self._peer.start()
        eventually(self._answers, 60, "Orthanc's REST API")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rest.close()
        self._peer.kill()  # at SIGTERM it waits five seconds, and nothing of it is kept

    def _answers(self) -> bool:
        try:
            return self.rest.get("/system").is_success
        except httpx.TransportError:
            return False

    def get(self, path: str) -> Any:
        """Ask the REST API."""
        return self.rest.get(path).raise_for_status().json()

    def post(self, path: str, body: Any) -> Any:
        """Tell the REST API; return its answer."""
        sent = body if isinstance(body, bytes | str) else json.dumps(body)
        answer = self.rest.post(path, content=sent)
        assert answer.is_success, answer.text
        return answer.json()

    def know(self, name: str, title: str, port: int, *, tls: bool = False, calling: str | None = None) -> None:
        """Enter a modality of 127.0.0.1, which may ask for everything; `calling` is our title when we call it."""
        entry: dict[str, Any] = {
            "AET": title,
            "Host": "127.0.0.1",
            "Port": port,
            "UseDicomTls": tls,
            "AllowStorageCommitment": True,
        }
        if calling is not None:
            entry["LocalAet"] = calling
        self.rest.put(f"/modalities/{name}", json=entry).raise_for_status()

    def keep(self, study: Study) -> None:
        """Put a study into its store, not through the balancer."""
        self.post("/instances", study.path.read_bytes())

    def content(self, study: Study) -> Content | None:
        """Return what it holds of a study."""
        found = self.post("/tools/lookup", study.instance_uid)
        if not found:
            return None
        dataset = dcmread(BytesIO(self.rest.get(f"/instances/{found[0]['ID']}/file").raise_for_status().content))
        return content_of(dataset, str(dataset.file_meta.TransferSyntaxUID))


class OrthancClient(Client):
    """Orthanc as a client: a workstation or a router.  It asks no C-GET in this version."""

    def __init__(self, orthanc: Orthanc, calling: str | None = None) -> None:
        self._orthanc, self._calling = orthanc, calling

    def echo(self, line: Line) -> None:
        self._ask(line, "echo", {})

    def store(self, line: Line, study: Study) -> None:
        self._orthanc.keep(study)
        sent = self._ask(line, "store", {"Resources": [self._id(study)], "Synchronous": True})
        assert sent["FailedInstancesCount"] == 0, sent

    def find(self, line: Line, patient_id: str) -> list[str]:
        query = self._ask(line, "query", {"Level": "Study", "Query": {"PatientID": patient_id}})
        answers = self._orthanc.get(f"/queries/{query['ID']}/answers?expand&simplify")
        return [str(each["StudyInstanceUID"]) for each in answers]

    def move(self, line: Line, study_uid: str, destination: str) -> None:
        asked = {"Level": "Study", "Resources": [{"StudyInstanceUID": study_uid}], "TargetAet": destination}
        self._ask(line, "move", {**asked, "Synchronous": True})

    def worklist(self, line: Line, station: str) -> list[str]:
        keys = {"AccessionNumber": "", "ScheduledProcedureStepSequence": [{"ScheduledStationAETitle": station}]}
        return [str(each["AccessionNumber"]) for each in self._ask(line, "find-worklist", keys)]

    def commit(self, line: Line, studies: Sequence[Study]) -> Mapping[str, Any]:
        """Storage commitment: N-ACTION, then wait for the report; return it."""
        instances = [{"SOPClassUID": _sop_class(each), "SOPInstanceUID": each.instance_uid} for each in studies]
        asked = self._ask(line, "storage-commitment", {"DicomInstances": instances})

        def report() -> Mapping[str, Any] | None:
            found: Mapping[str, Any] = self._orthanc.get(asked["Path"])
            return found if found["Status"] != "Pending" else None

        return eventually(report, 30, "the N-EVENT-REPORT")

    def _ask(self, line: Line, operation: str, body: Any) -> Any:
        self._orthanc.know(_VIP, CALLED, line.port, tls=line.tls is not None, calling=self._calling)
        return self._orthanc.post(f"/modalities/{_VIP}/{operation}", body)

    def _id(self, study: Study) -> str:
        return str(self._orthanc.post("/tools/lookup", study.instance_uid)[0]["ID"])


def _sop_class(study: Study) -> str:
    return str(dcmread(study.path, stop_before_pixels=True).SOPClassUID)


def _tls_settings(tls: Credentials | None, *, serves: bool) -> dict[str, Any]:
    if tls is None:
        return {}
    return {
        "DicomTlsEnabled": serves,
        "DicomTlsCertificate": str(tls.cert),
        "DicomTlsPrivateKey": str(tls.key),
        "DicomTlsTrustedCertificates": str(tls.ca),
        "DicomTlsRemoteCertificateRequired": True,
    }
