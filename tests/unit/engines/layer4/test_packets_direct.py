"""What the rules of direct routing do with single packets."""

from collections.abc import Iterator

import pytest

from equipoise.engines.layer4 import render_direct
from tests.system.netns import missing
from tests.unit.engines.layer4.wire import (
    ACK,
    CLIENT,
    CLIENT6,
    DISABLED,
    DOWN,
    DRAIN,
    FIN,
    FRIEND,
    GONE,
    NODES,
    NODES6,
    PSH,
    RST,
    STRANGER,
    SYN,
    VIP,
    VIP6,
    Wire,
    up,
    wire,
)

WHY_NOT = missing()
pytestmark = [
    pytest.mark.root("network namespaces and nf_tables"),
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]


@pytest.fixture(scope="module")
def network() -> Iterator[Wire]:
    with wire() as made:
        yield made


@pytest.fixture
def net(network: Wire) -> Iterator[Wire]:
    yield network
    network.clear()


def service(more: str = "balance: round_robin", *, version: int = 4) -> str:
    vip, nodes = (VIP, NODES) if version == 4 else (VIP6, NODES6)
    listed = ", ".join(f"{name}: {{address: '{address}'}}" for name, address in nodes.items())
    settings = f", {more}" if more else ""
    return f"s: {{protocol: tcp, mode: l4_dr, listen: '{vip}', ports: [9000]{settings}, nodes: {{{listed}}}}}"


SOURCES = pytest.mark.parametrize("source", [CLIENT, CLIENT6], ids=["ipv4", "ipv6"])


def version(source: str) -> int:
    return 6 if ":" in source else 4


@SOURCES
def test_new_flows_take_turns_and_stay(net: Wire, source: str) -> None:
    net.load(service(version=version(source)))
    found = [net.send(5000 + i, SYN, source=source) for i in range(6)]
    assert found == ["a", "b"] * 3
    assert [net.send(5000 + i, ACK, source=source) for i in range(6)] == found
    assert net.live() == {"a": 3, "b": 3}
    assert net.counts().passed["netdev picks-s"][0] == 6


@SOURCES
def test_a_first_packet_sent_again_stays_with_its_node_whatever_the_slots_say(net: Wire, source: str) -> None:
    net.load(service(version=version(source)))
    assert net.send(5000, SYN, source=source) == "a"
    net.set_nodes(a=up(0))
    assert net.send(5001, SYN, source=source) == "b"
    assert net.send(5000, SYN, source=source) == "a"
    net.set_nodes(a=DRAIN)
    assert net.send(5000, SYN, source=source) == "a"
    assert net.send(5000, ACK, source=source) == "a"


@SOURCES
def test_a_first_packet_sent_again_goes_elsewhere_with_all_that_follows_when_its_node_is_down(
    net: Wire, source: str
) -> None:
    net.load(service("on_down: keep", version=version(source)))
    assert net.send(5000, SYN, source=source) == "a"
    net.set_nodes(a=DOWN)
    assert net.send(5000, SYN, source=source) == "b"
    assert net.send(5000, ACK, source=source) == "b"
    assert net.live() == {"a": 0, "b": 1}


@SOURCES
def test_what_is_known_of_no_flow_is_reset(net: Wire, source: str) -> None:
    net.load(service(version=version(source)))
    assert net.send(5000, ACK, source=source) == "reset"
    assert net.send(5000, FIN | ACK, source=source) == "reset"
    assert net.counts().passed["netdev lost-s"][0] == 2
    assert net.live() == {"a": 0, "b": 0}


@SOURCES
def test_an_unknown_flow_goes_on_by_the_hash(net: Wire, source: str) -> None:
    """As after a take-over: a machine with the same rules, which has seen nothing of it."""
    net.load(service("balance: source_hash", version=version(source)))
    first = net.send(5000, SYN, source=source)
    net.clear()
    net.load(service("balance: source_hash", version=version(source)))
    assert net.send(5000, ACK | PSH, source=source) == first
    assert net.live() == {first: 1, "b" if first == "a" else "a": 0}


@SOURCES
def test_a_flow_is_kept_for_a_minute_then_while_it_may_be_silent_then_until_it_is_over(net: Wire, source: str) -> None:
    mark = "6" if ":" in source else ""
    net.load(service("timeouts: {idle: 1h}, persistence: {by: source_ip, ttl: 30m}", version=version(source)))
    for flags, name, seconds in ((SYN, "flows", 60), (ACK, "flows", 3600), (FIN | ACK, "closing", 300)):
        assert net.send(5000, flags, source=source) == "a"
        assert net.kept("netdev", f"{name}{mark}-s") == [pytest.approx(seconds, abs=25)]  # a machine may be busy
    assert net.kept("netdev", f"flows{mark}-s") == []
    assert net.kept("netdev", f"persist{mark}-s") == [pytest.approx(1800, abs=25)]


def test_an_unknown_flow_goes_on_by_persistence(net: Wire) -> None:
    net.load(service("persistence: {by: source_ip, mask: 31}"))  # 10.8.0.2 and .3 are one client
    first = net.send(5000, SYN)
    assert net.send(5001, ACK, source=FRIEND) == first
    assert net.send(5002, ACK, source=STRANGER) == "reset"


