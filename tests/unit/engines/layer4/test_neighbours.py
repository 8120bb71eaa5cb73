import secrets
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from equipoise.base.errors import EngineError
from equipoise.engines.layer4.neighbours import neighbour_macs, probe
from equipoise.plan.model import ManagedAddress
from tests.unit.engines.layer4.namespace import Namespace, missing, namespace

WHY_NOT = missing()
pytestmark = [
    pytest.mark.root("network namespaces"),
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]

NODE, NODE6, NOBODY = (ManagedAddress(address, "e0") for address in ("10.77.0.2", "fd00:77::2", "10.77.0.9"))
Pair = tuple[Namespace, Namespace]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A balancer and a node, with a cable between them."""
    with namespace() as balancer, namespace() as node:
        balancer.run("ip", "link", "add", "e0", "type", "veth", "peer", "name", "e0", "netns", node.name)
        for number, machine in enumerate((balancer, node), 1):
            # Its address is its own at once: no second is spent on looking for another that has it.
            machine.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/e0/accept_dad")
            machine.run("ip", "address", "add", f"10.77.0.{number}/24", "dev", "e0")
            machine.run("ip", "address", "add", f"fd00:77::{number}/64", "dev", "e0", "nodad")
            machine.run("ip", "link", "set", "e0", "up")
        yield balancer, node


def given_new_mac(node: Namespace) -> str:
    mac = "02:00:00:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3))
    node.run("ip", "link", "set", "e0", "address", mac)
    return mac


def packet(place: ManagedAddress) -> None:
    with socket.socket(socket.AF_INET6 if ":" in place.host else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (place.host, 9))


def ask(balancer: Namespace, place: ManagedAddress) -> None:
    balancer.call(probe, place.host, place.interface)


def follows(balancer: Namespace, place: ManagedAddress, mac: str, meanwhile: Callable[[], None] = lambda: None) -> bool:
    """Say whether the table has the MAC within 20 s."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if balancer.call(neighbour_macs, [place]) == {place: mac}:
            return True
        meanwhile()
        time.sleep(0.1)
    return False


FAMILIES = pytest.mark.parametrize("place", [NODE, NODE6], ids=["ipv4", "ipv6"])


@FAMILIES
def test_a_neighbour_is_found_by_asking(pair: Pair, place: ManagedAddress) -> None:
    balancer, node = pair
    assert balancer.call(neighbour_macs, [place, NOBODY]) == {place: None, NOBODY: None}
    mac = given_new_mac(node)
    ask(balancer, place)
    assert follows(balancer, place, mac)


def test_nobody_there_stays_without_a_mac(pair: Pair) -> None:
    balancer, _ = pair
    ask(balancer, NOBODY)
    ask(balancer, NOBODY)
    assert balancer.call(neighbour_macs, [NOBODY]) == {NOBODY: None}
    assert balancer.call(neighbour_macs, []) == {}


@FAMILIES
def test_a_changed_mac_is_followed_while_there_is_traffic(pair: Pair, place: ManagedAddress) -> None:
    balancer, node = pair
    before = given_new_mac(node)
    ask(balancer, place)
    assert follows(balancer, place, before)
    after = given_new_mac(node)
    assert balancer.call(neighbour_macs, [place]) == {place: before}
    ask(balancer, place)
    assert follows(balancer, place, after, lambda: balancer.call(packet, place))


def test_asking_does_not_interrupt_a_healthy_neighbour(pair: Pair) -> None:
    balancer, node = pair
    mac = given_new_mac(node)
    ask(balancer, NODE)
    assert follows(balancer, NODE, mac)
    for _ in range(20):
        ask(balancer, NODE)
        assert balancer.call(neighbour_macs, [NODE]) == {NODE: mac}


def test_one_address_has_a_mac_on_each_interface_where_it_is(pair: Pair) -> None:
    """Two segments may use the same addresses."""
    balancer, _ = pair
    balancer.run("ip", "link", "add", "e1", "type", "veth", "peer", "name", "e2")
    known: dict[ManagedAddress, str | None] = {
        ManagedAddress(address, interface): f"02:00:00:00:0{i}:0{j}"
        for i, address in enumerate((NODE.host, NODE6.host))
        for j, interface in enumerate(("e0", "e1"))
    }
    balancer.run("ip", "link", "set", "e1", "up")
    for place, mac in known.items():
        entry = (place.host, "lladdr", str(mac), "dev", place.interface, "nud", "permanent")
        balancer.run("ip", "neighbour", "replace", *entry)
    elsewhere = {ManagedAddress(NODE.host, "e2"): None, ManagedAddress(NODE.host, "eth9"): None}
    assert balancer.call(neighbour_macs, [*known, *elsewhere]) == known | elsewhere
    only = ManagedAddress(NODE.host, "e1")
    assert balancer.call(neighbour_macs, [only]) == {only: known[only]}


def test_an_interface_that_is_not_there(pair: Pair) -> None:
    with pytest.raises(EngineError, match="no interface 'eth9'"):
        ask(pair[0], ManagedAddress(NODE.host, "eth9"))
