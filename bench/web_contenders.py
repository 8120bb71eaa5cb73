"""What is compared for the web: nodes, and the ways to them.  Each is started and asked until it serves.

The nodes are one nginx with a port for each.  It keeps its memory for bodies (glibc's settings), or uploads would
measure the kernel's page faults.  Leaves out what is asked.
"""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench import processes
from bench.contenders import DIRECT, GATEWAY, START_LIMIT_S, STOCK, Contender, Site, free_port
from bench.programs import HERE, BenchError, find_program
from bench.tls import certificate
from bench.web_load import WebLoad, ask

NGINX = "nginx"
SIZES: Mapping[str, int] = {"1kB": 1_000, "20kB": 20_000, "0.5MB": 500_000, "30MB": 30_000_000}
_STOP_LIMIT_S = 15
_PROBES = (WebLoad("probe", "/1kB", 1, 1_000), WebLoad("probe", "/1kB", 1, 1_000, streams=1))
_KEEPS_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000"}


@dataclass(frozen=True, slots=True)
class Program:
    """A process that was started, and what descends from it or carries `mark` in its environment."""

    process: subprocess.Popen[bytes]
    mark: str
    log: Path

    def others(self) -> frozenset[int]:
        """Return the processes beside the first one."""
        return frozenset(processes.family(self.process.pid, self.mark))

    def everything(self) -> frozenset[int]:
        """Return all its processes."""
        return self.others() | {self.process.pid}

    def stop(self) -> None:
        """End it, politely at first, then what it may have left."""
        left = self.others()
        self.process.terminate()
        try:
            self.process.wait(timeout=_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in left | self.others():
            with suppress(ProcessLookupError):
                os.kill(pid, 9)


def start(
    name: str, command: list[str], site: Site, environment: Mapping[str, str], mark: tuple[str, str] | None = None
) -> Program:
    """Start a program in the directory of the site; `mark` is a variable that all its processes have."""
    own = ("EQUIPOISE_BENCH", f"{site.directory.name}-{name}")
    log = site.directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=site.directory,
            env={**os.environ, **environment, **dict([own])},
        )
    return Program(process, "=".join(mark or own), log)


def _serving(program: Program, name: str, ports: Mapping[str, str]) -> Contender:
    """Return the contender once both its ports answer.  Raises: BenchError."""
    end, said = time.monotonic() + START_LIMIT_S, ""
    while time.monotonic() < end and program.process.poll() is None:
        try:
            tried = [ask(probe, ports, 0.1) for probe in _PROBES]
        except BenchError as error:
            tried, said = [], str(error)
        if tried and not any(one.errors or not one.requests for one in tried):
            return _contender(program, name, ports)
        said = next((one.first_error for one in tried if one.errors), said)
        time.sleep(0.2)
    program.stop()
    words = program.log.read_text(errors="replace")[-2000:]
    raise BenchError(f"{name} does not serve ({said}); its last words:\n{words}")


def _contender(program: Program, name: str, ports: Mapping[str, str]) -> Contender:
    supervisor = frozenset({program.process.pid}) if name.startswith(GATEWAY) else frozenset()
    relay = program.everything() - supervisor
    return Contender(name, int(ports["port"]), relay, supervisor, program.stop, ports)


def direct(site: Site) -> Contender:
    """Return the way without any relay."""
    return Contender(DIRECT, site.nodes[0], options={"port": str(site.nodes[0])})


def _configured(name: str, template: str, site: Site, places: Mapping[str, str]) -> tuple[Path, dict[str, str]]:
    """Return the configuration as it was written, and the ports."""
    certificate(site.directory)
    ports = {"port": str(free_port(site.chance)), "tls_port": str(free_port(site.chance))}
    config = site.fill(HERE / template, name, int(ports["port"]), {"tls_port": ports["tls_port"], **places})
    return config, ports


def haproxy(site: Site) -> Contender:
    """Start HAProxy as an administrator writes it.  Raises: BenchError."""
    config, ports = _configured(STOCK, "haproxy/web_stock.cfg", site, {})
    command = [find_program("haproxy", "haproxy"), "-db", "-f", str(config)]
    return _serving(start(STOCK, command, site, {}), STOCK, ports)


def user() -> str:
    """Return whom nginx may be: it does not start its workers as root unless it is told to."""
    return "root" if os.geteuid() == 0 else "nobody"


def nginx(site: Site) -> Contender:
    """Start nginx as an administrator writes it.  Raises: BenchError."""
    config, ports = _configured(NGINX, "nginx/web.conf", site, {"user": user()})
    return _serving(start(NGINX, nginx_command(config), site, {}), NGINX, ports)


def nginx_command(config: Path) -> list[str]:
    """Return the command line of an nginx that says on standard error what goes wrong.  Raises: BenchError."""
    return [find_program("nginx", "nginx-light"), "-e", "stderr", "-p", str(config.parent), "-c", str(config)]


def equipoise(site: Site, template: str = "sites/web.yaml", places: Mapping[str, str] | None = None) -> Contender:
    """Start Equipoise as a user does, in directories of its own.  Raises: BenchError."""
    config, ports = _configured(GATEWAY, template, site, places or {})
    environment = equipoise_environment(site)
    command = [sys.executable, "-m", "equipoise", "run", str(config)]
    mark = ("EQUIPOISE_HAPROXY", f"{environment['EQUIPOISE_RUNTIME_DIR']}/haproxy")  # all that its HAProxy gets of ours
    return _serving(start(GATEWAY, command, site, environment, mark), GATEWAY, ports)


def equipoise_environment(site: Site) -> dict[str, str]:
    """Return where Equipoise finds its directories and its code."""
    paths = [str(HERE.parent / "src"), os.environ.get("PYTHONPATH")]
    return {
        "EQUIPOISE_RUNTIME_DIR": str(site.directory / "run"),
        "EQUIPOISE_STATE_DIR": str(site.directory / "state"),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


CONTENDERS: Mapping[str, Callable[[Site], Contender]] = {
    DIRECT: direct,
    GATEWAY: equipoise,
    STOCK: haproxy,
    NGINX: nginx,
}


def nodes(directory: Path, chance: random.Random, log: str = "off") -> tuple[Site, Program]:
    """Start the nodes, and return the site that they are; `log` is nginx's.  Raises: BenchError."""
    directory.chmod(0o755)
    objects = directory / "objects"
    objects.mkdir()
    for name, size in SIZES.items():
        (objects / name).write_bytes(chance.randbytes(size))
    site = Site(directory, [free_port(chance), free_port(chance)], chance)
    config = site.fill(HERE / "nginx" / "nodes.conf", "nodes", 0, {"user": user(), "log": log})
    program = start("nodes", nginx_command(config), site, _KEEPS_MEMORY)
    _await_nodes(program, site)
    return site, program


def _await_nodes(program: Program, site: Site) -> None:
    end = time.monotonic() + START_LIMIT_S
    for port in site.nodes:
        while not _accepts(port):
            if program.process.poll() is not None or time.monotonic() > end:
                program.stop()
                raise BenchError(f"the nodes do not start:\n{program.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
