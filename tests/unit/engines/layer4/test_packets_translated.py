"""What the rules of address translation do with connections, and with single packets."""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from equipoise.plan.states import NodeState
from tests.system.netns import missing
from tests.unit.engines.layer4.wire import (
    ACK,
    CLIENT,
    DISABLED,
    DOWN,
    DRAIN,
    FRIEND,
    GONE,
    NODES,
    PATIENCE_S,
    STRANGER,
    SYN,
    VIP,
    Wire,
    up,
    wire,
)

WHY_NOT = missing()
pytestmark = [
    pytest.mark.root("network namespaces, nf_tables and conntrack"),
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]
PORTS = {"a": 8000, "b": 8001}


class Site:
    """The network with a server on each node, and the connections that a test makes."""

    def __init__(self, net: Wire) -> None:
        self.net = net
        self._end = ExitStack()
        self.servers = {name: self._listen(name) for name in NODES}

    def _listen(self, name: str) -> socket.socket:
        made = self.net.nodes[name].inside(lambda: socket.create_server((NODES[name], PORTS[name])))
        return self._end.enter_context(made)

    def until_one_goes_to(self, node: str) -> None:
        """Connect until that node gets one: a seat that was left is swept within about a second."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            with suppress(ConnectionRefusedError):
                if self.connect().node == node:
                    return
            time.sleep(0.1)
        raise AssertionError(f"no connection went to {node}")

    def connect(self, source: str = CLIENT, port: int = 8000) -> "Call":
        """Connect to the service.  Raises: ConnectionRefusedError."""
        near = self._end.enter_context(closing(self.net.client.connect(VIP, port, source=source, timeout_s=PATIENCE_S)))
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            for server in select.select(list(self.servers.values()), [], [], 1)[0]:
                far, seen = server.accept()
                self._end.enter_context(far)
                name = next(name for name, each in self.servers.items() if each is server)
                return Call(name, seen[0], near, far)
        raise AssertionError("no node got the connection")

    def end(self, call: "Call") -> None:
        """End a connection from the client's side first, and wait until conntrack knows."""
        before = self.net.live()[call.node]
        call.near.close()
        assert call.far.recv(1) == b""
        call.far.close()
        deadline_s = time.monotonic() + PATIENCE_S
        while self.net.live()[call.node] == before:
            assert time.monotonic() < deadline_s, "it is still counted"

    def close(self) -> None:
        self._end.close()


class Call:
    """A connection: `node` has it, and sees it come from `seen`."""

    def __init__(self, node: str, seen: str, near: socket.socket, far: socket.socket) -> None:
        self.node, self.seen, self.near, self.far = node, seen, near, far
        far.settimeout(PATIENCE_S)

    def works(self) -> bool:
        """Say whether bytes arrive both ways, or raise what the client hears instead."""
        for one, other in ((self.near, self.far), (self.far, self.near)):
            one.sendall(b"ping")
            if other.recv(4) != b"ping":
                return False
        return True

    def is_reset(self) -> bool:
        """Say whether the client's next packet is answered with a reset."""
        self.near.sendall(b"ping")
        with pytest.raises(ConnectionResetError):
            self.near.recv(1)
        return True


@pytest.fixture(scope="module")
def network() -> Iterator[Wire]:
    with wire() as made:
        yield made


@pytest.fixture
def site(network: Wire) -> Iterator[Site]:
    made = Site(network)
    yield made
    made.close()
    network.clear()


def service(more: str = "balance: round_robin", *, a: str = "", b: str = "", ports: str = "[8000]") -> str:
    settings = f", {more}" if more else ""
    nodes = f"a: {{address: '{NODES['a']}:8000'{a}}}, b: {{address: '{NODES['b']}:8001'{b}}}"
    return f"s: {{protocol: tcp, mode: l4_nat, listen: {VIP}, ports: {ports}{settings}, nodes: {{{nodes}}}}}"


def test_connections_take_turns_to_the_nodes_ports_and_show_the_client(site: Site) -> None:
    site.net.load(service())
    calls = [site.connect() for _ in range(4)]
    assert [call.node for call in calls] == ["a", "b"] * 2
    assert {call.seen for call in calls} == {CLIENT}
    assert {call.far.getsockname()[1] for call in calls if call.node == "b"} == {8001}
    assert all(call.works() for call in calls)
    assert site.net.live() == {"a": 2, "b": 2}
    passed = site.net.counts().passed
    assert passed["inet picks-s"][0] == 4
    assert all(passed[f"inet {way}-s/{node}"][1] > 100 for way in ("in", "out") for node in NODES)


def test_without_a_port_the_node_is_called_at_the_clients(site: Site) -> None:
    site.net.load(service(ports="[8001, 8000]").replace(":8000'", "'").replace(":8001'", "'"))
    assert site.connect(port=8000).node == "a"
    assert site.connect(port=8001).node == "b"


def test_masquerading_shows_the_balancer_or_the_address_that_it_is_to_show(site: Site) -> None:
    site.net.load(service("masquerade: true"))
    assert site.connect().seen == "10.9.0.1"
    site.net.balancer.add_address("10.9.0.5/24")
    site.net.load(service("masquerade: true, source_address: 10.9.0.5"))
    hidden = site.connect()
    assert hidden.seen == "10.9.0.5"
    assert hidden.works()


def test_a_nodes_limit_holds_exactly_and_what_is_beyond_goes_to_the_other(site: Site) -> None:
    site.net.load(service(a=", max_connections: 2"))
    assert [site.connect().node for _ in range(7)] == ["a", "b", "a", "b", "b", "b", "b"]
    site.net.set_nodes(a=up(), b=DRAIN)
    with pytest.raises(ConnectionRefusedError):
        site.connect()


