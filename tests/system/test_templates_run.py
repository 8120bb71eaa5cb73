"""Each site template runs: simulated nodes behind its services, as its own checks see them and as clients use them.

A node is an address of the loopback interface where every port of the template is served, so that checks of one fixed
port and services that keep the client's port work as they stand.  Only the port numbers are others, free ones, and the
pace of the checks.  One balancer runs them all, one after the other: a start costs seconds, an `apply` milliseconds.
"""

import asyncio
import http.client
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from equipoise.base.clock import SystemClock
from equipoise.sim.archive import Archive, ArchiveSettings
from equipoise.sim.dicomweb import DicomwebServer
from equipoise.sim.fhir import FhirServer
from equipoise.sim.hl7_audit import Key, audit_messages
from equipoise.sim.hl7_ledger import ReceiverLedger, Taken, read_ledger
from equipoise.sim.hl7_messages import Messages
from equipoise.sim.hl7_receiver import Receiver, ReceiverSettings
from equipoise.sim.hl7_sender import send_all
from equipoise.sim.http_server import Handler
from equipoise.sim.ledger import Ledger
from equipoise.sim.peers import Peer
from equipoise.sim.portal import Portal
from equipoise.sim.ports import free_port
from equipoise.sim.worklist import WORKLIST, WorklistAsker
from equipoise.sim.xds_client import XdsClient
from equipoise.sim.xds_registry import Registry, registry_node
from equipoise.sim.xds_repository import REPOSITORY_ID, Repository, repository_node
from equipoise.templates.model import Template
from equipoise.templates.reader import names, read
from tests.system.balancer import Balancer, eventually
from tests.system.certificates import Authority
from tests.unit.sim.nodes import Running, RunningNode

FRONT = "127.0.0.1"
NODES = {"a": "127.0.0.21", "b": "127.0.0.22"}
EVERYWHERE = (FRONT, *NODES.values())
HEALTH = {"interval": "1s", "timeout": "8s", "rise": "1", "fall": "1"}  # a node that is gone refuses at once
WITHIN_S = 40.0
ANSWERS = {"/api/health/": "allServicesOperative"}


