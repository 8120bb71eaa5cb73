"""The state directory of one machine is full or read-only: it is said, nothing is lost, and traffic goes on."""

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from tests.system.balancer import eventually
from tests.system.machine_disk import Disk
from tests.system.pair_machine import Machine
from tests.system.pair_shared import Shared
from tests.system.pair_stage import WITHIN_S, Pair, no_new_one_failed, nothing

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True, slots=True)
class Scene:
    pair: Pair
    disks: dict[str, Disk]

    def machine(self, role: str) -> Machine:
        active, standby = self.pair.whole()
        return active if role == "active" else standby

    def broken(self, machine: Machine, fault: str) -> AbstractContextManager[str]:
        """Have the disk of a machine broken meanwhile; yield what the kernel says of it."""
        disk, folder = self.disks[machine.name], str(machine.balancer.home / "state")
        return disk.full(folder) if fault == "full" else disk.read_only(folder)

    def with_weight(self, weight: int) -> str:
        nodes = json.loads(self.pair.document())["services"]["web"]["nodes"]
        return self.pair.document(web={"nodes": {**nodes, "a": {**nodes["a"], "weight": weight}}})

    def weights(self) -> set[int]:
        """Return what is in force on the two."""
        return {machine.balancer.status("web")["nodes"]["a"]["weight"] for machine in self.pair.machines}


@pytest.fixture
def scene(pair: Pair, shared: Shared) -> Scene:
    return Scene(pair, shared.disks)


@pytest.mark.parametrize(("role", "fault"), [("active", "full"), ("standby", "read_only")])
def test_a_document_applied_meanwhile_is_on_both_machines_in_the_end(scene: Scene, role: str, fault: str) -> None:
    machine = scene.machine(role)
    healthy = scene.pair.other(machine)
    wanted = 61 if scene.weights() != {61} else 62
    with scene.pair.prober() as prober:
        with scene.broken(machine, fault) as reason:
            said = healthy.apply_by_command(scene.with_weight(wanted), good=(0, 1, 2))
            told = eventually(lambda: found_in(machine, healthy, said, reason), WITHIN_S, f"{reason!r}, said somewhere")
            assert str(machine.balancer.home) in told, f"it names the place: {told}"
        if wanted not in scene.weights():  # it was refused by both: then the operator does it again
            healthy.apply(scene.with_weight(wanted))
        elif fault == "read_only":  # one need not wait until it is tried again
            eventually(lambda: synchronised(healthy), WITHIN_S, "a machine that is free to take the document")
        eventually(lambda: scene.weights() == {wanted}, WITHIN_S, "the document on both")
        scene.pair.whole()
    nothing(prober.seen)
    assert scene.machine(role) is machine, "addresses stayed where they were"


def test_overrides_and_handovers_work_meanwhile(scene: Scene) -> None:
    active, standby = scene.pair.whole()
    with scene.pair.prober() as prober:
        with scene.broken(active, "full"):
            active.command("node", "drain", "web/a", good=(0, 1))
            active.hand_over()
            assert scene.pair.holders() == [standby]
            standby.override("enable", "web/a")
            active.hand_over(here=True)
            assert scene.pair.holders() == [active]
        scene.pair.whole()
    no_new_one_failed(prober.seen)


def test_a_supervisor_that_starts_on_a_full_disk_takes_its_place_in_the_pair(scene: Scene) -> None:
    active, _ = scene.pair.whole()
    with scene.pair.prober() as prober:
        with scene.broken(active, "full"):
            active.balancer.kill_supervisor()
            active.balancer.start()
            eventually(lambda: active.cluster()["peer"]["connected"], WITHIN_S, "the two talking")
            assert scene.pair.holders() == [active]
        scene.pair.whole()
    nothing(prober.seen)


def test_a_supervisor_does_not_start_on_a_read_only_disk_and_users_do_not_notice(scene: Scene) -> None:
    """It could keep nothing of what operators tell it, so it says so and ends; the engines serve on."""
    active, _ = scene.pair.whole()
    with scene.pair.prober() as prober:
        with scene.broken(active, "read_only"):
            active.balancer.kill_supervisor()
            active.balancer.start(wait=False)
            assert active.balancer.process is not None
            assert active.balancer.process.wait(WITHIN_S) == 1
            assert f"cannot write in {active.balancer.home / 'state'}" in active.balancer.log()
            assert scene.pair.holders() == [active]
        active.balancer.start()
        scene.pair.whole()
    nothing(prober.seen)


def synchronised(machine: Machine) -> bool:
    """Give the peer the document; it refuses while it takes one up by itself, and asks to try again."""
    answer = machine.balancer.post("cluster/sync")
    assert answer.is_success or "try again" in answer.text, answer.text
    return answer.is_success


def found_in(machine: Machine, healthy: Machine, said: str, reason: str) -> str:
    """Return where the reason stands: the answer to the operator, or what either machine tells."""
    told = [json.dumps(event) for each in (machine, healthy) for event in each.balancer.events()]
    return next((text for text in (said, *reversed(told)) if reason in text), "")
