"""A machine and a site with nothing wrong: each test spoils one thing."""

from pathlib import Path

from equipoise.app.doctor.facts import (
    ClockState,
    Conntrack,
    Directory,
    FileLimit,
    Kernel,
    Listener,
    Lookup,
    Machine,
    Running,
    Software,
    Source,
    Surroundings,
)
from equipoise.app.wiring import catalogue
from equipoise.config.loading import load
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Endpoint, Plan

GIB = 1 << 30
RUNNING = Running(
    pid=4711, version="0.1.0", site="general-hospital", listen=frozenset({"10.0.0.100:104", "10.0.0.100:11112"})
)
SITE = """\
site: general-hospital
services:
  ct:
    protocol: dicom
    listen: 10.0.0.100
    ports: [104, 11112]
    source_address: 10.0.0.100
    nodes:
      a: {address: 'pacs-a.example:104', max_connections: 60}
      b: {address: '10.0.0.12:104', max_connections: 40}
"""


def plan(text: str = SITE) -> Plan:
    return compile_plan(load(text, "site.yaml", catalogue()).site, HostFacts())


def directory(name: str = "state") -> Directory:
    return Directory(
        path=Path("/var/lib") / name,
        variable="EQUIPOISE_STATE_DIR",
        exists=True,
        writable=True,
        free_bytes=20 * GIB,
        free_files=1_000_000,
    )


def machine() -> Machine:
    return Machine(
        user="equipoise",
        capabilities=1 << 10,
        clock=ClockState(synchronised=True, max_error_s=0.01, keeper="chronyd"),
        files=FileLimit(1024, 262144, "this shell"),
        kernel=Kernel(
            somaxconn=4096,
            receive_max_bytes=6 << 20,
            send_max_bytes=4 << 20,
            window_scaling=True,
            abort_on_overflow=False,
            keepalive_s=7200,
            first_free_port=1024,
            local_ports=(32768, 60999),
            reserved_ports=(),
            conntrack=Conntrack(maximum=262144, used=100, established_timeout_s=432000),
            missing=(),
        ),
        runtime=directory("run"),
        state=directory(),
        engines=0,
        longest_socket_path=40,
        software=Software((3, 11, 2), "OpenSSL 3.0.19", (3, 0, 0), tls_1_3=True),
    )


def surroundings() -> Surroundings:
    return Surroundings(
        listeners=(listener(104), listener(11112)),
        sources=(Source("10.0.0.100", "services.ct.source_address", local=True),),
        lookups=(Lookup("pacs-a.example", ("10.0.0.11",), 0.003, ""),),
    )


def listener(port: int) -> Listener:
    return Listener(Endpoint("10.0.0.100", port), held=False, local=True, refused=None)
