"""One balancer for many tests: each puts its own services on it, by `apply`, and sees its own events and status.

A start costs seconds, an apply milliseconds.  Names of services are never used twice, so nothing is left of a test.
"""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from equipoise.sim.ports import free_port
from tests.system.balancer import Balancer, eventually

# pynetdicom keeps a thread for each connection without a request until its time is over: nodes are checked once.
CHECKED_ONCE = {"check": "tcp", "interval": "1h", "rise": 1}
# For nodes that stop and start: DCMTK's.  They refuse when they are gone; one that is slow is not.
QUICK_CHECK = {"check": "tcp", "interval": "200ms", "timeout": "2s", "rise": 1, "fall": 1}


def checked_elsewhere(port: int) -> dict[str, Any]:
    """Return a check that looks at another port: a node that is dead stays in rotation, for the set-up's own retry."""
    return {"check": "tcp", "interval": "1h", "port": port}


@dataclass(frozen=True, slots=True)
class Served:
    """One service of the stage."""

    balancer: Balancer
    name: str
    port: int

    def status(self) -> Any:
        """Return the service's part of the status."""
        return self.balancer.status(self.name)

    def connections(self) -> dict[str, int]:
        """Return what is open at each node."""
        return {name: node["connections"] for name, node in self.status()["nodes"].items()}

    def wait_connections(self, **open_now: int) -> None:
        """Wait until just so many associations are open at these nodes."""
        eventually(lambda: open_now.items() <= self.connections().items(), what=f"{open_now}, {self.connections()}")

    def wait_state(self, node: str, state: str) -> None:
        """Wait until a node is in this state."""
        self.balancer.wait_state(self.name, node, state)

    def operate(self, action: str, node: str, weight: int | None = None) -> None:
        """Do what an operator does with the command line, by the API that it asks."""
        answer = self.balancer.post("nodes", pattern=f"{self.name}/{node}", action=action, weight=weight)
        assert answer.json() == {"changed": [f"{self.name}/{node}"]}, answer.text

    def ended(self, count: int) -> list[dict[str, Any]]:
        """Wait until this many associations have ended, and no more, and return their events, oldest first."""

        def look() -> list[dict[str, Any]]:
            found = [event for event in self.balancer.events("association.ended") if event["service"] == self.name]
            return found if len(found) >= count else []

        found = eventually(look, what=f"{count} association.ended events of {self.name}")
        assert len(found) == count, found
        return found


class Stage:
    """A balancer whose services come and go."""

    _numbers = itertools.count(1)

    def __init__(self) -> None:
        self.balancer = Balancer(_document({"idle": _service(free_port(), {"nobody": {"address": "127.0.0.1:1"}}, {})}))

    def __enter__(self) -> "Stage":
        self.balancer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.balancer.__exit__(kind, error, trace)

    def serve(self, nodes: Mapping[str, Any], **settings: Any) -> Served:
        """Put one service on the stage, in place of those of the last test.

        Args:
            nodes: By name: a port of 127.0.0.1, an address, or the keys of the document.
            settings: Further keys of the service.
        """
        return self.serve_all([(nodes, settings)])[0]

    def serve_all(self, wanted: list[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[Served]:
        """Put several services on the stage."""
        served, services = [], {}
        for nodes, settings in wanted:
            name, port = f"service-{next(self._numbers)}", free_port()
            services[name] = _service(port, nodes, settings)
            served.append(Served(self.balancer, name, port))
        answer = self.balancer.post("apply", document=_document(services), force=True)
        assert answer.status_code == 200, answer.text
        eventually(lambda: all(map(_is_checked, served)), 30, "a first check of each node")
        return served


def _is_checked(service: Served) -> bool:
    return all(node["check"] is not None for node in service.status()["nodes"].values())


def _document(services: Mapping[str, Any]) -> str:
    return json.dumps({"site": "stage", "services": services})  # JSON is YAML, too


def _service(port: int, nodes: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "protocol": "dicom",
        "listen": f"127.0.0.1:{port}",
        "balance": "first_up",
        "health": CHECKED_ONCE,
        "nodes": {name: _node(node) for name, node in nodes.items()},
        **settings,
    }


def _node(node: Any) -> Any:
    if isinstance(node, int):
        return {"address": f"127.0.0.1:{node}"}
    return {"address": node} if isinstance(node, str) else node
