"""Layer 4 where hands broke it: each case was found by trying, and says what should have come.

Leaves out what has a test already: faults of nodes and cables (`test_layer4_faults.py`), refusals that are known
(`test_layer4_bad_input.py`).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.lab.lab import VIPS, VIPS6
from tests.system.balancer import Balancer, eventually
from tests.system.layer4_stage import (
    DIRECT,
    MASQUERADED,
    TRANSLATED,
    Served,
    Stage,
    Way,
    document,
    endpoint,
    in_laboratory,
)

pytestmark = pytest.mark.timeout(240)  # one of them waits for connections to have been silent for a minute
BOTH = pytest.mark.parametrize("way", [DIRECT, TRANSLATED], ids=str)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with in_laboratory(tmp_path_factory.mktemp("lab"), vips=len(VIPS)) as stage:
        yield stage


def refusal(stage: Stage, served: Served, **settings: Any) -> str:
    """Apply the document with other settings, which has to be refused; return the words."""
    services = {served.name: {**served.document, **settings}}
    answer = stage.balancer.post("apply", document=document(services), force=True)
    assert not answer.is_success, f"{settings} was taken"
    text: str = answer.json()["error"]
    return text


def serves(served: Served) -> bool:
    try:
        return bool(served.nodes(1))
    except OSError:
        return False


_SERVER = """
import socket, struct, sys, threading
listening = socket.create_server(("0.0.0.0", 8989), backlog=100)
print("ready", flush=True)
def serve(one):
    one.recv(1)
    if sys.argv[1] == "a":  # no time to linger: the end is a reset
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""


def _ended_by(served: Served) -> str:
    """Return which node ended a connection: a does it by resets."""
    with served.far.host.connect(served.address, served.port) as connected:
        connected.sendall(b"?")
        try:
            connected.recv(1)
        except ConnectionResetError:
            return "a"
    return "b"


def test_connections_that_their_node_has_reset_do_not_keep_it_from_work(stage: Stage) -> None:
    # A node's own reset does not pass the balancer: of a server that closes idle connections so, or was restarted.
    servers = [stage.node(name).host.start("python3", "-c", _SERVER, name) for name in ("a", "b")]
    try:
        served = stage.serve(DIRECT, port=8989, balance="least_connections")
        assert set(Counter(_ended_by(served) for _ in range(16))) == {"a", "b"}
        eventually(lambda: "a" in {_ended_by(served) for _ in range(3)}, 100, "work where all are silent")
    finally:
        for server in servers:
            server.kill()
            server.wait()


def test_two_instances_with_equal_names_have_each_its_own_nodes(stage: Stage) -> None:
    served = stage.serve(TRANSLATED)
    address, port = VIPS[1], served.port
    nodes = {"x": served.document["nodes"]["y"]}  # the same name, another machine
    theirs = {served.name: {**served.document, "listen": endpoint(address, port), "nodes": nodes}}
    with Balancer(document(theirs), prefix=stage.lab.balancer.prefix) as other:
        other.wait_state(served.name, "x", "up")
        assert set(served.nodes(4)) == {"x", "y"}
        assert set(served.far.nodes(address, port, 4)) == {"y"}
        with served.transfer_from("x") as transfer:
            other.post("nodes", pattern=f"{served.name}/x", action="disable")
            transfer.goes_on(20)


def test_a_service_of_direct_routing_may_become_one_of_the_other_family(stage: Stage) -> None:
    served = stage.serve(DIRECT)
    assert set(served.nodes(2)) == {"a", "b"}
    nodes = {name: {"address": endpoint(stage.node(name).address(6), served.port)} for name in ("a", "b")}
    served.change(listen=endpoint(VIPS6[0], served.port), nodes=nodes)
    replace(served, address=VIPS6[0]).wait_nodes("a", "b")


@BOTH
def test_elements_that_another_program_flushed_come_back(stage: Stage, way: Way) -> None:
    served, machine = stage.serve(way), stage.lab.balancer
    family = "netdev" if way is DIRECT else "inet"
    tables = [line.split() for line in machine.must("nft", "list", "tables").splitlines()]
    (name,) = [words[2] for words in tables if words[1] == family]
    for flushed in ("slots", "ways"):
        machine.must("nft", "flush", "map", family, name, f"{flushed}-{served.name}")
        eventually(lambda: serves(served), 20, f"answers after {flushed} were flushed")