class Site:
    """A template with ports that are free here, and its nodes."""

    def __init__(self, template: Template, directory: Path, certificate: Path) -> None:
        self.template = template
        self._directory = directory
        self._issued = certificate
        self._free: dict[int, int] = {}
        self._running: dict[str, list[Callable[[], None]]] = {node: [] for node in NODES}
        self._senders = count(1)
        registry = RunningNode(registry_node("registry", Registry(directory / "registry")).handle)
        self.registry_url, self._close_registry = registry.url, registry.close

    def answers(self) -> dict[str, str]:
        """Return what the template asks for beyond addresses."""
        known = {"called_ae": "PACS", "cert": str(self._issued), "path": "/xds", "repository": REPOSITORY_ID}
        return {name: value for name, value in known.items() if name in self.template.asks}

    def ports(self, part: str) -> list[int]:
        """Return where clients come to a part."""
        written = self.template.services[part]["ports"]
        return [self.free(int(port)) for port in (self._filled(written) if isinstance(written, str) else written)]

    def node_ports(self, part: str) -> list[int]:
        """Return where the nodes of a part listen."""
        _, colon, port = self.template.services[part]["nodes"].partition(":")
        return [self.free(int(self._filled(port)[0]))] if colon else self.ports(part)

    def free(self, port: int) -> int:
        """Return the port that stands for one of the template's."""
        return self._free.setdefault(port, free_port(*EVERYWHERE))

    def document(self) -> str:
        """Return the balancer's configuration, as JSON, which is YAML."""
        name = self.template.name.replace("_", "-")  # of no other template here, so nothing is left of one before
        use = {"template": self.template.name, "name": name, "vip": FRONT, "nodes": NODES, **self.answers()}
        parts = {part: self._overrides(part) for part in self.template.services}
        return json.dumps({"site": "template", "drain_timeout": "1s", "use": [{**use, "services": parts}]})

    def start_all(self) -> None:
        """Start every node, all at the same time."""
        with ThreadPoolExecutor(len(NODES)) as pool:
            list(pool.map(self.start, NODES))

    def start(self, node: str) -> None:
        """Start all that runs on a node."""
        dicom = [part for part in self.template.services if self._protocol(part) == "dicom"]
        if ports := sorted({port for part in dicom for port in self.node_ports(part)}):
            settings = ArchiveSettings("PACS", node, self._directory / "store", NODES[node], ports[0], tuple(ports[1:]))
            archive = Archive(settings)
            archive.start()
            self._running[node].append(archive.stop)
        served: set[int] = set()  # two parts may share a port of the nodes, as Orthanc's web and DICOMweb do
        for part in self.template.services:
            if part not in dicom:
                for port in sorted(set(self.node_ports(part)) - served):
                    self._serve(node, part, port)
                    served.add(port)

    def stop(self, node: str) -> None:
        """End all that runs on a node."""
        while self._running[node]:
            self._running[node].pop()()

    def close(self) -> None:
        """End everything."""
        with ThreadPoolExecutor(len(NODES)) as pool:
            list(pool.map(self.stop, NODES))
        self._close_registry()

    def messages(self) -> list[Messages]:
        """Return two senders of HL7 messages; no control ID comes twice."""
        return [Messages(f"SIM{next(self._senders)}", 1) for _ in range(2)]

    def taken(self) -> dict[str, list[Taken]]:
        """Return what the receivers of HL7 messages took in."""
        return {path.stem: read_ledger(path) for path in (self._directory / "ledgers").glob("*")}

    def _receive(self, node: str, port: int) -> None:
        ledger = ReceiverLedger(self._directory / "ledgers" / f"{node}-{port}")
        receiver = Running(Receiver(ReceiverSettings(), ledger, SystemClock()), NODES[node], port)
        self._running[node] += [ledger.close, receiver.close]  # the last one first

    def _serve(self, node: str, part: str, port: int) -> None:
        if self._protocol(part) == "hl7":
            self._receive(node, port)
            return
        tls = None
        if self._protocol(part) == "https":
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(self._issued)
        server = RunningNode(self._handler(node, self._protocol(part)), NODES[node], port, tls)
        self._running[node].append(server.close)

    def _handler(self, node: str, protocol: str) -> Handler:
        store = self._directory / "store"
        match protocol:
            case "xds":
                return repository_node(node, Repository(self._directory / "documents", self.registry_url)).handle
            case "fhir":
                return FhirServer(node).handle
            case "dicomweb":
                return DicomwebServer(node, store).handle
        web, dicomweb = Portal(node, ANSWERS, any_path=True), DicomwebServer(node, store)

        async def both(exchange: Any) -> None:
            await (dicomweb if exchange.request.path.endswith("/studies") else web).handle(exchange)

        return both

    def _protocol(self, part: str) -> str:
        return str(self.template.services[part]["protocol"])

    def _overrides(self, part: str) -> dict[str, Any]:
        health = dict(HEALTH)
        if checked := self.template.services[part]["health"].get("port"):
            health["port"] = str(self.free(int(checked)))
        over: dict[str, Any] = {"ports": self.ports(part), "health": health}
        if ":" in self.template.services[part]["nodes"]:
            (port,) = self.node_ports(part)
            over["nodes"] = {node: {"address": f"{host}:{port}"} for node, host in NODES.items()}
        return over

    def _filled(self, text: str) -> list[str]:
        asked = re.fullmatch(r"\$\{(\w+)\}", text)
        return [self.template.asks[asked[1]].default or ""] if asked else [text]


def page(port: int, tls: bool = False) -> str:
    """Return which node serves the page at a port."""
    connection: http.client.HTTPConnection
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(FRONT, port, timeout=30, context=context)
    else:
        connection = http.client.HTTPConnection(FRONT, port, timeout=30)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        assert response.status == 200, f"{port}: {response.status} {response.reason}"
        return response.headers["x-served-by"]
    finally:
        connection.close()


def search(port: int) -> str:
    """Return which node answers a search of DICOMweb."""
    connection = http.client.HTTPConnection(FRONT, port, timeout=30)
    try:
        connection.request("GET", "/dicom-web/studies", headers={"Accept": "application/dicom+json"})
        response = connection.getresponse()
        response.read()
        assert response.status == 204, "an archive without studies"
        return response.headers["x-served-by"]
    finally:
        connection.close()