def test_a_connection_that_ends_makes_room_for_another(site: Site) -> None:
    site.net.load(service(a=", max_connections: 1"))
    first, _ = site.connect(), site.connect()
    site.end(first)
    site.until_one_goes_to("a")


def test_a_connection_that_a_full_node_did_not_get_takes_no_room_there(site: Site) -> None:
    site.net.load(service(a=", max_connections: 1"))
    calls = [site.connect() for _ in range(3)]
    assert [call.node for call in calls] == ["a", "b", "b"]
    site.end(calls[0])
    site.net.set_nodes(b=DRAIN)
    site.until_one_goes_to("a")


def test_a_limit_holds_across_a_change_of_plan(site: Site) -> None:
    site.net.load(service(a=", max_connections: 1"))
    assert [site.connect().node for _ in range(2)] == ["a", "b"]
    site.net.load(service("balance: round_robin, persistence: {by: source_ip}", a=", max_connections: 1"))
    assert [site.connect().node for _ in range(2)] == ["b", "b"]


def test_a_connection_that_ends_makes_room_before_the_next_look(site: Site) -> None:
    """The engine last counted when every node was full, and has taken them out of the slots."""
    site.net.load(service(a=", max_connections: 1", b=", max_connections: 1"))
    first, _ = site.connect(), site.connect()
    site.net.set_nodes({"a": 1, "b": 1})
    with pytest.raises(ConnectionRefusedError):
        site.connect()
    site.end(first)
    site.until_one_goes_to("a")


def test_a_drained_node_keeps_what_is_open_and_gets_nothing_new(site: Site) -> None:
    site.net.load(service("persistence: {by: source_ip}"))
    kept = site.connect()
    site.net.set_nodes(**{kept.node: DRAIN})
    other = site.connect()
    assert other.node != kept.node
    site.net.set_nodes()
    assert site.connect().node == other.node, "the entry of the drained node is gone"
    assert kept.works()


@pytest.mark.parametrize("state", [DISABLED, GONE])
def test_a_cut_node_has_its_connections_ended(site: Site, state: NodeState) -> None:
    site.net.load(service())
    one, other = site.connect(), site.connect()
    site.net.set_nodes(**{one.node: DOWN})
    assert one.works(), "its check could connect"
    site.net.set_nodes(**{one.node: state})
    assert one.is_reset()
    assert other.works()
    assert site.connect().node == other.node
    assert site.net.live() == {one.node: 0, other.node: 2}


def test_a_cut_nodes_seats_are_free_when_it_is_back(site: Site) -> None:
    site.net.load(service(a=", max_connections: 1"))
    first, _ = site.connect(), site.connect()
    assert first.node == "a"
    site.net.set_nodes(a=DISABLED)
    assert first.is_reset()
    site.net.set_nodes()
    site.until_one_goes_to("a")


def test_what_finds_no_seat_goes_to_a_backup_that_is_able(site: Site) -> None:
    site.net.load(service(a=", max_connections: 1", b=", backup: true"))
    assert [site.connect().node for _ in range(3)] == ["a", "b", "b"]
    site.net.set_nodes(b=DRAIN)
    with pytest.raises(ConnectionRefusedError):
        site.connect()


def test_open_connections_outlive_every_plan(site: Site) -> None:
    site.net.load(service(a=", max_connections: 5"))
    calls = [site.connect() for _ in range(2)]
    site.net.load(service("balance: source_hash, persistence: {by: source_ip}, allow_from: [10.9.0.0/16]"))
    site.net.load(service("masquerade: true"))
    assert all(call.works() for call in calls)


def test_a_first_packet_sent_again_stays_with_its_node(site: Site) -> None:
    site.net.load(service().replace(":8000'", ":9000'").replace(":8001'", ":9001'"))
    assert site.net.send(5000, SYN, to=8000) == "a"
    site.net.set_nodes(a=DRAIN)
    assert site.net.send(5000, SYN, to=8000) == "a"
    assert site.net.send(5001, SYN, to=8000) == "b"


def test_only_clients_of_the_listed_networks_get_through(site: Site) -> None:
    site.net.load(service("balance: source_hash, allow_from: [10.8.0.2/31]").replace(":8000'", ":9000'"))
    assert site.net.send(5000, SYN, to=8000, source=STRANGER) == "reset"
    assert site.net.send(5001, ACK, to=8000, source=STRANGER) == "reset", "nor by beginning in the middle"
    assert site.net.send(5000, SYN, to=8000, source=FRIEND) in NODES


def test_a_connection_that_another_machine_carried_goes_on_or_is_reset(site: Site) -> None:
    silent = service().replace(":8000'", ":9000'").replace(":8001'", ":9001'")
    site.net.load(silent)
    assert site.net.send(5000, ACK, to=8000) == "reset"
    assert site.net.counts().passed["inet lost-s"][0] == 1
    site.net.load(silent.replace("round_robin", "source_hash"))
    first = site.net.send(5001, SYN, to=8000)
    site.net.clear()
    site.net.load(silent.replace("round_robin", "source_hash"))
    assert site.net.send(5001, ACK, to=8000) == first


def test_with_nobody_to_take_it_a_connection_is_refused(site: Site) -> None:
    site.net.load(service())
    site.net.set_nodes(a=DOWN, b=DISABLED)
    with pytest.raises(ConnectionRefusedError):
        site.connect()


def test_the_family_of_a_service_may_change(site: Site) -> None:
    site.net.load(service("persistence: {by: source_ip}"))
    six = service("persistence: {by: source_ip}").replace(VIP, "'fd00:8::100'")
    site.net.load(six.replace("10.9.0.11:", "[fd00:9::11]:").replace("10.9.0.12:", "[fd00:9::12]:"))
    site.net.load(service("persistence: {by: source_ip}"))
    assert site.connect().works()
