import json
import sys
import time
from collections.abc import Iterator

import pytest

from equipoise.base.errors import EngineError
from equipoise.engines.layer4.artifact import FAMILIES
from equipoise.engines.layer4.kernel_tables import count_values, counters, elements, generation, names, rules, sizes
from tests.unit.engines.layer4.namespace import Namespace, missing, namespace
from tests.unit.engines.nobody import told_to_nobody

WHY_NOT = missing("nft")
pytestmark = [
    pytest.mark.root("network namespaces and nf_tables"),
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]

NETDEV, INET = FAMILIES["netdev"], FAMILIES["inet"]
KEY = "ip saddr . tcp sport . ip daddr . tcp dport"
TABLE = """
table netdev equipoise { comment "plan abc"; }
add map netdev equipoise flows-a { typeof %KEY : meta mark; size 1048576; flags dynamic,timeout; }
add map netdev equipoise flows-6 { typeof %KEY6 : meta mark; size 65536; flags dynamic,timeout; }
add map netdev equipoise slots-a { typeof numgen inc mod 4 : meta mark; size 4; }
add set netdev equipoise takes-a { typeof meta mark; }
add counter netdev equipoise in-a-n1 { packets 7 bytes 4200 }
add counter netdev equipoise in-a-n2
add map netdev equipoise services4 { typeof ip daddr . tcp dport : verdict; }
add chain netdev equipoise svc-a
add rule netdev equipoise svc-a counter name in-a-n1
add rule netdev equipoise svc-a meta mark set %KEY map @flows-a
add chain netdev equipoise ingress-eth0 { type filter hook ingress device "eth0" priority 0; }
add rule netdev equipoise ingress-eth0 ip daddr . tcp dport vmap @services4
add element netdev equipoise takes-a { 0x45000001, 0x45000002 }
add element netdev equipoise slots-a { 0 : 0x45000001, 1 : 0x45000002, 2 : 0x45000001, 3 : 0x45000002 }
table inet equipoise { chain forward { type filter hook forward priority 0; }; }
table netdev other { set takes-a { type mark; elements = { 9 }; }
 chain svc-other { accept; }
}
""".replace("%KEY6", KEY.replace("ip ", "ip6 ")).replace("%KEY", KEY)


@pytest.fixture
def network() -> Iterator[Namespace]:
    with namespace() as made:
        made.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
        made.nft(TABLE)
        yield made


def fill(
    network: Namespace, name: str, number: int, nodes: int, key: str = "10.{}.{}.{} . {} . 10.9.0.100 . 104"
) -> None:
    keys = [key.format(i >> 16 & 255, i >> 8 & 255, i & 255, 1024 + i % 60000) for i in range(number)]
    listed = ", ".join(f"{key} timeout 3h : {0x45000001 + i % nodes:#x}" for i, key in enumerate(keys))
    network.nft(f"add element netdev equipoise {name} {{ {listed} }}")


def test_what_a_table_holds_and_nothing_of_another(network: Namespace) -> None:
    found = network.call(names, NETDEV, "equipoise")
    assert found is not None
    assert found.chains == {"svc-a", "ingress-eth0"}
    assert found.sets == {"takes-a"}
    assert found.maps == {"flows-a", "flows-6", "slots-a", "services4"}
    assert found.counters == {"in-a-n1", "in-a-n2"}
    assert found.hooks == {"ingress-eth0": {"eth0"}}
    nat = network.call(names, INET, "equipoise")
    assert nat is not None
    assert nat.hooks == {"forward": frozenset()}


def test_a_table_that_is_not_there(network: Namespace) -> None:
    assert network.call(names, NETDEV, "nobody") is None
    assert network.call(rules, NETDEV, "nobody") == 0
    assert network.call(counters, NETDEV, "nobody") == {}
    with pytest.raises(EngineError, match="no set or map 'flows-a' in table 'nobody'"):
        network.call(count_values, NETDEV, "nobody", "flows-a")