def test_persistence_leaves_a_node_that_takes_no_work_for_good(net: Wire) -> None:
    net.load(service("persistence: {by: source_ip}"))
    assert [net.send(5000 + i, SYN) for i in range(3)] == ["a"] * 3
    net.set_nodes(a=DRAIN)
    assert net.send(5010, SYN) == "b"
    net.set_nodes(a=up())
    assert net.send(5011, SYN) == "b", "the entry of the drained node is gone"
    assert net.send(5000, ACK) == "a", "what is open stays"


@SOURCES
@pytest.mark.parametrize("last", [FIN | ACK, RST])
def test_a_flow_that_ends_counts_no_more_and_finds_its_node(net: Wire, source: str, last: int) -> None:
    net.load(service(version=version(source)))
    for flags in (SYN, ACK):
        assert net.send(5000, flags, source=source) == "a"
    assert net.live()["a"] == 1
    assert net.send(5000, last, source=source) == "a"
    assert net.live()["a"] == 0
    assert [net.send(5000, flags, source=source) for flags in (ACK, FIN | ACK, ACK)] == ["a"] * 3
    assert net.live()["a"] == 0
    assert net.send(5000, SYN, source=source) == "b", "the same port again, in turn"
    assert net.send(5000, ACK, source=source) == "b"
    assert net.live() == {"a": 0, "b": 1}


def test_a_full_table_refuses_what_is_new_and_keeps_what_is_there(net: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_direct, "FLOWS", 4)
    net.load(service())
    found = [net.send(5000 + i, SYN) for i in range(4)]
    assert [net.send(5100 + i, SYN) for i in range(3)] == ["reset"] * 3
    assert [net.send(5000 + i, ACK) for i in range(4)] == found
    assert net.counts().passed["netdev full-s"][0] == 3


def test_only_clients_of_the_listed_networks_get_through(net: Wire) -> None:
    net.load(service("balance: source_hash, allow_from: [10.8.0.2/31, 172.16.0.0/12]"))
    assert net.send(5000, SYN) in NODES
    assert net.send(5000, SYN, source=FRIEND) in NODES
    assert net.send(5000, SYN, source=STRANGER) == "reset"
    assert net.send(5001, ACK, source=STRANGER) == "reset", "nor by beginning in the middle"
    assert sum(net.live().values()) == 2


def test_a_cut_node_resets_its_flows_on_their_next_packet(net: Wire) -> None:
    net.load(service())
    assert [net.send(5000 + i, SYN) for i in range(4)] == ["a", "b"] * 2
    net.set_nodes(a=DOWN)
    assert net.send(5000, ACK) == "a", "its check could connect"
    net.set_nodes(a=GONE)
    assert net.send(5000, ACK) == "reset"
    net.set_nodes(b=DISABLED)
    assert net.send(5001, ACK) == "reset"
    assert net.send(5002, ACK) == "a"
    assert net.live() == {"a": 1, "b": 1}, "those that said nothing are still there"


def test_a_node_that_leaves_the_plan_takes_its_flows_along(net: Wire) -> None:
    net.load(service())
    assert [net.send(5000 + i, SYN) for i in range(2)] == ["a", "b"]
    net.load(service().replace(f", b: {{address: '{NODES['b']}'}}", ""))
    assert net.send(5000, ACK) == "a"
    assert net.send(5001, ACK) == "reset"
    assert net.send(5001, SYN) == "a"
    assert net.send(5001, ACK) == "a"


def test_with_nobody_to_take_it_a_new_flow_is_reset_at_once(net: Wire) -> None:
    net.load(service("persistence: {by: source_ip}"))
    assert net.send(5000, SYN) == "a"
    net.set_nodes(a=DRAIN, b=DRAIN)
    assert net.send(5001, SYN) == "reset"
    assert net.send(5000, ACK) == "a"


def test_what_is_sent_to_another_port_is_not_ours(net: Wire) -> None:
    net.load(service())
    assert net.send(5000, SYN, to=9001) == "reset", "by the balancer's own kernel, where nobody listens"
    assert net.counts().passed["netdev picks-s"][0] == 0


def test_flows_outlive_a_plan_that_changes_everything_else(net: Wire) -> None:
    net.load(service())
    assert [net.send(5000 + i, SYN) for i in range(2)] == ["a", "b"]
    net.load(
        service("balance: source_hash, persistence: {by: source_ip}, timeouts: {idle: 5m}, allow_from: [10.9.0.0/16]")
    )
    assert [net.send(5000 + i, ACK) for i in range(2)] == ["a", "b"]


def test_the_family_of_a_service_may_change(net: Wire) -> None:
    net.load(service("persistence: {by: source_ip}"))
    assert net.send(5000, SYN) == "a"
    net.load(service("persistence: {by: source_ip}", version=6))
    assert net.send(5000, SYN, source=CLIENT6) == "a"
    assert net.live() == {"a": 1, "b": 0}
