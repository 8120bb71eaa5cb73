"""A site for the tests with real peers: archives of each make, in plain and with TLS, each behind a service of its own.

Every service listens on two ports, one plain and one with TLS, and reaches its archive as that one wants it.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from equipoise.sim.ports import free_port
from tests.system import dcmtk
from tests.system.archives import Archive, DcmtkArchive
from tests.system.certificates import Authority
from tests.system.conversation import Client, Credentials, Line
from tests.system.dcmjs import DcmjsClient
from tests.system.dcmtk_client import DcmtkClient
from tests.system.dicom_echo import DicomEchoClient
from tests.system.odil import OdilClient
from tests.system.orthanc import Orthanc, OrthancClient
from tests.system.peers import DCMJS, DCMTK, DICOM_ECHO, ODIL, ORTHANC, PYNETDICOM, Peer, Talk, Wire
from tests.system.pynet_client import PynetdicomClient
from tests.system.stage import Served, Stage

DESTINATION = "DEST"  # a third party, which the archives know: C-MOVE sends to it
WORKSTATION = "WARD"  # the Orthanc that is a client, which the archives know, too


@dataclass(frozen=True, slots=True)
class Certificates:
    """Who shows what, all of one authority.

    Attributes:
        balancer: What senders are shown.
        caller: What archives are shown by the balancer.
        client: What senders show.
        node: What archives show.
    """

    balancer: Credentials
    caller: Credentials
    client: Credentials
    node: Credentials

    def settings(self, node_wire: Wire, tls_port: int, *, asks_senders: bool) -> dict[str, Any]:
        """Return the keys of a service that asks nodes for certificates, and senders perhaps."""
        shown, sent = self.balancer, self.caller
        to_senders = {"cert": str(shown.cert), "key": str(shown.key), "ports": [tls_port]}
        if asks_senders:
            to_senders["client_ca"] = str(shown.ca)
        to_nodes = {"cert": str(sent.cert), "key": str(sent.key), "ca": str(sent.ca), "verify": "name"}
        return {"tls": to_senders, **({"node_tls": to_nodes} if node_wire is Wire.TLS else {})}


def certificates(authority: Authority) -> Certificates:
    """Issue what a site needs."""
    issued = [
        authority.issue(name, client=name in ("caller", "client")) for name in ("balancer", "caller", "client", "node")
    ]
    return Certificates(*(Credentials(each.cert, each.key, authority.ca_file) for each in issued))


@dataclass(frozen=True, slots=True)
class Door:
    """A service, and its ports by what is spoken there."""

    served: Served
    ports: Mapping[Wire, int]


@dataclass(frozen=True, slots=True)
class Pool:
    """What stands behind a door: nodes by name, their ports, and what they speak.

    Attributes:
        asks_senders: Senders with TLS must show a certificate.  Not those that have just one, for a server.
    """

    nodes: Mapping[str, int]
    wire: Wire
    asks_senders: bool = True


def open_doors(stage: Stage, certificates: Certificates, pools: list[Pool]) -> list[Door]:
    """Put a service with a plain and a TLS port before each of these pools."""
    ports = [{wire: free_port() for wire in Wire} for _ in pools]
    wanted: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = [
        (pool.nodes, _settings(certificates, pool, own)) for pool, own in zip(pools, ports, strict=True)
    ]
    served = stage.serve_all(wanted)
    return [Door(each, own) for each, own in zip(served, ports, strict=True)]


def _settings(certificates: Certificates, pool: Pool, ports: Mapping[Wire, int]) -> dict[str, Any]:
    tls = certificates.settings(pool.wire, ports[Wire.TLS], asks_senders=pool.asks_senders)
    return {"listen": "127.0.0.1", "ports": list(ports.values()), **tls}


class Exchange:
    """Everything that a talk of the matrix needs; ends what it started when it is left."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self._folder, self._certificates = folder, certificates
        self._stack = ExitStack()
        self._archives: dict[tuple[Peer, Wire], Archive] = {}
        self._doors: dict[tuple[Peer, Wire], Door] = {}
        self._clients: dict[Peer, Client] = {}
        self.moved = folder / "moved"  # where the destination of C-MOVE keeps what it gets
        self.direct = folder / "direct"  # what came on `line_past`

    def __enter__(self) -> "Exchange":
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _start(self, stack: ExitStack) -> None:
        stage = stack.enter_context(Stage())
        destination = stack.enter_context(dcmtk.storescp(free_port(), self.moved, "+B"))
        self._direct = stack.enter_context(dcmtk.storescp(free_port(), self.direct, "+B"))
        own, folder = self._certificates, self._folder
        ward = stack.enter_context(Orthanc(folder / "ward", WORKSTATION, own.client, serves_tls=False))
        self._workstation = ward
        for wire, tls in ((Wire.PLAIN, None), (Wire.TLS, own.node)):
            archive = stack.enter_context(Orthanc(folder / f"orthanc-{wire}", tls=tls))
            archive.know("destination", DESTINATION, destination.port)
            self._archives[ORTHANC, wire] = archive
            known = {DESTINATION: destination.port}
            self._archives[DCMTK, wire] = stack.enter_context(DcmtkArchive(folder / f"dcmtk-{wire}", known, tls))
        pools = [Pool({"a": archive.port}, wire) for (_, wire), archive in self._archives.items()]
        self._doors = dict(zip(self._archives, open_doors(stage, own, pools), strict=True))

    def client(self, talk: Talk) -> Client:
        """Return the talk's client; skips the test when it cannot be installed here."""
        if talk.client not in self._clients:
            self._clients[talk.client] = self._makers()[talk.client]()
        return self._clients[talk.client]

    def _makers(self) -> Mapping[Peer, Callable[[], Client]]:
        return {
            DCMTK: DcmtkClient,
            ORTHANC: lambda: OrthancClient(self._workstation),
            PYNETDICOM: PynetdicomClient,
            DCMJS: DcmjsClient,
            ODIL: OdilClient,
            DICOM_ECHO: DicomEchoClient,
        }

    def archive(self, talk: Talk) -> Archive:
        """Return the node of a talk."""
        return self._archives[talk.node, talk.node_wire]

    def line(self, talk: Talk) -> Line:
        """Return where the client of a talk calls the balancer."""
        return self._line(self._doors[talk.node, talk.node_wire].ports[talk.client_wire], talk.client_wire)

    def plain_archive(self, talk: Talk) -> Archive:
        """Return the node's double that every client reaches without the balancer."""
        return self._archives[talk.node, Wire.PLAIN]

    def line_past(self) -> Line:
        """Return the way to a receiver that has no balancer before it: what it gets is in `direct`."""
        return Line(self._direct.port)

    def _line(self, port: int, wire: Wire) -> Line:
        return Line(port, self._certificates.client if wire is Wire.TLS else None)
