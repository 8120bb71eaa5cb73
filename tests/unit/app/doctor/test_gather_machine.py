"""What is read from this machine, and from one that is written into a directory."""

import os
import socket
from pathlib import Path

import pytest

from equipoise.app.doctor.facts import Conntrack, Running
from equipoise.app.doctor.gather_machine import (
    clock_state,
    directory,
    file_limit,
    gather_machine,
    kernel,
    listening_engines,
)
from equipoise.base.paths import Directories

PROC = Path("/proc")
SETTINGS = {
    "core/somaxconn": "128",
    "ipv4/tcp_rmem": "4096\t131072\t6291456",
    "ipv4/tcp_wmem": "4096\t16384\t4194304",
    "ipv4/tcp_window_scaling": "1",
    "ipv4/tcp_abort_on_overflow": "0",
    "ipv4/ip_local_port_range": "32768\t60999",
    "ipv4/ip_local_reserved_ports": "40000,40100-40200",
    "ipv4/ip_unprivileged_port_start": "80",
    "netfilter/nf_conntrack_max": "262144",
    "netfilter/nf_conntrack_count": "17",
    "netfilter/nf_conntrack_tcp_timeout_established": "300",
}


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    for name, text in SETTINGS.items():
        file = tmp_path / "sys/net" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return tmp_path


def test_this_machine_can_be_read() -> None:
    machine = gather_machine(Directories(Path("/run/equipoise"), Path("/var/lib/equipoise")), None)
    assert machine.files.hard >= machine.files.soft > 0
    assert machine.kernel.local_ports is not None
    assert machine.kernel.local_ports[0] < machine.kernel.local_ports[1]
    assert machine.software.python >= (3, 11)
    assert machine.user


def test_the_clock_is_read_and_left_alone() -> None:
    assert clock_state(PROC).synchronised in {True, False}
    assert clock_state(PROC).max_error_s >= 0


def test_who_keeps_the_clock(tmp_path: Path) -> None:
    for pid, name in (("1", "systemd"), ("412", "chronyd")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "comm").write_text(f"{name}\n")
    assert clock_state(tmp_path).keeper == "chronyd"
    assert clock_state(tmp_path / "1").keeper == ""


def test_kernel_settings(proc: Path) -> None:
    found = kernel(proc)
    assert (found.somaxconn, found.receive_max_bytes, found.send_max_bytes) == (128, 6291456, 4194304)
    assert (found.window_scaling, found.abort_on_overflow) == (True, False)
    assert (found.first_free_port, found.local_ports) == (80, (32768, 60999))
    assert found.reserved_ports == ((40000, 40000), (40100, 40200))
    assert found.conntrack == Conntrack(262144, 17, 300)
    assert found.missing == ("net.ipv4.tcp_keepalive_time",)


def test_a_container_that_shows_nothing(tmp_path: Path) -> None:
    found = kernel(tmp_path)
    assert found.somaxconn is None
    assert found.conntrack is None
    assert found.first_free_port == 1024
    assert "net.core.somaxconn" in found.missing


def test_the_limit_of_the_running_balancer_counts() -> None:
    ours = file_limit(PROC, None)
    running = file_limit(PROC, Running(os.getpid(), "0.1.0", "x", frozenset()))
    assert (running.soft, running.hard) == (ours.soft, ours.hard)
    assert (running.whose, ours.whose) == ("the running balancer", "this shell")


def test_gateways_that_listen_are_seen_without_asking_them(tmp_path: Path) -> None:
    assert listening_engines(PROC, tmp_path) == 0
    with socket.socket(socket.AF_UNIX) as gateway, socket.socket(socket.AF_UNIX) as other:
        gateway.bind(str(tmp_path / "gateway-0.abc.new"))
        gateway.listen()
        other.bind(str(tmp_path / "api.sock"))
        other.listen()
        assert listening_engines(PROC, tmp_path) == 1
        (tmp_path / "haproxy").mkdir()
        with socket.socket(socket.AF_UNIX) as haproxy:
            haproxy.bind(str(tmp_path / "haproxy" / "master.sock"))
            haproxy.listen()
            assert listening_engines(PROC, tmp_path) == 2
    assert listening_engines(PROC, tmp_path) == 0, "the name is still there, and nobody listens"


def test_a_directory_that_will_be_made(tmp_path: Path) -> None:
    there = directory(tmp_path, "EQUIPOISE_STATE_DIR")
    assert (there.exists, there.writable) == (True, True)
    to_come = directory(tmp_path / "a" / "b", "EQUIPOISE_STATE_DIR")
    assert (to_come.exists, to_come.writable) == (False, True)
    assert to_come.free_bytes > 0
    assert not (tmp_path / "a").exists(), "the doctor makes nothing"
