import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from equipoise.engines.layer4.conntrack import count_by_mark, cut
from tests.unit.engines.layer4.namespace import Namespace, missing, namespace

WHY_NOT = missing("conntrack")
pytestmark = [
    pytest.mark.root("network namespaces and ctnetlink"),
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]

OURS, MASK = 0x45000000, 0xFF000000
STATES = ["SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE"]


@pytest.fixture
def network() -> Iterator[Namespace]:
    with namespace() as made:
        yield made


def entry(port: int, state: str, mark: int, source: str = "10.0.0.1", target: str = "10.9.0.100") -> str:
    return f"-I -p tcp -s {source} -d {target} --sport {port} --dport 104 --state {state} -t 3000 -m {mark}"


def load(network: Namespace, *entries: str) -> None:
    network.run("conntrack", "--load-file", "-", stdin="\n".join(entries) + "\n")


def marks(network: Namespace) -> list[str]:
    lines = network.run("conntrack", "-L").splitlines()
    return sorted(word for line in lines for word in line.split() if word.startswith("mark="))


def test_only_what_is_live_and_ours_counts(network: Namespace) -> None:
    load(
        network,
        *(entry(1000 + i, state, 0x45000001) for i, state in enumerate(STATES)),
        entry(2000, "ESTABLISHED", 0x45000002),
        entry(2001, "ESTABLISHED", 0x45000002, "2001:db8::1", "2001:db8::100"),
        entry(2002, "ESTABLISHED", 0x46000001),
        entry(2003, "ESTABLISHED", 0),
        "-I -p udp -s 10.0.0.1 -d 10.9.0.100 --sport 53 --dport 53 -t 300 -m 0x45000002",
    )
    assert network.call(count_by_mark, OURS, MASK) == {0x45000001: 5, 0x45000002: 2}
    assert network.call(count_by_mark, 0x45000001, 0xFFFFFFFF) == {0x45000001: 5}
    assert network.call(count_by_mark, 0x47000000, MASK) == {}


def test_cutting_a_mark_leaves_every_other_entry(network: Namespace) -> None:
    load(network, *(entry(1000 + i, "ESTABLISHED", mark) for i, mark in enumerate([0x45000001] * 3 + [0x45000002, 0])))
    network.call(cut, 0x45000001)
    assert marks(network) == ["mark=0", f"mark={0x45000002}"]


def test_cutting_where_there_is_nothing_to_cut_is_no_error(network: Namespace) -> None:
    network.call(cut, 0x45000001)
    load(network, entry(1000, "ESTABLISHED", 0x45000002))
    network.call(cut, 0x45000001)
    assert marks(network) == [f"mark={0x45000002}"]


def test_what_is_over_is_cut_too(network: Namespace) -> None:
    load(network, *(entry(1000 + i, state, 0x45000001) for i, state in enumerate(STATES)))
    network.call(cut, 0x45000001)
    assert marks(network) == []


@pytest.mark.parametrize("mark", [0, -1, 1 << 32])
def test_a_mark_that_is_everybodys_is_not_cut(mark: int) -> None:
    with pytest.raises(ValueError, match="is not from 1"):
        cut(mark)


def test_fifty_thousand_entries_are_counted_cheaply(network: Namespace) -> None:
    """About 0.2 s of a core; the bound is wide for a busy machine."""
    most = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
    if most < 60_000:
        pytest.skip(f"conntrack holds only {most} entries here")
    sources = [f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}" for i in range(50_000)]
    load(network, *(entry(1024 + i, STATES[i % 8], 0x45000001 + i % 2, sources[i]) for i in range(50_000)))

    def measured() -> tuple[float, int]:
        started = time.thread_time()
        counted = sum(count_by_mark(OURS, MASK).values())
        return time.thread_time() - started, counted

    took_s, counted = network.call(measured)
    assert counted == 50_000 * 5 // 8
    assert took_s < 2.0