def test_a_chain_whose_device_went_away_is_not_hooked(network: Namespace) -> None:
    network.run("ip", "link", "delete", "eth0")
    found = network.call(names, NETDEV, "equipoise")
    assert found is not None
    assert not found.hooks.get("ingress-eth0"), "older kernels take the chain away, newer ones its device"


def test_rules_are_counted_until_somebody_flushes_them(network: Namespace) -> None:
    assert network.call(rules, NETDEV, "equipoise") == 3
    network.nft("flush chain netdev equipoise svc-a")
    assert network.call(rules, NETDEV, "equipoise") == 1


def test_every_change_has_a_new_generation(network: Namespace) -> None:
    before = network.call(generation)
    assert network.call(generation) == before
    network.nft("add counter netdev equipoise another")
    assert network.call(generation) != before


def test_counters(network: Namespace) -> None:
    found = network.call(counters, NETDEV, "equipoise")
    assert found == {"in-a-n1": (7, 4200), "in-a-n2": (0, 0)}


def test_marks_come_back_as_the_numbers_that_were_written(network: Namespace) -> None:
    counted = {0x45000001: 2, 0x45000002: 2}
    assert network.call(count_values, NETDEV, "equipoise", "slots-a") == (counted, counted)
    assert network.call(count_values, NETDEV, "equipoise", "flows-a") == ({}, {})


@pytest.mark.parametrize("more", ["", ", 10.1.2.3 . 4 . 10.9.0.100 . 104 : 0x45000001"], ids=["one form", "two forms"])
def test_what_was_silent_for_long_is_told_from_what_talks(network: Namespace, more: str) -> None:
    """One form is read at C speed; what stays for ever, talks."""
    left = ["50s", "1h", "2h", "10790s"]
    listed = [
        f"10.1.2.3 . {i} . 10.9.0.100 . 104 timeout 3h expires {each} : 0x45000002" for i, each in enumerate(left)
    ]
    network.nft(f"add element netdev equipoise flows-a {{ {', '.join(listed)}{more} }}")
    quiet = range(60_000, 10_000_000)
    live, talking = network.call(count_values, NETDEV, "equipoise", "flows-a", quiet=quiet)
    others = {0x45000001: 1} if more else {}
    assert live == {0x45000002: 4} | others
    assert talking == {0x45000002: 2} | others


def test_elements_of_different_form_are_counted_alike(network: Namespace) -> None:
    """With and without a timeout, and an address that holds what the header of a mark looks like."""
    fill(network, "flows-6", 300, 3, "2001:db8:{:x}:{:x}:{:x}::1 . {} . 2001:db8::100 . 104")
    network.nft(
        "add element netdev equipoise flows-6 {"
        " 2001:db8::1 . 1 . 2001:db8::100 . 104 : 0x45000001,"
        " 0c00:0200:0800:0100:4500:0009::1 . 1 . 2001:db8::100 . 104 timeout 1h : 0x45000002 }"
    )
    counted, talking = network.call(count_values, NETDEV, "equipoise", "flows-6")
    assert talking == counted
    assert counted == {0x45000001: 101, 0x45000002: 101, 0x45000003: 100}
    listed = json.loads(network.run("nft", "-j", "list", "map", "netdev", "equipoise", "flows-6"))
    assert len(next(each["map"]["elem"] for each in listed["nftables"] if "map" in each)) == 302


