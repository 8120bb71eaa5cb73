"""A simulated site: nodes that share one store, as a PACS cluster does, and the balancer in front of them.

What the nodes are is a scene: archives with HL7 receivers (here), or the services of a site template (`scene.py`).
Each program is a process of its own, on free ports of the loopback interface, below one directory; `Site.close` ends
them all, by their process ids.  Leaves out the devices (`workload.py`).
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Protocol

from equipoise.base.processes import Process, kill, start_detached, start_ready
from equipoise.sim.hl7_ledger import Taken, read_ledger
from equipoise.sim.peers import Peer
from equipoise.sim.ports import free_port
from equipoise.sim.store import Store
from equipoise.sim.workload import Fronts

SERVICE = "pacs-dicom"
HL7_SERVICE = "hl7"
AE_TITLE = "PACS"
NODES = ("pacs-a", "pacs-b", "pacs-c")
_HOST = "127.0.0.1"
_READY_S = 20.0
_POLL_S = 0.05
_MARK = "EQUIPOISE_SIMULATED_SITE"
_LOG_TAIL_BYTES = 2000
_LEDGER = ".jsonl"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the site keeps its things.

    Attributes:
        work: Store, ledgers, logs and site.yaml.
        short: Holds the balancer's runtime directory; short, for Linux limits the paths of Unix sockets.
    """

    work: Path
    short: Path

    @property
    def runtime(self) -> Path:
        """The balancer's runtime directory."""
        return self.short / "run"

    @property
    def store(self) -> Path:
        """The directory that the archives share."""
        return self.work / "store"

    @property
    def ledgers(self) -> Path:
        """The directory of the HL7 receivers' ledgers."""
        return self.work / "ledgers"

    def log(self, name: str) -> Path:
        """What a process said."""
        return self.work / f"{name}.log"


class Scene(Protocol):
    """What a site consists of."""

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the balancer's services."""

    @property
    def fronts(self) -> Fronts:
        """Where devices call the balancer."""

    @property
    def ports(self) -> Mapping[str, int]:
        """Each node, with the port at which it stores."""

    def programs(self, node: str, places: Places) -> Mapping[str, Sequence[str]]:
        """Return what runs on a node: the arguments of Python, by the name of the log."""

    def document(self) -> str:
        """Return the balancer's configuration."""


class Servers:
    """The plain scene: two services, DICOM and HL7, and on each node an archive and a receiver of messages."""

    services = (SERVICE, HL7_SERVICE)

    def __init__(self, nodes: Sequence[str]) -> None:
        self.ports: Mapping[str, int] = {node: free_port() for node in nodes}
        self._hl7_ports = {node: free_port() for node in nodes}
        front = Peer(AE_TITLE, _HOST, free_port())
        self.fronts = Fronts(store=front, query=front, hl7=(Peer(AE_TITLE, _HOST, free_port()),))

    def programs(self, node: str, places: Places) -> Mapping[str, Sequence[str]]:
        """Return the archive and the receiver."""
        return {
            node: archive_program(node, places.store, (self.ports[node],)),
            f"{node}-hl7": receiver_program(node, places.ledgers, self._hl7_ports[node]),
        }

    def document(self) -> str:
        """Return the balancer's configuration."""
        return site_yaml(self.fronts.store, self.ports) + hl7_yaml(self.fronts.hl7[0], self._hl7_ports)


def archive_program(node: str, store: Path, ports: Sequence[int]) -> list[str]:
    """Return the arguments of Python that run an archive at these ports."""
    command = ["-m", "equipoise.sim.archive", "--ae", AE_TITLE, "--name", node, "--store", str(store)]
    command += ["--port", str(ports[0])]
    return command + [word for port in ports[1:] for word in ("--also", str(port))]


def receiver_program(name: str, ledgers: Path, port: int) -> list[str]:
    """Return the arguments of Python that run a receiver of HL7 messages."""
    ledger = ledgers / f"{name}{_LEDGER}"
    command = ["-m", "equipoise.sim.hl7_receiver", "--name", name, "--ledger", str(ledger), "--port", str(port)]
    return [*command, "--delay", "20ms"]  # so that messages are under way when one is killed


