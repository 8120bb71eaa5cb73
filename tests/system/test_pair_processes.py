"""A process dies, hangs or is stopped: what users see, and that one machine has the addresses at the end."""

import os
import signal
import time

import pytest

from tests.system.balancer import eventually
from tests.system.pair_machine import Machine
from tests.system.pair_stage import (
    DICOM,
    DIRECT,
    INTERRUPTED_S,
    VIP,
    WEB,
    WITHIN_S,
    Pair,
    no_new_one_failed,
    nothing,
    stays,
)

# Programs that hold or serve the addresses, and which of their processes.
CARRIERS = [("keepalived", 0), ("keepalived", 1), ("gateway", 0), ("haproxy", 0), ("haproxy", 1)]
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(("program", "which"), CARRIERS, ids=str)
def test_users_are_served_while_a_process_of_the_active_machine_hangs_and_after_it_is_killed(
    pair: Pair, program: str, which: int
) -> None:
    """Callers wait or are refused until the other machine has the addresses, or the process runs again."""
    with pair.probers(WEB, DICOM) as probers:
        active, _ = pair.whole()
        with active.stopped(active.wait_pid(program, which)):
            time.sleep(2)  # to be found and answered
            pair.serves()
            eventually(lambda: one_holds_them(pair, 0.5), WITHIN_S, "one machine alone with the addresses, for good")
        active, _ = pair.whole()
        pid = active.wait_pid(program, which)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: pid not in active.pids(program), WITHIN_S, "its end")
        pair.serves()
        pair.whole()
    for prober in probers:
        assert prober.seen.longest_gap() < INTERRUPTED_S, prober.seen


def one_holds_them(pair: Pair, for_s: float) -> bool:
    """Say whether one machine alone has the addresses, and goes on having them; both may, for a second or two."""
    alone, until_s = pair.active(), time.monotonic() + for_s
    while time.monotonic() < until_s:
        if pair.holders() != [alone]:
            return False
        time.sleep(0.05)
    return True


def test_the_supervisor_is_killed_and_comes_back_and_nothing_moves(pair: Pair) -> None:
    active, _ = pair.whole()
    taken = active.balancer.events("cluster.taken")
    with pair.probers(WEB, DIRECT, DICOM) as probers:
        active.balancer.kill_supervisor()
        stays(lambda: pair.holders() == [active], 2)
        active.balancer.start()
        pair.whole()
        assert pair.holders() == [active]
    for prober in probers:
        nothing(prober.seen)
    assert active.balancer.events("cluster.taken") == taken, "it found the addresses, and did not take them anew"


def test_the_supervisor_hangs_and_nothing_moves(pair: Pair) -> None:
    active, _ = pair.whole()
    with pair.prober() as prober:
        with active.stopped(active.wait_pid("supervisor", 0)):
            stays(lambda: pair.holders() == [active], 3)
        pair.whole()
    nothing(prober.seen)


def test_without_a_supervisor_the_death_of_haproxy_gives_the_addresses_to_the_other(pair: Pair) -> None:
    active, standby = pair.whole()
    active.balancer.kill_supervisor()
    try:
        with pair.prober(DIRECT) as prober:
            for pid in reversed(active.pids("haproxy")):
                os.kill(pid, signal.SIGKILL)
            eventually(lambda: pair.holders() == [standby], WITHIN_S, "the other to have the address")
        no_new_one_failed(prober.seen, 0)  # flows that begin while no supervisor runs are known to one machine alone
        assert pair.lab.far.nodes(VIP, WEB, 2)
    finally:
        active.balancer.start()
    pair.whole()


def test_everything_is_killed_at_once_and_started_again(pair: Pair) -> None:
    """The addresses stay on the machine whose processes are gone; its start removes them first."""
    active, standby = pair.whole()
    with pair.prober() as prober:
        active.kill_everything()
        pair.moved_from(active)
        pair.serves()
        active.balancer.start()
        eventually(lambda: pair.holders() == [standby], WITHIN_S, "one holder")
        pair.whole()
    assert prober.seen.longest_gap() < INTERRUPTED_S, prober.seen


def test_a_stale_pid_file_keeps_nobody_from_starting(pair: Pair) -> None:
    """Also when its number is that of a stranger by now; who is left alone."""
    _, standby = pair.whole()
    files = list((standby.balancer.home / "run").rglob("*.pid"))
    kept = {file: file.read_text() for file in files if "vrrp" in file.name or "keepalived" in file.name}
    assert kept, f"keepalived writes PID files, seen: {files}"
    standby.kill_everything()
    stranger = standby.host.start("sh", "-c", "echo ready; exec sleep 600")
    try:
        for file in kept:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{stranger.pid}\n")
        standby.balancer.start()
        pair.whole()
        assert stranger.poll() is None
        assert standby.pids("keepalived")
    finally:
        stranger.kill()
        stranger.communicate()


def test_an_orderly_stop_of_the_active_machine_fails_no_new_connection(pair: Pair) -> None:
    active, standby = pair.whole()
    with pair.probers(DIRECT, WEB, DICOM) as probers:
        active.stop()
        assert pair.holders() == [standby]
        pair.serves()
    try:
        for prober in probers:
            no_new_one_failed(prober.seen)
        assert active.pids("keepalived") == []
    finally:
        active.balancer.start()
    pair.whole()
    assert pair.holders() == [standby]


def test_a_handover_there_and_back_fails_no_new_connection(pair: Pair) -> None:
    active, standby = pair.whole()
    with pair.probers(DIRECT, WEB, DICOM) as probers:
        said = active.command("cluster", "handover")
        assert VIP in said
        assert pair.holders() == [standby]
        pair.whole()
        pair.serves()
        active.command("cluster", "handover", "--here")
        assert pair.holders() == [active]
        pair.serves()
    for prober in probers:
        no_new_one_failed(prober.seen)
    given = [event["to"] for machine in pair.machines for event in machine.balancer.events("cluster.handover")]
    assert {standby.address, active.address} <= set(given)


def test_a_machine_that_cannot_serve_is_not_given_the_addresses(pair: Pair) -> None:
    active, standby = pair.whole()
    with standby.stopped(standby.wait_pid("gateway", 0)):
        eventually(lambda: active.cluster()["peer"]["fault"], WITHIN_S, "the peer's fault")
        said = active.command("cluster", "handover", good=(1,))
        assert pair.holders() == [active]
    assert "cannot" in said
    pair.whole()


def test_a_dead_standby_is_no_business_of_users(pair: Pair) -> None:
    active, standby = pair.whole()
    with pair.prober() as prober:
        died(standby)
        stays(lambda: pair.holders() == [active])
        assert "NOT SURVIVE" in active.command("cluster", "status", good=(2,))
        standby.balancer.start()
        pair.whole()
    nothing(prober.seen)


def died(machine: Machine) -> None:
    """Kill the keepalived and the supervisor of a machine, in this order, so that nobody starts it again."""
    machine.balancer.kill_supervisor()
    for pid in machine.pids("keepalived"):
        os.kill(pid, signal.SIGKILL)