def documents(site: Site, port: int) -> None:
    """Have a document kept, registered, found and given back."""
    client = XdsClient(site.registry_url, f"http://{FRONT}:{port}/xds")
    content = b"--part\r\n\r\n\x00" * 10_000
    found = client.get(client.provide_and_register(content, "P1"))
    assert found is not None
    assert client.retrieve(found) == content


def worklist(port: int) -> None:
    """Ask for a worklist, which every simulated archive has."""
    ledger = Ledger(SystemClock())
    asker = WorklistAsker("CT1", Peer("PACS", FRONT, port), ledger=ledger, stop=threading.Event(), pause_s=0)
    asker.ask()
    tally = ledger.tally()
    assert (tally.worklists, tally.differences, dict(tally.failures)) == (1, (), {}), WORKLIST


def messages(site: Site, port: int) -> None:
    """Have messages acknowledged, and find each at a receiver."""
    lists = [[sender.any() for _ in range(5)] for sender in site.messages()]
    senders = asyncio.run(send_all(FRONT, port, lists, SystemClock()))
    sent = [one for sender in senders for one in sender.sent]
    found = audit_messages(sent, site.taken(), key=Key.CONNECTION)
    assert (found.problems(), len(found.unharmed)) == ([], 10), [sender.failures for sender in senders]


def use(site: Site, part: str) -> None:
    """Use a service as its clients do, at each of its ports."""
    service = site.template.services[part]
    for port in site.ports(part):
        match str(service["protocol"]):
            case "dicom":
                worklist(port)
            case "hl7":
                messages(site, port)
            case "xds":
                documents(site, port)
            case "dicomweb":
                assert search(port) in NODES
            case "http" | "https" | "tcp":
                assert page(port, tls=service["protocol"] == "https") in NODES
            case other:
                raise AssertionError(f"{part}: no client for {other}")


def use_all(site: Site) -> None:
    """Use every service, all at the same time."""
    parts = list(site.template.services)
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(lambda part: use(site, part), parts))


@pytest.fixture(scope="module")
def balancer() -> Iterator[Balancer]:
    nobody = {
        "protocol": "tcp",
        "listen": f"{FRONT}:{free_port(*EVERYWHERE)}",
        "nodes": {"nobody": {"address": f"{FRONT}:1"}},
    }
    with Balancer(json.dumps({"site": "template", "services": {"idle": nobody}})) as balancer:
        yield balancer


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Authority(tmp_path_factory.mktemp("authority")).issue("localhost").both


def states(balancer: Balancer, node: str) -> Mapping[str, str]:
    """Return the state of a node in each service."""
    services = balancer.status()["services"]
    return {name: f"{of['nodes'][node]['state']} {of['nodes'][node]['check']}" for name, of in services.items()}


def all_are(balancer: Balancer, nodes: Sequence[str], state: str) -> bool:
    return all(said.startswith(f"{state} {{") for node in nodes for said in states(balancer, node).values())


@pytest.mark.parametrize("name", names())
def test_a_template_serves_and_loses_a_node(name: str, balancer: Balancer, certificate: Path, tmp_path: Path) -> None:
    with closing(Site(read(name), tmp_path, certificate)) as site:
        site.start_all()
        answer = balancer.post("apply", document=site.document(), force=True)
        assert answer.status_code == 200, answer.text
        try:
            serve_and_lose_a_node(site, balancer)
        except AssertionError as error:
            raise AssertionError(f"{error}; {states(balancer, 'a')}; {states(balancer, 'b')}") from error


def serve_and_lose_a_node(site: Site, balancer: Balancer) -> None:
    eventually(lambda: all_are(balancer, [*NODES], "up"), WITHIN_S, "all nodes up, as the template checks them")
    use_all(site)
    site.stop("a")
    eventually(lambda: all_are(balancer, ["a"], "down"), WITHIN_S, "node a down in all services")
    assert all_are(balancer, ["b"], "up")
    use_all(site)
    site.start("a")
    eventually(lambda: all_are(balancer, ["a"], "up"), WITHIN_S, "node a up again")
