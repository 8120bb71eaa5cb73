"""The laboratory with a balancer in it, for the tests of layer 4: each puts its own services on it, by `apply`.

Names and ports of services are never used twice, so that no flow of an earlier test is met again.
"""

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pytest

from tests.lab.lab import VIPS, VIPS6, Lab, Segment, missing
from tests.lab.machines import WEB_PORTS, Call, Client, Node, write_pages
from tests.system.balancer import PATIENCE_S, Balancer, eventually

# Servers that die refuse at once.  A balancer on a busy machine may itself be late, and then no node is to be down.
QUICK_CHECK = {"check": "tcp", "interval": "500ms", "timeout": "5s", "rise": 1, "fall": 2}
IMPATIENT_CHECK = {**QUICK_CHECK, "interval": "300ms", "timeout": "2s"}  # of nodes that fall silent
Version = Literal[4, 6]


@dataclass(frozen=True, slots=True)
class Way:
    """A way for packets to travel.

    Attributes:
        inner: Whether its nodes are those behind the balancer.
        settings: What a service says for it.
        hides_client: Whether nodes see the balancer's address instead of the client's.
    """

    name: str
    inner: bool
    settings: Mapping[str, Any]
    hides_client: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def nodes(self) -> tuple[str, str]:
        """Return two nodes for it."""
        return ("x", "y") if self.inner else ("a", "b")


DIRECT = Way("dr", inner=False, settings={"mode": "l4_dr"})
TRANSLATED = Way("nat", inner=True, settings={"mode": "l4_nat"})
MASQUERADED = Way("masquerade", inner=False, settings={"mode": "l4_nat", "masquerade": True}, hides_client=True)
WAYS = (DIRECT, TRANSLATED, MASQUERADED)


class Transfer:
    """Pages that a client gets over one connection, one after the other, each compared, until it is stopped."""

    def __init__(self, call: Call, expected: bytes, path: str = "/small") -> None:
        self.node = call.node()
        self.pages, self.failure = 0, ""
        self._call, self._expected, self._path = call, expected, path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Transfer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(60)
        self._call.close()

    def goes_on(self, pages: int = 3) -> None:
        """Wait for so many more pages."""
        wanted = self.pages + pages

        def look() -> bool:
            assert self.failure == "", f"{self.failure} after {self.pages} pages of {self.node}"
            return self.pages >= wanted

        eventually(look, 30, f"page {wanted} of {self.node}")

    def wait_failure(self, within_s: float = PATIENCE_S) -> str:
        """Wait until it is cut, and return how."""
        return eventually(lambda: self.failure, within_s, f"a cut of the transfer from {self.node}")

    def _work(self) -> None:
        while not self._stop.wait(0.02):
            try:
                body = self._call.get(self._path)
            except (OSError, HTTPException, AssertionError) as error:
                self.failure = repr(error)
                return
            if body != self._expected:
                self.failure = f"{len(body)} bytes of {len(self._expected)}, or others"
                return
            self.pages += 1


@dataclass(frozen=True, slots=True)
class Served:
    """One service of the stage."""

    stage: "Stage"
    name: str
    address: str
    port: int
    document: Mapping[str, Any] = field(repr=False)

    @property
    def far(self) -> Client:
        """Return the client behind the router."""
        return self.stage.lab.far

    def call(self, client: Client | None = None, source: str = "") -> Call:
        """Open a connection."""
        return (client or self.far).call(self.address, self.port, source=source, timeout_s=60)

    def nodes(self, times: int, source: str = "") -> list[str]:
        """Return which nodes so many new connections reached."""
        return self.far.nodes(self.address, self.port, times, source=source)

    def wait_nodes(self, *wanted: str, within_s: float = PATIENCE_S) -> None:
        """Wait until new connections reach these nodes and no others: a state is told before it is in force."""

        def look() -> bool:
            try:
                return set(self.nodes(4 * len(wanted))) == set(wanted)
            except OSError:
                return False

        eventually(look, within_s, f"new connections for {wanted} alone")

    def transfer(self, source: str = "") -> Transfer:
        """Return pages over one connection."""
        return Transfer(self.call(source=source), self.stage.page("small"))

    def transfer_from(self, node: str) -> Transfer:
        """Return pages of a certain node over one connection."""
        for _ in range(40):
            transfer = self.transfer()
            if transfer.node == node:
                return transfer
            transfer._call.close()
        raise AssertionError(f"no connection of 40 reached {node}")

    def status(self) -> Any:
        """Return the service's part of the status."""
        return self.stage.balancer.status(self.name)

    def connections(self) -> dict[str, int]:
        """Return what is open at each node."""
        return {name: node["connections"] for name, node in self.status()["nodes"].items()}

    def wait_connections(self, within_s: float = PATIENCE_S, **wanted: int) -> None:
        """Wait until just so many flows are open at these nodes."""
        eventually(lambda: wanted.items() <= self.connections().items(), within_s, f"{wanted}, {self.connections()}")

    def wait_state(self, node: str, state: str, within_s: float = PATIENCE_S) -> None:
        """Wait until a node is in this state."""
        self.stage.balancer.wait_state(self.name, node, state, within_s)

    def operate(self, action: str, node: str, weight: int | None = None) -> None:
        """Do what an operator does with the command line, by the API that it asks."""
        pattern = f"{self.name}/{node}"
        answer = self.stage.balancer.post("nodes", pattern=pattern, action=action, weight=weight)
        assert answer.json() == {"changed": [pattern]}, answer.text

    def change(self, **settings: Any) -> None:
        """Apply the document with other settings of this service."""
        self.stage.apply({self.name: {**self.document, **settings}})


