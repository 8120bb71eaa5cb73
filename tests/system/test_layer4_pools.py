"""Layer 4: which node a new flow goes to, and that an established one stays: balance, persistence, drain, limits."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise

import pytest

from tests.lab.lab import SOURCES
from tests.system.balancer import eventually
from tests.system.layer4_stage import DIRECT, MASQUERADED, TRANSLATED, Served, Stage, Way, in_laboratory

BOTH = pytest.mark.parametrize("way", [DIRECT, TRANSLATED], ids=str)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with in_laboratory(tmp_path_factory.mktemp("lab")) as stage:
        yield stage


def at_each_source(served: Served) -> dict[str, str]:
    return {source: served.nodes(1, source)[0] for source in SOURCES}


@BOTH
def test_weights_are_shares_of_new_connections(stage: Stage, way: Way) -> None:
    one, two = way.nodes
    served = stage.serve(way, {one: {"weight": 75}, two: {"weight": 25}})
    assert Counter(served.nodes(40)) == {one: 30, two: 10}
    served.operate("weight", one, 25)
    assert Counter(served.nodes(40)) == {one: 20, two: 20}
    turns = served.nodes(12)
    assert all(here != there for here, there in pairwise(turns)), f"one after the other: {turns}"


@BOTH
def test_a_client_keeps_its_node_by_hash(stage: Stage, way: Way) -> None:
    served = stage.serve(way, balance="source_hash")
    first = at_each_source(served)
    assert set(first.values()) == set(way.nodes)
    assert at_each_source(served) == first


def test_a_node_that_goes_moves_only_its_own_clients_by_hash(stage: Stage) -> None:
    served = stage.serve(DIRECT, ("a", "b", "c"), balance="source_hash")
    first = at_each_source(served)
    assert set(first.values()) == {"a", "b", "c"}
    served.operate("drain", "c")
    second = at_each_source(served)
    assert "c" not in second.values()
    assert {source for source in SOURCES if first[source] != second[source]} == {
        source for source in SOURCES if first[source] == "c"
    }
    served.operate("enable", "c")
    assert at_each_source(served) == first


@BOTH
def test_a_client_keeps_its_node_by_persistence(stage: Stage, way: Way) -> None:
    served = stage.serve(way, persistence={"by": "source_ip", "ttl": "5m"})
    first = at_each_source(served)
    assert Counter(first.values()) == dict.fromkeys(way.nodes, len(SOURCES) // 2)
    assert at_each_source(served) == first
    gone, other = way.nodes
    served.operate("drain", gone)
    assert set(at_each_source(served).values()) == {other}, "a drained node loses its clients at their next connection"
    served.operate("enable", gone)
    assert set(at_each_source(served).values()) == {other}, "and they stay where they are then"


@BOTH
def test_a_mask_keeps_a_network_together(stage: Stage, way: Way) -> None:
    served = stage.serve(way, persistence={"by": "source_ip", "ttl": "5m", "mask": 24})
    assert len(set(at_each_source(served).values())) == 1


def test_persistence_ends_with_its_time(stage: Stage) -> None:
    served = stage.serve(DIRECT, persistence={"by": "source_ip", "ttl": "5s"})
    (first,) = set(served.nodes(5))
    for _ in range(5):
        time.sleep(5.5)  # it says how long a client has to be away
        if served.nodes(1) != [first]:
            return
    raise AssertionError("the client is still at its node")


def test_persistence_of_ipv6_clients(stage: Stage) -> None:
    served = stage.serve(DIRECT, version=6, persistence={"by": "source_ip", "ttl": "5m"})
    assert len(set(served.nodes(6))) == 1


@BOTH
def test_first_up_takes_the_first_that_is_up(stage: Stage, way: Way) -> None:
    one, two = way.nodes
    served = stage.serve(way, balance="first_up")
    assert set(served.nodes(6)) == {one}
    served.operate("drain", one)
    assert set(served.nodes(6)) == {two}
    served.operate("enable", one)
    assert set(served.nodes(6)) == {one}


@BOTH
def test_a_backup_waits_for_the_others_to_be_gone(stage: Stage, way: Way) -> None:
    one, two = way.nodes
    served = stage.serve(way, {one: {}, two: {"backup": True}})
    assert set(served.nodes(6)) == {one}
    served.operate("drain", one)
    assert set(served.nodes(6)) == {two}
    served.operate("enable", one)
    assert set(served.nodes(6)) == {one}


@BOTH
def test_least_connections_fills_the_node_that_has_fewer(stage: Stage, way: Way) -> None:
    one, two = way.nodes
    served = stage.serve(way, balance="least_connections", slow_start="0s")
    served.operate("drain", two)
    with ExitStack() as stack:
        calls = [stack.enter_context(served.call()) for _ in range(6)]
        assert {call.node() for call in calls} == {one}
        served.operate("enable", two)
        served.wait_connections(**{one: 6, two: 0})
        time.sleep(4)  # the controller looks again, twice a second; this machine may be busy
        for _ in range(4):
            call = stack.enter_context(served.call())
            assert call.node() == two
            calls.append(call)
            time.sleep(0.3)
        assert [call.node() for call in calls] == [one] * 6 + [two] * 4, "nobody is moved"


@BOTH
def test_a_drained_node_keeps_its_flows_to_the_end_and_status_counts_them_down(stage: Stage, way: Way) -> None:
    one, two = way.nodes
    served = stage.serve(way)
    with ExitStack() as stack:
        calls = [stack.enter_context(served.call()) for _ in range(6)]
        mine = [call for call in calls if call.node() == one]
        assert len(mine) == 3
        served.wait_connections(**{one: 3, two: 3})
        download = mine[0].ask("/slow/big")
        served.operate("drain", one)
        assert set(served.nodes(10)) == {two}
        assert len(download.read(1_000_000)) == 1_000_000, "the download goes on"
        assert [call.node() for call in mine[1:]] == [one, one], "and so do the others"
        assert served.status()["nodes"][one]["state"] == "drain"
        served.wait_connections(**{one: 3})
        for left in (2, 1, 0):
            mine.pop().close()
            served.wait_connections(60, **{one: left})


@BOTH
def test_a_disabled_node_is_cut(stage: Stage, way: Way) -> None:
    one, two = way.nodes
    served = stage.serve(way)
    with served.transfer_from(one) as hit, served.transfer_from(two) as spared:
        hit.goes_on()
        served.operate("disable", one)
        hit.wait_failure()
        spared.goes_on(10)
        assert set(served.nodes(6)) == {two}
    served.operate("enable", one)
    served.wait_nodes(*way.nodes)


@BOTH
def test_flows_that_nobody_knows_are_reset(stage: Stage, way: Way) -> None:
    served = stage.serve(way)
    with served.call() as call:
        call.node()
        stage.apply({})  # the service goes, and with it what was known
        stage.apply({served.name: served.document})
        for name in way.nodes:
            served.wait_state(name, "up")
        if way is DIRECT:
            with pytest.raises(ConnectionError):
                call.node()
    assert set(served.nodes(4)) == set(way.nodes)


@pytest.mark.parametrize("way", [TRANSLATED, MASQUERADED], ids=str)
def test_a_full_node_gets_no_more_connections(stage: Stage, way: Way) -> None:
    one, two = way.nodes
    served = stage.serve(way, {one: {"max_connections": 2}, two: {}})
    with ExitStack() as stack:
        calls = [stack.enter_context(served.call()) for _ in range(8)]
        assert Counter(call.node() for call in calls)[one] <= 2


@BOTH
def test_status_counts_connections_and_bytes(stage: Stage, way: Way) -> None:
    (one, *_) = way.nodes
    served = stage.serve(way, [one])
    with served.call() as call:
        call.get("/small")
        served.wait_connections(**{one: 1})
        assert served.status()["connections"] == 1
        eventually(lambda: served.status()["nodes"][one]["bytes_in"] > 0, what="bytes of requests")
    served.wait_connections(60, **{one: 0})


@BOTH
def test_no_node_means_a_reset_and_no_wait(stage: Stage, way: Way) -> None:
    served = stage.serve(way)
    for name in way.nodes:
        served.operate("drain", name)
    with pytest.raises(ConnectionError):
        served.call()
    assert served.status()["state"] == "down"
