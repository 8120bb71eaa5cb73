"""Elements of real maps, changed by netlink: all or none, and beside what packets did meanwhile."""

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv6Address

import pytest

from equipoise.base.errors import EngineError
from equipoise.engines.layer4.artifact import FAMILIES
from equipoise.engines.layer4.kernel_elements import MOST_CHANGES, change
from equipoise.engines.layer4.kernel_tables import elements, generation
from equipoise.engines.layer4.ledger import Change
from tests.unit.engines.layer4.namespace import Namespace, missing, namespace

WHY_NOT = missing("nft")
pytestmark = [
    pytest.mark.root("network namespaces and nf_tables"),
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]
INET = FAMILIES["inet"]
TABLE = """
table inet equipoise
add map inet equipoise clients { typeof ip6 saddr : meta mark; size 65536; flags dynamic,timeout; }
add map inet equipoise few { typeof ip6 saddr : meta mark; size 4; flags dynamic,timeout; }
"""
A, B = (mark.to_bytes(4, sys.byteorder) for mark in (0x45000001, 0x45000002))


def key(number: int) -> bytes:
    return IPv6Address((0xFD00 << 112) + number).packed


def added(numbers: Sequence[int], mark: bytes, left_s: float = 60.0) -> list[Change]:
    return [Change(key(number), None, mark, left_s) for number in numbers]


@pytest.fixture
def network() -> Iterator[Namespace]:
    with namespace() as made:
        made.nft(TABLE)
        yield made


def held(network: Namespace, name: str = "clients") -> dict[bytes, bytes]:
    seen, whole = network.call(elements, INET, "equipoise", name, 1 << 20)
    assert whole
    return {key: mark for key, (mark, _) in seen.items()}


def test_as_many_as_fit_are_added_replaced_and_deleted_in_one_transaction_each(network: Namespace) -> None:
    numbers = range(MOST_CHANGES)
    for changes, after in (
        (added(numbers, A), A),
        ([Change(key(number), A, B, 30.0) for number in numbers], B),
        ([Change(key(number), B, None, 0.0) for number in numbers], None),
    ):
        before = network.call(generation)
        assert network.call(change, INET, "equipoise", "clients", changes)
        assert held(network) == ({key(number): after for number in numbers} if after is not None else {})
        assert network.call(generation) == before + 1


def test_an_element_stays_for_the_time_that_is_said(network: Namespace) -> None:
    assert network.call(change, INET, "equipoise", "clients", [*added([1], A, 1800.0), *added([2], A, 0.0)])
    seen, _ = network.call(elements, INET, "equipoise", "clients", 10)
    assert seen[key(1)][1] == pytest.approx(1_800_000, abs=20_000)
    time.sleep(0.1)
    assert held(network) == {key(1): A}, "what lasts no time lasts a moment"


@pytest.mark.parametrize("name", ["clients", "few"])
def test_where_a_packet_was_faster_or_there_is_no_room_nothing_is_changed(network: Namespace, name: str) -> None:
    assert network.call(change, INET, "equipoise", name, added([1], A))
    lost = [*added([2, 3], B), *(added([1], B) if name == "clients" else added(range(4, 9), B))]
    assert not network.call(change, INET, "equipoise", name, lost)
    assert held(network, name) == {key(1): A}


def test_a_map_that_is_gone_is_an_error_in_words(network: Namespace) -> None:
    with pytest.raises(EngineError, match=r"cannot change nf_tables' map 'gone' in table 'equipoise': No such file"):
        network.call(change, INET, "equipoise", "gone", added([1], A))


def worked_s() -> float:
    """Return the time of a processor that this process took, and those that it waited for."""
    taken = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in taken)


def test_ten_thousand_take_less_work_than_by_the_program_nft(network: Namespace) -> None:
    """To write what nft reads takes as long again, and is left out here."""
    numbers = range(10_000)
    listed = ", ".join(f"{IPv6Address(key(number))} timeout 60s : 0x45000001" for number in numbers)
    parts = [added(numbers[start : start + MOST_CHANGES], A) for start in range(0, len(numbers), MOST_CHANGES)]

    def add_all() -> None:
        assert all(change(INET, "equipoise", "clients", part) for part in parts)

    def took_s(add: Callable[[], None]) -> float:
        network.nft("flush map inet equipoise clients")
        began_s = worked_s()
        add()
        ended_s = worked_s()
        assert len(held(network)) == len(numbers)
        return ended_s - began_s

    text = f"add element inet equipoise clients {{ {listed} }}"
    nft_s, netlink_s = (
        min(took_s(add) for _ in range(3)) for add in (lambda: network.nft(text), lambda: network.call(add_all))
    )
    print(f"nft {nft_s:.3f} s, netlink {netlink_s:.3f} s: {nft_s / netlink_s:.1f} times")
    assert nft_s > 1.5 * netlink_s, "three times, on an idle machine"