def test_a_large_map_is_counted_exactly_or_quickly(network: Namespace) -> None:
    """60 000 flows of five nodes, in many datagrams: 12 000 each."""
    fill(network, "flows-a", 60_000, 5)
    marks = [0x45000001 + i for i in range(5)]
    exact, _ = network.call(count_values, NETDEV, "equipoise", "flows-a", None)
    assert exact == dict.fromkeys(marks, 12_000)
    if network.call(sizes, NETDEV, "equipoise")["flows-a"] is None:
        pytest.skip("this kernel does not say how many elements a map has")
    sampled, talking = network.call(count_values, NETDEV, "equipoise", "flows-a", 20_000)
    assert talking == sampled
    assert sorted(sampled) == marks
    assert all(count == pytest.approx(12_000, rel=0.1) for count in sampled.values())  # over eleven standard deviations
    assert sum(sampled.values()) == pytest.approx(60_000, abs=5)
    assert sampled != exact, "it was read whole"


def test_elements_come_with_key_mark_and_time_left(network: Namespace) -> None:
    network.nft(
        "add element netdev equipoise flows-a {"
        " 10.1.2.3 . 50123 . 10.9.0.100 . 104 timeout 3h expires 90s : 0x45000001,"
        " 10.1.2.4 . 50123 . 10.9.0.100 . 104 timeout 1h : 0x45000002 }"
    )
    found, whole = network.call(elements, NETDEV, "equipoise", "flows-a", 1000)
    assert whole
    ends = bytes([10, 9, 0, 100]), (104).to_bytes(2, "big") + b"\0\0"
    port = (50123).to_bytes(2, "big") + b"\0\0"
    marks = {mark: (0x45000000 + mark).to_bytes(4, sys.byteorder) for mark in (1, 2)}
    keys = {mark: bytes([10, 1, 2, 2 + mark]) + port + b"".join(ends) for mark in (1, 2)}
    assert {key: mark for key, (mark, _) in found.items()} == {keys[mark]: marks[mark] for mark in (1, 2)}
    assert found[keys[1]][1] == pytest.approx(90_000, abs=20_000)
    assert found[keys[2]][1] == pytest.approx(3_600_000, abs=20_000)


def test_elements_of_different_form_are_read_alike(network: Namespace) -> None:
    """With and without a timeout: what stays for ever is none of a packet's."""
    fill(network, "flows-a", 1000, 3)
    network.nft("add element netdev equipoise flows-a { 10.200.0.1 . 1 . 10.9.0.100 . 104 : 0x45000001 }")
    found, whole = network.call(elements, NETDEV, "equipoise", "flows-a", 10_000)
    assert whole
    assert len(found) == 1000
    assert {left_ms for _, left_ms in found.values()} <= set(range(10_700_000, 10_800_001))


def test_of_a_large_map_a_part_is_read(network: Namespace) -> None:
    fill(network, "flows-a", 20_000, 3)
    found, whole = network.call(elements, NETDEV, "equipoise", "flows-a", 5000)
    assert not whole
    assert 5000 * 0.9 < len(found) < 5000 * 1.5
    found, whole = network.call(elements, NETDEV, "equipoise", "flows-a", 30_000)
    assert whole
    assert len(found) == 20_000


def test_sizes_follow_the_maps(network: Namespace) -> None:
    found = network.call(sizes, NETDEV, "equipoise")
    if found["slots-a"] is None:
        pytest.skip("this kernel does not say how many elements a map has")
    assert found == {"flows-a": 0, "flows-6": 0, "slots-a": 4, "takes-a": 2, "services4": 0}


def test_counting_a_large_map_is_cheap(network: Namespace) -> None:
    """About 0.1 s of a core for 200 000 flows; the bound is wide for a busy machine, the whole map takes 3 s."""
    if network.call(sizes, NETDEV, "equipoise")["flows-a"] is None:
        pytest.skip("this kernel does not say how many elements a map has")
    fill(network, "flows-a", 200_000, 5)

    def measured() -> float:
        started = time.thread_time()
        count_values(NETDEV, "equipoise", "flows-a")
        return time.thread_time() - started

    assert min(network.call(measured) for _ in range(3)) < 1.0


def test_without_the_right_it_is_said_which_is_missing() -> None:
    assert "CAP_NET_ADMIN" in told_to_nobody(generation)