class Site:
    """The processes of one simulated site."""

    def __init__(
        self,
        places: Places,
        nodes: Sequence[str] = NODES,
        balancer: Sequence[str] = ("-m", "equipoise", "run"),
        scene: Scene | None = None,
    ) -> None:
        self._balancer_arguments = tuple(balancer)
        self._places = places
        self.scene: Scene = scene or Servers(nodes)
        self._running: dict[str, dict[str, Process]] = {}
        self.balancer: Process | None = None
        self.store = Store(places.store)

    @property
    def ports(self) -> Mapping[str, int]:
        """Each node, with the port at which it stores."""
        return self.scene.ports

    @property
    def front(self) -> Peer:
        """Where the balancer takes what is stored."""
        return self.scene.fronts.store

    def start_nodes(self) -> None:
        """Start all nodes, at the same time.  Raises: EquipoiseError, OSError."""
        with ThreadPoolExecutor(max(1, len(self.ports))) as pool:
            list(pool.map(self.start_node, self.ports))

    def start_node(self, node: str) -> None:
        """Start one node, where it was if it ran before.  Raises: EquipoiseError, OSError."""
        programs = self._running.setdefault(node, {})
        for name, arguments in self.scene.programs(node, self._places).items():
            command = [sys.executable, *arguments, "--end-with-input"]
            programs[name], _ = start_ready(command, self._places.log(name), _READY_S, environment(self._places))

    def kill_node(self, node: str) -> None:
        """End one node as a power cut does: all that runs on it at once."""
        programs = self._running.pop(node).values()
        for process in programs:
            process.kill()
        for process in programs:
            process.wait()

    def is_running(self, node: str) -> bool:
        """Say whether this node was started and not killed."""
        return node in self._running

    def taken(self) -> Mapping[str, list[Taken]]:
        """Return what the receivers of HL7 messages took in, by receiver."""
        return {path.stem: read_ledger(path) for path in self.ledgers()}

    def ledgers(self) -> list[Path]:
        """Return the files of the HL7 receivers."""
        return sorted(self._places.ledgers.glob(f"*{_LEDGER}"))

    def start_balancer(self) -> None:
        """Write site.yaml and start the balancer with it; it is not ready yet.  Raises: OSError."""
        config = self._places.work / "site.yaml"
        config.write_text(self.scene.document(), encoding="utf-8")
        command = [sys.executable, *self._balancer_arguments, str(config)]
        self.balancer = start_detached(command, self._places.log("balancer"), environment(self._places))

    def dead(self) -> list[str]:
        """Return what ended though nobody asked it to, each with the end of its log."""
        running = self._programs() | ({"balancer": self.balancer} if self.balancer else {})
        return [
            f"{name} ended with exit code {process.returncode}: {self._log_tail(name)}"
            for name, process in running.items()
            if process.poll() is not None
        ]

    def close(self) -> list[str]:
        """End everything; return what did not end when asked and had to be killed."""
        stubborn = []
        if self.balancer is not None and not _end(self.balancer, patience_s=6.0):
            stubborn.append(f"the balancer (process {self.balancer.pid}) did not end within 6 s of SIGTERM")
        for process in self._programs().values():
            process.terminate()
        for process in self._programs().values():
            _end(process, patience_s=2.0)
        # The engines run in sessions of their own and outlive a supervisor that was killed.
        for pid in processes_of(self._places):
            stubborn.append(f"process {pid} was left over and was killed")
            kill(pid, SIGKILL)
        _wait(lambda: not processes_of(self._places), patience_s=2.0)
        return stubborn

    def _programs(self) -> dict[str, Process]:
        return {name: process for programs in self._running.values() for name, process in programs.items()}

    def _log_tail(self, name: str) -> str:
        try:
            content = self._places.log(name).read_bytes()[-_LOG_TAIL_BYTES:]
        except OSError:
            return "it left no log"
        return content.decode(errors="replace").strip() or "it said nothing"


def site_yaml(front: Peer, ports: Mapping[str, int]) -> str:
    """Return the configuration of the balancer."""
    return (
        "site: demo\n"
        "drain_timeout: 3s\n"
        "services:\n"
        f"  {SERVICE}:\n"
        "    protocol: dicom\n"
        f"    listen: '{front.host}:{front.port}'\n"
        "    balance: least_connections\n"
        f"    health: {{check: dicom_echo, interval: 1s, timeout: 1s, rise: 1, fall: 2, calling_ae: EQUIPOISE, "
        f"called_ae: {AE_TITLE}}}\n"
    ) + _nodes_yaml(ports)


def hl7_yaml(front: Peer, ports: Mapping[str, int]) -> str:
    """Return a further service of it: the messages about a patient go to one receiver, in their order."""
    return (
        f"  {HL7_SERVICE}:\n"
        "    protocol: hl7\n"
        f"    listen: '{front.host}:{front.port}'\n"
        "    hl7: {key: patient}\n"
        "    health: {check: tcp, interval: 1s, timeout: 1s, rise: 1, fall: 2}\n"
    ) + _nodes_yaml(ports)


def _nodes_yaml(ports: Mapping[str, int]) -> str:
    lines = (f"      {node}: {{address: '{_HOST}:{port}'}}\n" for node, port in ports.items())
    return "    nodes:\n" + "".join(lines)


def environment(places: Places) -> dict[str, str]:
    """Return what the processes of a site find around them: ours, the balancer's directories, and the site's mark."""
    return {
        **os.environ,
        _MARK: str(places.short),
        "EQUIPOISE_RUNTIME_DIR": str(places.runtime),
        "EQUIPOISE_STATE_DIR": str(places.short / "state"),
    }


def processes_of(places: Places) -> list[int]:
    """Return the processes that carry a site's mark, whoever started them.

    Not those that only name its directories: somebody may look at them, from a shell of his own.
    """
    mark = os.fsencode(f"{_MARK}={places.short}")
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            marked = mark in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # ended, or another user's
        if marked and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return sorted(found)


def _end(process: Process, patience_s: float) -> bool:
    """Ask a process to end, and make it end; say whether asking was enough."""
    kill(process.pid, SIGTERM)
    if _wait(lambda: process.poll() is not None, patience_s):
        return True
    process.kill()
    process.wait()
    return False


def _wait(until: Callable[[], bool], patience_s: float) -> bool:
    for _ in range(int(patience_s / _POLL_S)):
        if until():
            return True
        time.sleep(_POLL_S)
    return until()
