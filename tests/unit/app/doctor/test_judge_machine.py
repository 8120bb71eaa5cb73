"""What a machine is blamed for: one thing is spoilt, and that one is found, with a way out."""

from dataclasses import replace
from typing import Any

import pytest

from equipoise.app.doctor.facts import ClockState, Conntrack, Software
from equipoise.app.doctor.findings import Finding, Level
from equipoise.app.doctor.judge_machine import judge_machine
from tests.unit.app.doctor.healthy import RUNNING, directory, machine


def bad(findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if each.level is not Level.OK]


def test_a_healthy_machine_is_left_alone() -> None:
    findings = list(judge_machine(machine(), None))
    assert bad(findings) == []
    assert {"clock", "openssl", "disk", "backlog", "conntrack"} <= {each.item for each in findings}
    assert all(not each.do for each in findings)


@pytest.mark.parametrize(
    ("spoilt", "item", "level", "said"),
    [
        ({"clock": ClockState(False, 16.0, "")}, "clock", "problem", "start chrony"),
        ({"clock": ClockState(False, 16.0, "chronyd")}, "clock", "warning", "rtcsync"),
        ({"clock": ClockState(True, 1.5, "ntpd")}, "clock", "warning", "1.500 s"),
        ({"clock": ClockState(None, 0.0, "")}, "clock", "warning", "timedatectl"),
        ({"software": Software((3, 10, 9), "OpenSSL 3.0", (3, 0, 0), True)}, "python", "problem", "3.11"),
        ({"software": Software((3, 11, 2), "OpenSSL 1.1.0", (1, 1, 0), False)}, "openssl", "problem", "OpenSSL 3"),
        ({"state": replace(directory(), writable=False)}, "state directory", "warning", "EQUIPOISE_STATE_DIR"),
        ({"state": replace(directory(), free_bytes=10 << 20)}, "disk", "problem", "10 MiB free"),
        ({"state": replace(directory(), free_bytes=300 << 20)}, "disk", "warning", "300 MiB free"),
        ({"state": replace(directory(), free_files=3)}, "disk", "problem", "3 files"),
        ({"longest_socket_path": 120}, "runtime directory", "problem", "107"),
        ({"engines": 2}, "supervisor", "problem", "2 engine(s)"),
    ],
)
def test_one_thing_wrong(spoilt: dict[str, Any], item: str, level: str, said: str) -> None:
    (found,) = bad(list(judge_machine(replace(machine(), **spoilt), None)))
    assert (found.item, found.level) == (item, level)
    assert said in f"{found.seen} {found.do}"
    assert found.do


@pytest.mark.parametrize(
    ("spoilt", "item", "said"),
    [
        ({"somaxconn": 128}, "backlog", "net.core.somaxconn=1024"),
        ({"receive_max_bytes": 1 << 20}, "tcp buffers", "tcp_rmem up to 1 MiB"),
        ({"send_max_bytes": 256 << 10}, "tcp buffers", "tcp_wmem"),
        ({"window_scaling": False}, "kernel", "tcp_window_scaling"),
        ({"abort_on_overflow": True}, "kernel", "tcp_abort_on_overflow"),
        ({"local_ports": (60000, 60999)}, "outgoing ports", "only 1000"),
        ({"conntrack": Conntrack(1000, 900, 432000)}, "conntrack", "900 of 1000"),
        ({"conntrack": Conntrack(262144, 1, 60)}, "conntrack", "1m"),
        ({"somaxconn": None, "missing": ("net.core.somaxconn",)}, "kernel", "could not read net.core.somaxconn"),
    ],
)
def test_one_kernel_setting_wrong(spoilt: dict[str, Any], item: str, said: str) -> None:
    healthy = machine()
    (found,) = bad(list(judge_machine(replace(healthy, kernel=replace(healthy.kernel, **spoilt)), None)))
    assert found.item == item
    assert said in f"{found.seen} {found.do}"


def test_the_directories_of_a_running_balancer_need_not_be_ours() -> None:
    others = replace(machine(), state=replace(directory(), writable=False))
    assert bad(list(judge_machine(others, RUNNING))) == []


def test_a_directory_that_may_not_be_looked_into_may_hide_a_supervisor() -> None:
    hidden = replace(machine(), runtime=replace(directory("run"), writable=False), engines=1)
    said = [each.seen for each in bad(list(judge_machine(hidden, None))) if each.item == "supervisor"]
    assert said == ["equipoise may not look into /var/lib/run, where one may run"]
