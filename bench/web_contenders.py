"""What is compared for the web: nodes, and the ways to them.  Each is started and asked until it serves.

The nodes are one nginx with a port for each.  It keeps its memory for bodies (glibc's settings), or uploads would
measure the kernel's page faults.  Leaves out what is asked.
"""

import os
import random
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from bench.contenders import (
    DIRECT,
    GATEWAY,
    STOCK,
    Contender,
    Program,
    Site,
    await_serving,
    haproxy_command,
    launch,
    runtime_directory,
    start,
    start_equipoise,
)
from bench.programs import HERE, BenchError, find_program
from bench.tls import certificate
from bench.web_load import WebLoad, ask
from equipoise.sim.ports import free_port

NGINX = "nginx"
SIZES: Mapping[str, int] = {"1kB": 1_000, "20kB": 20_000, "0.5MB": 500_000, "30MB": 30_000_000}
_PROBES = (WebLoad("probe", "/1kB", 1, 1_000), WebLoad("probe", "/1kB", 1, 1_000, streams=1))
_KEEPS_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000"}


def _answers(ports: Mapping[str, str]) -> str:
    """Return what is wrong with the answers at both ports; nothing when all is well."""
    try:
        tried = [ask(probe, ports, 0.1) for probe in _PROBES]
    except BenchError as error:
        return str(error)
    return next((one.first_error or "nothing was answered" for one in tried if one.errors or not one.requests), "")


def _serving(name: str, program: Program, ports: Mapping[str, str]) -> Contender:
    """Return the contender once both its ports answer.  Raises: BenchError."""
    return launch(name, program, int(ports["port"]), ports, partial(_answers, ports))


def direct(site: Site) -> Contender:
    """Return the way without any relay."""
    return Contender(DIRECT, site.nodes[0], options={"port": str(site.nodes[0])})


def _configured(name: str, template: str, site: Site, places: Mapping[str, str]) -> tuple[Path, dict[str, str]]:
    """Return the configuration as it was written, and the ports."""
    certificate(site.directory)
    ports = {"port": str(free_port()), "tls_port": str(free_port())}
    config = site.fill(HERE / template, name, int(ports["port"]), {"tls_port": ports["tls_port"], **places})
    return config, ports


def haproxy(site: Site) -> Contender:
    """Start HAProxy as an administrator writes it.  Raises: BenchError."""
    config, ports = _configured(STOCK, "haproxy/web_stock.cfg", site, {})
    return _serving(STOCK, start(STOCK, haproxy_command(config), site), ports)


def _user() -> str:
    """Return whom nginx may be: it does not start its workers as root unless it is told to."""
    return "root" if os.geteuid() == 0 else "nobody"


def nginx(site: Site) -> Contender:
    """Start nginx as an administrator writes it.  Raises: BenchError."""
    config, ports = _configured(NGINX, "nginx/web.conf", site, {"user": _user()})
    return _serving(NGINX, start(NGINX, nginx_command(config), site), ports)


def nginx_command(config: Path) -> list[str]:
    """Return the command line of an nginx that says on standard error what goes wrong.  Raises: BenchError."""
    return [find_program("nginx", "nginx-light"), "-e", "stderr", "-p", str(config.parent), "-c", str(config)]


def equipoise(site: Site, template: str = "sites/web.yaml", places: Mapping[str, str] | None = None) -> Contender:
    """Start Equipoise as a user does, in directories of its own.  Raises: BenchError."""
    config, ports = _configured(GATEWAY, template, site, places or {})
    mark = ("EQUIPOISE_HAPROXY", str(runtime_directory(site) / "haproxy"))  # all that its HAProxy gets of ours
    return _serving(GATEWAY, start_equipoise(GATEWAY, config, site, mark), ports)


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
    site = Site(directory, [free_port(), free_port()])
    config = site.fill(HERE / "nginx" / "nodes.conf", "nodes", 0, {"user": _user(), "log": log})
    program = start("nodes", nginx_command(config), site, _KEEPS_MEMORY)
    await_serving("nodes", program, partial(_silent, site.nodes))
    return site, program


def _silent(ports: Sequence[int]) -> str:
    """Return at which ports nobody listens; nothing when all are taken."""
    return ", ".join(f"nobody listens at port {port}" for port in ports if not _accepts(port))


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
