"""The archives behind the balancer in the tests with real peers: Orthanc, and DCMTK's dcmqrscp and storescp."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from equipoise.sim.ports import free_port
from tests.system import dcmtk
from tests.system.conversation import CALLED, Credentials, Line, Study
from tests.system.dcmtk_client import DcmtkClient, tls_options
from tests.system.files import Content, content


class Archive(Protocol):
    """A node, as the tests see it from behind."""

    @property
    def port(self) -> int:
        """Its DICOM port."""

    def keep(self, study: Study) -> None:
        """Put a study into it, not through the balancer."""

    def content(self, study: Study) -> Content | None:
        """Return what it holds of a study."""


class DcmtkArchive:
    """dcmqrscp, which has everything but TLS; with credentials storescp, which stores and echoes."""

    def __init__(self, folder: Path, destinations: Mapping[str, int], tls: Credentials | None = None) -> None:
        folder.mkdir()
        self._folder, self._tls = folder, tls
        self.port = free_port()
        self.peer = (
            dcmtk.storescp(self.port, folder, *tls_options(tls))
            if tls
            else dcmtk.dcmqrscp(self.port, folder, CALLED, dict(destinations))
        )

    def __enter__(self) -> "DcmtkArchive":
        self.peer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.kill()

    def keep(self, study: Study) -> None:
        """Put a study into it, not through the balancer."""
        DcmtkClient().store(Line(self.port, self._tls), study)

    def content(self, study: Study) -> Content | None:
        """Return what it holds of a study."""
        for path in self._folder.rglob("*"):
            if (path.is_file() and study.instance_uid in path.name) or path.suffix == ".dcm":
                found = content(path)
                if found.sop_instance_uid == study.instance_uid:
                    return found
        return None
