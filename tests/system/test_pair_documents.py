"""Documents and overrides of a pair: what is given to one machine is on both, or it is said that it is not."""

import json
from typing import Any

import pytest

from tests.system.balancer import eventually
from tests.system.pair_machine import Machine
from tests.system.pair_stage import VIP, WEB, WITHIN_S, Pair, nothing, short, silent, stays

pytestmark = pytest.mark.timeout(300)


def weight(machine: Machine) -> int:
    """Return the weight of a node in the document that is in force on a machine: tests change it to see what is."""
    shown: int = machine.balancer.status("web")["nodes"]["a"]["weight"]
    return shown


def with_weight(pair: Pair, weight: int) -> str:
    nodes = json.loads(pair.document())["services"]["web"]["nodes"]
    return pair.document(web={"nodes": {**nodes, "a": {**nodes["a"], "weight": weight}}})


def both_have(pair: Pair, wanted: int) -> None:
    def look() -> bool:
        return all(weight(machine) == wanted for machine in pair.machines)

    eventually(look, WITHIN_S, f"weight {wanted} on both")


def drained(machine: Machine, node: str) -> None:
    """Wait until a machine has a node drained."""
    eventually(lambda: states(machine)[node] == "drain", WITHIN_S, f"the drain on {machine.name}")


def states(machine: Machine) -> dict[str, str]:
    return {name: node["state"] for name, node in machine.balancer.status("web")["nodes"].items()}


def test_a_new_pair_has_one_holder_from_the_beginning(pair: Pair) -> None:
    """The second machine takes up its part only once the first one serves as one of a pair."""
    first, second = pair.machines
    told = {name: [event["kind"] for event in events] for name, events in pair.at_first.items()}
    for kinds in told.values():
        assert kinds.count("cluster.joined") == 1
        assert not {"cluster.split", "cluster.peer_lost", "cluster.conflict"} & set(kinds)
    assert told[first.name].count("cluster.taken") == 1
    assert "cluster.left_to_peer" not in told[first.name]
    assert "cluster.taken" not in told[second.name]


def test_what_is_applied_on_the_standby_is_in_force_on_the_active_machine(pair: Pair) -> None:
    active, standby = pair.whole()
    with pair.prober() as prober:
        said = standby.apply_by_command(with_weight(pair, 71))
        assert (weight(active), weight(standby)) == (71, 71), said
        assert "on both machines" in said
        pair.whole()
    nothing(prober.seen)
    assert pair.holders() == [active], "and addresses stay where they are"
    assert active.balancer.events("cluster.revision")[-1]["peer"] == standby.address


def test_what_is_applied_on_the_active_machine_is_in_force_on_the_standby(pair: Pair) -> None:
    active, standby = pair.whole()
    active.apply(with_weight(pair, 72))
    assert (weight(active), weight(standby)) == (72, 72)
    pair.whole()


def test_what_is_applied_while_the_peer_is_gone_is_said_and_follows_later(pair: Pair) -> None:
    active, standby = pair.whole()
    with pair.without_power(standby):
        silent(active)
        said = active.apply_by_command(with_weight(pair, 73), good=(2,))
        assert "here alone" in said
    both_have(pair, 73)
    pair.whole()


def test_a_new_address_reaches_both_and_users(pair: Pair) -> None:
    active, standby = pair.whole()
    before, added = pair.document(), f"{VIP.rpartition('.')[0]}.110"
    document = json.loads(before)
    document["services"]["more"] = {**document["services"]["web"], "listen": f"{added}:{WEB}"}
    standby.apply(json.dumps(document))
    try:
        eventually(lambda: pair.holders(added) == [active], WITHIN_S, "the address, where the others are")
        eventually(lambda: pair.lab.far.nodes(added, WEB, 1), WITHIN_S, "an answer")
        assert pair.holders() == [active]
    finally:
        active.apply(before)
    eventually(lambda: pair.holders(added) == [], WITHIN_S, "its end")
    pair.whole()


def test_an_override_is_on_both_machines_and_survives_a_takeover(pair: Pair) -> None:
    active, standby = pair.whole()
    standby.override("drain", "web/a")
    drained(active, "a")
    with pair.without_power(active):
        pair.moved_from(active)
        eventually(lambda: set(pair.lab.far.nodes(VIP, WEB, 4)) == {"b"}, WITHIN_S, "the drain in force")
    drained(active, "a")
    standby.override("enable", "web/a")
    pair.whole()


def test_an_override_that_ended_while_the_peer_was_away_does_not_come_back(pair: Pair) -> None:
    active, standby = pair.whole()
    active.override("drain", "web/b")
    drained(standby, "b")
    with pair.without_power(standby):
        active.override("enable", "web/b")
    pair.whole()  # with every node up on both
    stays(lambda: states(active)["b"] == states(standby)["b"] == "up", 1)