def test_rules_come_back_while_another_interface_is_gone(stage: Stage) -> None:
    served, machine = stage.serve(DIRECT), stage.lab.balancer
    machine.add_cable("eth7", "inner", "10.77.7.2/24")
    machine.add_address("10.77.7.100/32", "eth7")
    away = {**served.document, "listen": "10.77.7.100:80", "nodes": {"n": {"address": "10.77.7.11:80"}}}
    stage.apply({served.name: served.document, "away": away})
    machine.ip("link", "delete", "eth7")
    eventually(lambda: stage.balancer.status("away")["state"] in ("waiting", "down"), 20, "the loss of eth7")
    machine.must("nft", "flush", "ruleset")
    eventually(lambda: serves(served), 20, "the service at the interface that is there")


@pytest.mark.xfail(strict=True, reason="a start is refused whole; a service whose interface is gone could wait alone")
def test_a_balancer_starts_where_one_of_its_interfaces_is_gone(stage: Stage) -> None:
    served, machine = stage.serve(DIRECT), stage.lab.balancer
    machine.add_cable("eth8", "inner", "10.77.8.2/24")
    machine.add_address("10.77.8.100/32", "eth8")
    away = {**served.document, "listen": "10.77.8.100:80", "nodes": {"n": {"address": "10.77.8.11:80"}}}
    stage.apply({served.name: served.document, "away": away})
    stage.balancer.kill_supervisor()
    machine.ip("link", "delete", "eth8")
    machine.must("nft", "flush", "ruleset")  # as after a restart of the machine
    try:
        stage.balancer.start()
        eventually(lambda: serves(served), 20, "the service at the interface that is there")
    finally:
        if stage.balancer.process is None or stage.balancer.process.poll() is not None:
            stage.balancer.site.write_text(document({served.name: served.document}))
            stage.balancer.start()


def test_networks_of_the_other_family_in_allow_from_are_refused_with_their_place(stage: Stage) -> None:
    said = refusal(stage, stage.serve(DIRECT), allow_from=["10.77.0.0/16", "fd77::/32"])
    assert "allow_from" in said, said
    assert "fd77::/32" in said, said


def test_a_source_address_that_this_machine_does_not_have_is_refused(stage: Stage) -> None:
    # Answers to it never come back, while checks say that all is well.
    assert "10.9.9.9" in refusal(stage, stage.serve(MASQUERADED), source_address="10.9.9.9")


@pytest.mark.parametrize("own", ["10.77.1.2", "127.0.0.1"])
@BOTH
def test_a_node_that_is_this_machine_is_refused(stage: Stage, way: Way, own: str) -> None:
    if (way, own) == (TRANSLATED, "10.77.1.2"):
        pytest.skip("translated connections do reach this machine itself")
    served = stage.serve(way)
    assert own in refusal(stage, served, nodes={"own": {"address": f"{own}:{served.port}"}})


def test_the_loopback_interface_is_no_place_where_clients_come_in(stage: Stage) -> None:
    served = stage.serve(DIRECT)
    refused = stage.balancer.post(
        "apply", document=document({served.name: served.document}, network={"interface": "lo"}), force=True
    )
    assert not refused.is_success
    assert "lo" in refused.text


def test_addresses_are_not_given_up_while_a_service_listens_on_them_unless_forced(stage: Stage) -> None:
    machine = stage.lab.balancer
    machine.ip("address", "delete", f"{VIPS[2]}/32", "dev", "eth0")
    try:
        served = stage.serve(DIRECT)
        services = {served.name: {**served.document, "listen": endpoint(VIPS[2], served.port)}}
        stage.apply(services, network={"manage_addresses": True, "interface": "eth0"})
        answer = stage.balancer.post("apply", document=document(services), force=False)
        assert not answer.is_success, "the service lost its address without a word"
    finally:
        stage.apply({})
        machine.add_address(f"{VIPS[2]}/32")
