"""What is compared at layer 4, each on a machine of its own, and how it is asked.

A supervisor sleeps while others are measured (SIGSTOP): the kernel goes on without it, and what it costs to look at
flows is paid where it belongs.  Leaves out the network (`layer4_network.py`).
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import processes
from bench.contenders import (
    DIRECT,
    TUNED,
    Contender,
    Program,
    Site,
    await_serving,
    equipoise_environment,
    haproxy_command,
    launch,
    runtime_directory,
    start,
    start_equipoise,
)
from bench.layer4_network import (
    DICOM_PORT,
    NAT,
    OTHER_PROXY,
    PROXIES,
    STREAM_MODULE,
    VIPS,
    WEB_PORT,
    A,
    B,
    Machines,
    X,
    Y,
    must,
    passed_bytes,
)
from bench.programs import HERE, BenchError, LoadResult, load_command
from bench.web_contenders import NGINX, SIZES, nginx_command
from bench.web_load import WebLoad, plain_command, read_plain
from equipoise.base.errors import EquipoiseError
from equipoise.cli.client import Client
from tests.system.netns import Host

DR, LEAST, FULL, TRANSLATED, ROUTED = "dr", "dr-least", "dr-full", "nat", "routed"
SERVICE = "pacs"
NODES = {"a": A, "b": B}
_STATE_WAIT_S = 30.0
_REST_WAIT_S, _REST_EVERY_S, _REST_LOOKS = 2.0, 0.004, 6


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of load; `key` is the figure that counts, `share` the part of a run's seconds that it gets."""

    name: str
    key: str
    unit: str
    share: float = 1.0
    web: WebLoad | None = None
    dicom: tuple[str, Mapping[str, int]] = ("", {})


RETRIEVAL = Load("retrieval: 30 MB x 4", "mb_per_s", "MB/s", web=WebLoad("retrieval", "/30MB", 4, SIZES["30MB"]))
CONNECTIONS = Load("new connections: 16 at a time", "per_s", "a second", dicom=("associate", {"associations": 16}))
STORAGE = Load(
    "storage: 520 kB x 4",
    "mb_per_s",
    "MB/s",
    share=1 / 4,
    dicom=("store", {"associations": 4, "object-bytes": 520_000}),
)
LOADS = (RETRIEVAL, CONNECTIONS, STORAGE)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to the nodes: the contender, and the machine that its traffic may cross."""

    contender: Contender
    machine: Host | None

    @property
    def name(self) -> str:
        """What it is called."""
        return self.contender.name

    def passed_bytes(self) -> int:
        """Return what its machine has received and sent so far."""
        return passed_bytes(self.machine) if self.machine else 0

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let its supervisor run meanwhile."""
        _signal(self.contender.supervisor, signal.SIGCONT)
        try:
            yield
        finally:
            put_to_sleep(self.contender.supervisor)


def put_to_sleep(supervisor: frozenset[int]) -> None:
    """Stop a supervisor once it is idle: one stopped in the middle of a look finds that looks take minutes."""
    end, idle = time.monotonic() + _REST_WAIT_S, 0
    while supervisor and idle < _REST_LOOKS and time.monotonic() < end:
        idle = 0 if any(processes.is_running(pid) for pid in supervisor) else idle + 1
        time.sleep(_REST_EVERY_S)
    _signal(supervisor, signal.SIGSTOP)