def test_machines_that_cannot_hear_each_other_both_serve_say_so_and_heal_but_for_their_documents(pair: Pair) -> None:
    """What both were given meanwhile is a conflict, until an operator takes one."""
    active, standby = pair.whole()
    with pair.split():
        eventually(lambda: len(pair.holders()) == 2, WITHIN_S, "both with the address: neither can know of the other")
        for machine in pair.machines:
            assert VIP in told_of_split(machine)["addresses"]
            assert "two machines hold" in machine.command("cluster", "status", good=(2,))
        assert pair.lab.far.nodes(VIP, WEB, 3), "clients come to one or the other, and are served"
        for machine, given in ((active, 81), (standby, 82)):
            silent(machine)
            assert machine.apply(with_weight(pair, given))["peer"], "it is said that the peer has it not"
    active = pair.active()
    in_conflict(pair)
    assert "conflict" in active.command("cluster", "sync", good=(2,))
    assert sorted(weight(machine) for machine in pair.machines) == [81, 82], "nothing is merged silently"
    wanted = weight(active)
    active.command("cluster", "sync", "--take", "ours")
    both_have(pair, wanted)
    pair.whole()
    for machine in pair.machines:
        told = machine.balancer.events("cluster.split")
        assert VIP in told[-2]["addresses"]
        assert told[-1]["addresses"] == []
    assert pair.lab.far.nodes(VIP, WEB, 2)


def test_the_document_of_the_other_machine_can_be_taken_too(pair: Pair) -> None:
    active, standby = pair.whole()
    with pair.split():
        for machine, given in ((active, 83), (standby, 84)):
            silent(machine)
            machine.apply(with_weight(pair, given))
    in_conflict(pair)
    active.tell("cluster/sync", take="theirs")
    both_have(pair, 84)
    pair.whole()
    revisions = {machine.cluster()["revision"]["ours"] for machine in pair.machines}
    assert len(revisions) == 1


def test_a_document_that_one_machine_cannot_have_is_refused_by_both(pair: Pair) -> None:
    active, standby = pair.whole()
    before = weight(active)
    document: dict[str, Any] = json.loads(with_weight(pair, 91))
    certificate = active.balancer.home / "only-here.pem"
    document["services"]["secure"] = {**document["services"]["web"], "listen": f"{VIP}:8443", "protocol": "https"}
    document["services"]["secure"]["tls"] = {"cert": str(certificate), "key": str(certificate)}
    said = standby.apply_by_command(json.dumps(document), good=(1,))
    assert str(certificate) in said
    assert (weight(active), weight(standby)) == (before, before)
    pair.whole()


def test_a_pair_that_was_left_can_be_joined_again_by_the_machine_that_serves_on(pair: Pair) -> None:
    """Users notice neither; the document of the machine that invites holds on both."""
    left, serves = pair.whole()
    before = len(serves.balancer.events())
    with pair.prober() as prober:
        said = left.command("cluster", "leave", "--yes")
        assert serves.address in said
        eventually(lambda: not serves.cluster()["joined"], WITHIN_S, "the other one to know")
        eventually(lambda: pair.holders() == [serves], WITHIN_S, "the address on the machine that is still one of two")
        serves.apply(with_weight(pair, 95))
        assert weight(left) != 95, "two machines of their own"
        joining = len(serves.balancer.events())
        pair.join(serves)
        both_have(pair, 95)
        assert pair.holders() == [serves]
    told = serves.balancer.events()
    assert [event["kind"] for event in told[before:]].count("cluster.taken") == 1
    assert not {"cluster.split", "cluster.left_to_peer", "cluster.conflict"} & {each["kind"] for each in told[joining:]}
    short(prober.seen)


@pytest.mark.parametrize("by_active", [True, False])
def test_no_machine_leaves_to_claim_what_the_other_one_has(pair: Pair, by_active: bool) -> None:
    active, standby = pair.whole()
    leaves = active if by_active else standby
    document = {key: value for key, value in json.loads(pair.document()).items() if key != "cluster"}
    active.apply(json.dumps({**document, "network": {"manage_addresses": True, "interface": "eth0"}}))
    with pair.prober() as prober:
        said = leaves.command("cluster", "leave", "--yes", good=(1,))
        assert "apply a document without `manage_addresses` first" in said
        stays(lambda: pair.holders() == [active])
    nothing(prober.seen)
    active.apply(pair.document())
    pair.whole()


def told_of_split(machine: Machine) -> dict[str, Any]:
    """Return what a machine says of addresses that two have, as soon as it says so."""
    return eventually(lambda: machine.cluster()["split"] or {}, WITHIN_S, f"word of it on {machine.name}")


def in_conflict(pair: Pair) -> None:
    """Wait until both say that their documents do not follow on each other."""

    def look() -> bool:
        return all(machine.cluster()["revision"]["relation"] == "conflict" for machine in pair.machines)

    eventually(look, WITHIN_S, "the conflict on both")
    first, second = (machine.balancer for machine in pair.machines)
    eventually(lambda: first.events("cluster.conflict") and second.events("cluster.conflict"), WITHIN_S, "the events")
