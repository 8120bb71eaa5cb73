"""Elements that a peer told of, and single packets: the rules use them like those that packets made."""

from collections.abc import Iterator
from functools import partial

import pytest

from equipoise.engines.layer4.flow_keys import heard, said
from equipoise.engines.layer4.ledger import Change
from equipoise.engines.layer4.sharing import shared_maps
from tests.system.netns import missing
from tests.unit.engines.layer4.test_packets_direct import service, version
from tests.unit.engines.layer4.wire import ACK, CLIENT, CLIENT6, FIN, NODES, STRANGER, SYN, VIP, Wire, wire

WHY_NOT = missing()
pytestmark = [
    pytest.mark.root("network namespaces and nf_tables"),
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]
SOURCES = pytest.mark.parametrize("source", [CLIENT, CLIENT6], ids=["ipv4", "ipv6"])


@pytest.fixture(scope="module")
def network() -> Iterator[Wire]:
    with wire() as made:
        yield made


@pytest.fixture
def net(network: Wire) -> Iterator[Wire]:
    yield network
    network.clear()


def told(net: Wire) -> dict[str, list[tuple[str, bytes, float]]]:
    """Return what a peer would be told, by map: keys in words, marks, seconds left."""
    found = {}
    for each in shared_maps(net.artifact.pools):
        seen, whole = net.balancer.inside(partial(net.kernel.elements, each.family, each.name, 1000))
        assert whole
        found[each.name] = [(said(each.form, key), mark, left_ms / 1000) for key, (mark, left_ms) in seen.items()]
    return found


def take_over(net: Wire, known: dict[str, list[tuple[str, bytes, float]]]) -> None:
    """Write it, as on a machine that saw none of these packets."""
    for each in shared_maps(net.artifact.pools):
        changes = []
        for text, mark, left_s in known[each.name]:
            key = heard(each.form, text)
            assert key is not None
            changes.append(Change(key, None, mark, left_s))
        assert net.balancer.inside(partial(net.kernel.change, each.family, each.name, changes))


@SOURCES
def test_flows_go_on_at_a_machine_that_was_told_of_them(net: Wire, source: str) -> None:
    text = service("balance: round_robin, timeouts: {idle: 1h}", version=version(source))
    net.load(text)
    found = [net.send(5000 + i, SYN, source=source) for i in range(4)]
    assert [net.send(5000 + i, ACK, source=source) for i in range(3)] == found[:3]
    known = told(net)
    net.clear()
    net.load(text)
    take_over(net, known)
    assert net.live() == {"a": 2, "b": 2}
    assert [net.send(5000 + i, ACK, source=source) for i in range(4)] == found
    assert net.live() == {"a": 2, "b": 2}
    assert net.send(5009, ACK, source=source) == "reset", "a stranger"


@SOURCES
def test_packets_renew_and_end_what_was_taken_over(net: Wire, source: str) -> None:
    suffix = "6" if ":" in source else ""
    text = service("balance: round_robin, timeouts: {idle: 1h}", version=version(source))
    net.load(text)
    node = net.send(5000, SYN, source=source)
    known = told(net)
    net.clear()
    net.load(text)
    take_over(net, known)
    assert net.kept("netdev", f"flows{suffix}-s") == [pytest.approx(60, abs=25)]
    assert net.send(5000, ACK, source=source) == node
    assert net.kept("netdev", f"flows{suffix}-s") == [pytest.approx(3600, abs=25)]
    assert net.send(5000, FIN | ACK, source=source) == node
    assert net.kept("netdev", f"flows{suffix}-s") == []
    assert net.kept("netdev", f"closing{suffix}-s") == [pytest.approx(300, abs=25)]


@SOURCES
@pytest.mark.parametrize("masks", ["", ", mask: 24, mask6: 64"], ids=["whole", "masked"])
def test_clients_find_their_node_at_a_machine_that_was_told_of_them(net: Wire, source: str, masks: str) -> None:
    text = service(f"balance: round_robin, persistence: {{by: source_ip{masks}}}", version=version(source))
    net.load(text)
    assert net.send(5000, SYN, source=source) == "a"
    known = told(net)
    net.clear()
    net.load(text)
    take_over(net, known)
    if source == CLIENT and not masks:
        assert net.send(6000, SYN, source=STRANGER) == "a", "the first slot"
    assert [net.send(5001 + i, SYN, source=source) for i in range(3)] == ["a"] * 3


def test_flows_are_said_in_words(net: Wire) -> None:
    net.load(service("balance: round_robin"))
    assert net.send(5000, SYN) in NODES
    assert [text for text, *_ in told(net)["flows-s"]] == [f"{CLIENT} 5000 {VIP} 9000"]