class Stage:
    """The laboratory, web servers on its nodes, and a balancer whose services come and go."""

    def __init__(self, folder: Path, lab: Lab) -> None:
        self.lab, self.folder = lab, folder
        self.pages = folder / "www"
        self._ports = itertools.count(WEB_PORTS[0] + 1)
        self._numbers = itertools.count(1)
        write_pages(self.pages)
        for node in lab.all_nodes.values():
            node.serve_web(self.pages)
        self.balancer = Balancer(document({}), prefix=lab.balancer.prefix)

    def __enter__(self) -> "Stage":
        self.balancer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.balancer.__exit__(kind, error, trace)

    def page(self, name: str) -> bytes:
        """Return what a page must be."""
        return (self.pages / name).read_bytes()

    def node(self, name: str) -> Node:
        """Return a node of the laboratory."""
        return self.lab.all_nodes[name]

    def serve(
        self,
        way: Way,
        nodes: Mapping[str, Mapping[str, Any]] | Iterable[str] | None = None,
        *,
        version: Version = 4,
        port: int | None = None,
        node_port: int | None = None,
        vip: int = 0,
        **settings: Any,
    ) -> Served:
        """Put one service on the stage, in place of those of the last test, and wait until its nodes are up.

        Args:
            way: How packets travel.
            nodes: Names, or names with further keys of the document.
            version: Of IP.
            port: What clients call; by default one that nobody called before.
            node_port: Where it is another one.
            vip: Which of `VIPS`.
            settings: Further keys of the service.
        """
        port = port or next(self._ports)
        address = (VIPS if version == 4 else VIPS6)[vip]
        written = {
            "protocol": "tcp",
            "listen": endpoint(address, port),
            "balance": "round_robin",
            "persistence": {"by": "none"},
            "health": QUICK_CHECK,
            "slow_start": "0s",
            "nodes": self._listed(way, nodes, version, node_port or port),
            **way.settings,
            **settings,
        }
        served = Served(self, f"service-{next(self._numbers)}", address, port, written)
        self.apply({served.name: written})
        for name in written["nodes"]:
            served.wait_state(name, "up")
        return served

    def _listed(
        self, way: Way, nodes: Mapping[str, Mapping[str, Any]] | Iterable[str] | None, version: Version, port: int
    ) -> dict[str, Any]:
        named = nodes if isinstance(nodes, Mapping) else {name: {} for name in nodes or way.nodes}
        addresses = {name: endpoint(self.node(name).address(version), port) for name in named}
        return {name: {"address": addresses[name], **keys} for name, keys in named.items()}

    def apply(self, services: Mapping[str, Any], **top: Any) -> None:
        """Have the balancer carry these services and no others."""
        answer = self.balancer.post("apply", document=document(services, **top), force=True)
        assert answer.status_code == 200, answer.text

    def command(self, *arguments: str, site: str = "") -> subprocess.CompletedProcess[str]:
        """Run `equipoise` on the balancer's machine; `site` is written to a file, which is its last argument."""
        last = []
        if site:
            (self.folder / "asked.yaml").write_text(site)
            last = [str(self.folder / "asked.yaml")]
        return self.lab.balancer.run(sys.executable, "-m", "equipoise", *arguments, *last, timeout_s=60)

    def seen_by_nodes(self, way: Way, client: Client, version: Version) -> set[str]:
        """Return the addresses of which nodes may see one when a client calls."""
        if not way.hides_client:
            return {client.address(version)}
        segment = Segment.SERVERS
        return {segment.v4(2) if version == 4 else segment.v6(2)}


def document(services: Mapping[str, Any], **top: Any) -> str:
    """Return a document; JSON is YAML, too."""
    idle = {"protocol": "tcp", "mode": "l4_nat", "listen": f"{VIPS[0]}:9", "health": {"check": "tcp", "interval": "1h"}}
    nobody = {"idle": {**idle, "nodes": {"nobody": {"address": f"{Segment.INNER.v4(99)}:9"}}}}
    return json.dumps({"site": "lab", "drain_timeout": "1s", "services": services or nobody, **top})


def endpoint(address: str, port: int) -> str:
    """Return address and port as a document has them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def settled(look: Any, for_s: float = 1.0) -> None:
    """Hold that something stays as it is for a while."""
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        assert look()
        time.sleep(0.05)


@contextmanager
def in_laboratory(folder: Path, vips: int = 1) -> Iterator[Stage]:
    """Yield the stage in a laboratory of its own; where there can be none, the test is skipped and says why."""
    if reason := missing():
        pytest.skip(f"layer 4 was not tested: {reason}")
    with Lab(folder, vips=vips) as lab, Stage(folder, lab) as stage:
        yield stage
