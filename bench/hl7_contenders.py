"""What is compared for HL7: receivers, and the ways to them.  Each is started, and sent messages until it serves.

One HAProxy and one Equipoise have several services each, which are measured as contenders of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from bench.contenders import (
    DIRECT,
    GATEWAY,
    STOCK,
    Contender,
    Program,
    Site,
    haproxy_command,
    launch,
    runtime_directory,
    start,
    start_equipoise,
)
from bench.hl7_load import Hl7Load, send
from bench.programs import HERE, BenchError
from equipoise.sim.ports import free_port

LEASTCONN = "haproxy-leastconn"
BY_MESSAGE, BY_PATIENT, AT_ONCE = (
    "equipoise, key message",
    "equipoise, key patient",
    "equipoise, key message, no slow start",
)
_THIRD = {
    BY_PATIENT: {"third": "patient", "third_settings": "hl7: {key: patient}"},
    AT_ONCE: {"third": "at-once", "third_settings": "hl7: {key: message}\n    slow_start: 0s"},
}
_PROBE = Hl7Load("probe", 1, 1000)

Pools = Mapping[str, Sequence[int]]  # the ports of its receivers, for each contender


def _unready(name: str, ports: Sequence[int], options: Mapping[str, str]) -> str:
    """Return what is wrong with a message to each of these ports; nothing when all is well."""
    for port in ports:
        try:
            sent = send(_PROBE, Contender(name, port, options=options), 0.05, patience_s=2)
        except BenchError as error:
            return str(error)
        if sent.errors or not sent.answered:
            return f"port {port}: {sent.first_error or 'nothing was acknowledged'}"
    return ""


def _ways(
    name: str, program: Program, ports: Mapping[str, int], options: Mapping[str, str] | None = None
) -> list[Contender]:
    """Return a contender for each service of a program once all serve; the first one is to be stopped."""
    own = options or {}
    running = launch(name, program, ports[name], own, partial(_unready, name, list(ports.values()), own))
    return [running, *(replace(running, name=other, port=ports[other], stop=_nothing) for other in [*ports][1:])]


def _nothing() -> None:
    """Stop nothing: another contender stops the program."""


def direct(port: int, options: Mapping[str, str] | None = None) -> list[Contender]:
    """Return the way without any relay."""
    return [Contender(DIRECT, port, options=options or {})]


def haproxy(site: Site, pools: Pools) -> list[Contender]:
    """Start HAProxy, with a pool for each way to pick a server.  Raises: BenchError."""
    ports = {name: free_port() for name in (STOCK, LEASTCONN)}
    places = {
        "leastconn_port": str(ports[LEASTCONN]),
        "servers": _servers(pools[STOCK]),
        "leastconn_servers": _servers(pools[LEASTCONN]),
    }
    config = site.fill(HERE / "haproxy" / "hl7_stock.cfg", STOCK, ports[STOCK], places)
    return _ways(STOCK, start(STOCK, haproxy_command(config), site), ports)


def _servers(ports: Sequence[int]) -> str:
    return "\n".join(f"    server s{number} 127.0.0.1:{port}" for number, port in enumerate(ports))


def equipoise(site: Site, pools: Pools, third: str) -> list[Contender]:
    """Start Equipoise as a user does, with a service for each key.  Raises: BenchError."""
    names = (GATEWAY, BY_MESSAGE, third)
    ports = {name: free_port() for name in names}
    places = {"message_port": str(ports[BY_MESSAGE]), "third_port": str(ports[third]), **_THIRD[third]}
    for place, name in zip(("nodes", "message_nodes", "third_nodes"), names, strict=True):
        places[place] = _nodes(pools[name])
    config = site.fill(HERE / "sites" / "hl7.yaml", GATEWAY, ports[GATEWAY], places)
    mark = ("EQUIPOISE_RUNTIME_DIR", str(runtime_directory(site)))
    return _ways(GATEWAY, start_equipoise(GATEWAY, config, site, mark), ports)


def _nodes(ports: Sequence[int]) -> str:
    return ", ".join(f"node-{number}: {{address: '127.0.0.1:{port}'}}" for number, port in enumerate(ports))


def haproxy_tls(site: Site, options: Mapping[str, str]) -> list[Contender]:
    """Start HAProxy with TLS both ways.  Raises: BenchError."""
    port = free_port()
    config = site.fill(HERE / "haproxy" / "hl7_tls.cfg", STOCK, port, {})
    return _ways(STOCK, start(STOCK, haproxy_command(config), site), {STOCK: port}, options)


def equipoise_tls(site: Site, options: Mapping[str, str]) -> list[Contender]:
    """Start Equipoise with TLS both ways.  Raises: BenchError."""
    port = free_port()
    config = site.fill(HERE / "sites" / "hl7_tls.yaml", GATEWAY, port, {})
    mark = ("EQUIPOISE_RUNTIME_DIR", str(runtime_directory(site)))
    return _ways(GATEWAY, start_equipoise(GATEWAY, config, site, mark), {GATEWAY: port}, options)
