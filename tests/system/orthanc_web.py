"""Orthanc with its DICOMweb plug-in, as an archive behind a balancer.

It writes RetrieveURLs from the header Forwarded, else from Host.  Source: comments of Debian's
/etc/orthanc/dicomweb.json.
"""

import json
from pathlib import Path
from types import TracebackType

import httpx

from equipoise.sim.ports import free_port
from tests.system.balancer import eventually
from tests.system.dcmtk import Peer

ROOT = "/dicom-web"
_PROGRAM = "/usr/sbin/Orthanc"
_PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


class OrthancWeb:
    """One Orthanc with an empty store, until it is left; `port` is the one of HTTP."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir()
        self.port = free_port()
        settings = {
            "Name": name,
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "Plugins": [_PLUGIN],
            "HttpPort": self.port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomServerEnabled": False,
            "SyncStorageArea": False,
            "StableAge": 1,
            "DicomWeb": {"Enable": True, "Root": f"{ROOT}/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self._peer = Peer([_PROGRAM, str(folder / "orthanc.json")], self.port, folder)
        self.rest = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20, trust_env=False)

    def __enter__(self) -> "OrthancWeb":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rest.close()
        self.kill()

    def start(self) -> None:
        """Start it, with what it has stored."""
        self._peer.start()
        eventually(self._answers, 60, "Orthanc's REST API")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._peer.kill()

    def studies(self) -> list[str]:
        """Return the UIDs of its studies."""
        found = self.rest.get("/studies?expand").raise_for_status().json()
        return [str(each["MainDicomTags"]["StudyInstanceUID"]) for each in found]

    def _answers(self) -> bool:
        try:
            return self.rest.get("/system").is_success
        except httpx.TransportError:
            return False