def _signal(pids: frozenset[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass(frozen=True, slots=True)
class Layer4:
    """One Equipoise in the kernel of its machine."""

    host: Host
    program: Program
    socket: Path

    def client(self) -> Client:
        """Return who asks its API."""
        return Client(self.socket)

    def status(self) -> dict[str, Any]:
        """Return the status of its service.  Raises: EquipoiseError."""
        found: dict[str, Any] = self.client().status()["services"][SERVICE]
        return found

    def not_up(self) -> str:
        """Return which nodes are not up yet; nothing when all are."""
        try:
            nodes = self.status()["nodes"]
        except EquipoiseError as error:
            return str(error)
        waiting = [name for name, node in nodes.items() if node["state"] != "up"]
        return f"{', '.join(waiting[:5])} are not up" if waiting else ""

    def stop(self) -> None:
        """End it, asleep or not."""
        _signal(frozenset({self.program.process.pid}), signal.SIGCONT)
        self.program.stop()


def document(site: Site, name: str, mode: str, address: str, balance: str, nodes: Mapping[str, str]) -> Path:
    """Write the document of one Equipoise, and return where it is."""
    listed = json.dumps({node: {"address": node_address} for node, node_address in nodes.items()})
    ports = {"web_port": str(WEB_PORT), "dicom_port": str(DICOM_PORT)}
    places = {"mode": mode, "address": address, "balance": balance, "nodes": listed, **ports}
    return site.fill(HERE / "sites" / "layer4.yaml", name, WEB_PORT, places)


def run_equipoise(name: str, host: Host, config: Path, site: Site, stack: ExitStack) -> Layer4:
    """Start Equipoise on a machine, and return it once all its nodes are up.  Raises: BenchError."""
    mark = ("EQUIPOISE_RUNTIME_DIR", equipoise_environment(name, site)["EQUIPOISE_RUNTIME_DIR"])
    program = start_equipoise(name, config, site, mark, host.prefix)
    started = Layer4(host, program, runtime_directory(site, name) / "api.sock")
    stack.callback(started.stop)
    await_serving(name, program, started.not_up)
    return started


def ask(client: Host, load: Load, address: str, seconds: float) -> dict[str, Any]:
    """Ask from the client's machine, and return what came of it.  Raises: BenchError."""
    if load.web is not None:
        asked = read_plain(must(client, *plain_command(load.web, str(WEB_PORT), seconds, address=address)))
        counted, errors, first = asked.requests, asked.errors, asked.first_error
        moved, took_s, cpu_s = asked.bytes, asked.seconds, asked.cpu_s
    else:
        mode, options = load.dicom
        command = load_command(mode, DICOM_PORT, {**options, "address": address, "seconds": seconds, "patience": 30})
        done = client.run(*command, timeout_s=seconds + 90)
        if done.returncode not in (0, 3):
            raise BenchError(f"dicom_load {mode} failed: {done.stderr.strip()}")
        result = LoadResult.read(done.stdout)
        counted, errors, first = result.associations, result.errors, result.first_error
        moved, took_s, cpu_s = result.bytes, result.seconds, result.cpu_s
    return {
        "seconds": took_s,
        "done": counted,
        "bytes": moved,
        "errors": errors,
        "first_error": first if errors else "" if counted else "nothing was answered",
        "generator_cpu_s": cpu_s,
        "per_s": round(counted / max(took_s, 1e-6), 1),
        "mb_per_s": round(moved / 1e6 / max(took_s, 1e-6), 1),
    }


def _asked(client: Host, address: str) -> Callable[[], str]:
    """Return what finds out whether an address serves."""

    def ready() -> str:
        try:
            tried = [ask(client, load, address, 0.1) for load in (RETRIEVAL, CONNECTIONS)]
        except BenchError as error:
            return str(error)
        return next((one["first_error"] for one in tried if one["first_error"]), "")

    return ready


@dataclass(frozen=True, slots=True)
class Stage:
    """Where contenders are started, and what they are started with."""

    site: Site
    machines: Machines
    stack: ExitStack
    layer4: dict[str, Layer4] = field(default_factory=dict)

    def without(self, name: str, nodes: Sequence[str], machine: Host | None) -> Way:
        """Return a way to the nodes' own addresses."""
        return Way(Contender(name, WEB_PORT, options={"address": ",".join(nodes)}), machine)

    def equipoise(self, name: str, mode: str, host: Host, address: str, balance: str, nodes: Mapping[str, str]) -> Way:
        """Start Equipoise, and wait until its service answers.  Raises: BenchError."""
        config = document(self.site, name, mode, address, balance, nodes)
        started = run_equipoise(name, host, config, self.site, self.stack)
        await_serving(name, started.program, _asked(self.machines.client, address))
        self.layer4[name] = started
        supervisor = frozenset({started.program.process.pid})
        put_to_sleep(supervisor)
        return Way(Contender(name, WEB_PORT, supervisor=supervisor, options={"address": address}), host)

    def routing(self, name: str, balance: str) -> Way:
        """Start Equipoise in l4_dr.  Raises: BenchError."""
        return self.equipoise(name, "l4_dr", self.machines.direct_routing[name], VIPS[name], balance, NODES)

    def proxy(self, name: str, template: str, address: str, command: Callable[[Path], list[str]]) -> Way:
        """Start a proxy.  Raises: BenchError."""
        places = {"address": address, "node_a": A, "node_b": B, "stream_module": str(STREAM_MODULE)}
        places |= {"web_port": str(WEB_PORT), "dicom_port": str(DICOM_PORT)}
        config = self.site.fill(HERE / template, name, WEB_PORT, places)
        program = start(name, [*self.machines.proxies.prefix, *command(config)], self.site)
        self.stack.callback(program.stop)
        contender = launch(name, program, WEB_PORT, {"address": address}, _asked(self.machines.client, address))
        relay = contender.relay | contender.supervisor  # all of it stays awake: nothing of it looks at anything
        return Way(replace(contender, relay=relay, supervisor=frozenset()), self.machines.proxies)


# In the order in which they are measured first: those that are compared with each other are neighbours.
CONTENDERS: Mapping[str, Callable[[Stage], Way]] = {
    DIRECT: lambda stage: stage.without(DIRECT, (A, B), None),
    DR: lambda stage: stage.routing(DR, "round_robin"),
    LEAST: lambda stage: stage.routing(LEAST, "least_connections"),
    FULL: lambda stage: stage.routing(FULL, "least_connections"),
    TUNED: lambda stage: stage.proxy(TUNED, "haproxy/layer4.cfg", PROXIES, haproxy_command),
    NGINX: lambda stage: stage.proxy(NGINX, "nginx/layer4.conf", OTHER_PROXY, nginx_command),
    ROUTED: lambda stage: stage.without(ROUTED, (X, Y), stage.machines.router),
    TRANSLATED: lambda stage: stage.equipoise(
        TRANSLATED, "l4_nat", stage.machines.nat, NAT, "round_robin", {"x": X, "y": Y}
    ),
}


def busy_s() -> float:
    """Return how many seconds all cores together have worked: what the kernel forwards belongs to no process.

    Source: proc_stat(5); without idle and iowait, and without guests, which are in the first two.
    """
    fields = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def measure_way(way: Way, load: Load, machines: Machines, seconds: float) -> dict[str, Any]:
    """Return what one contender did with one load.  Raises: BenchError."""
    contender = way.contender
    watched = {"relay": contender.relay, "supervisor": contender.supervisor, "sink": machines.node_processes()}
    with way.awake():
        before = {who: processes.cpu_s(pids) for who, pids in watched.items()}
        passed, busy = way.passed_bytes(), busy_s()
        asked = ask(machines.client, load, contender.options["address"], seconds * load.share)
        used = {f"{who}_cpu_s": round(processes.cpu_s(pids) - before[who], 3) for who, pids in watched.items()}
        used["machine_cpu_s"] = round(busy_s() - busy, 3)
        crossed = way.passed_bytes() - passed
    percent = round(100 * crossed / asked["bytes"], 3) if asked["bytes"] else 0.0
    return {"contender": way.name, "load": load.name, **asked, **used, "crossed_bytes": crossed, "crossed_%": percent}


def await_connections(layer4: Layer4, at_least: int) -> int:
    """Return how many flows a supervisor sees, once it sees so many, or after a while.  Raises: EquipoiseError."""
    end = time.monotonic() + _STATE_WAIT_S
    while (seen := int(layer4.status()["connections"])) < at_least and time.monotonic() < end:
        time.sleep(0.5)
    return seen
