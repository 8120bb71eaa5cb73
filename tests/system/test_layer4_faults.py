"""Layer 4 when things fail: nodes, cables, network cards, the supervisor, other programs.  No healthy flow is cut."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.lab.lab import SOURCES, VIPS
from tests.lab.machines import STORE_PORT, dicom_command
from tests.system.balancer import eventually
from tests.system.files import named
from tests.system.layer4_stage import (
    DIRECT,
    IMPATIENT_CHECK,
    QUICK_CHECK,
    TRANSLATED,
    Served,
    Stage,
    Transfer,
    Way,
    in_laboratory,
)

pytestmark = pytest.mark.timeout(240)  # waits are long where something fails, and a supervisor starts in some tests
BOTH = pytest.mark.parametrize("way", [DIRECT, TRANSLATED], ids=str)
FOREIGN = "table inet foreign { chain input { type filter hook input priority 0; tcp dport 9 counter drop; }; }"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with in_laboratory(tmp_path_factory.mktemp("lab")) as stage:
        yield stage


@contextmanager
def one_from_each(served: Served, way: Way) -> Iterator[dict[str, Transfer]]:
    """Give a transfer from each node that goes on meanwhile."""
    with ExitStack() as stack:
        found = {node: stack.enter_context(served.transfer_from(node)) for node in way.nodes}
        for transfer in found.values():
            transfer.goes_on()
        yield found


def all_go_on(transfers: dict[str, Transfer]) -> None:
    for transfer in transfers.values():
        transfer.goes_on(5)


def tables(stage: Stage) -> set[str]:
    said = stage.lab.balancer.must("nft", "list", "tables")
    return {line.removeprefix("table ") for line in said.splitlines()}


def ours(stage: Stage) -> set[str]:
    return {table for table in tables(stage) if " equipoise" in table}


@BOTH
def test_a_node_whose_servers_die_gets_nothing_and_the_others_go_on(stage: Stage, way: Way) -> None:
    one, two = way.nodes
    served = stage.serve(way)
    with one_from_each(served, way) as transfers:
        stage.node(one).kill()
        try:
            transfers[one].wait_failure()
            served.wait_state(one, "down")
            served.wait_nodes(two)
            transfers[two].goes_on(10)
        finally:
            stage.node(one).start()
        served.wait_state(one, "up")
        served.wait_nodes(one, two)
        transfers[two].goes_on()


@BOTH
def test_flows_of_a_node_without_its_cable_are_cut_and_no_others(stage: Stage, way: Way) -> None:
    one, two = way.nodes
    served = stage.serve(way, health=IMPATIENT_CHECK)
    with one_from_each(served, way) as transfers, served.transfer_from(one) as kept:
        stage.node(one).host.unplug()
        began_s = time.monotonic()
        try:
            served.wait_state(one, "down")
            transfers[one].wait_failure(45)  # the client asks again in growing intervals, and is answered by a reset
            kept.wait_failure(45)
            assert time.monotonic() - began_s < 50, "not the client's own patience of a minute: the balancer said so"
            transfers[two].goes_on(10)
        finally:
            stage.node(one).host.plug()
        served.wait_state(one, "up")
        served.wait_nodes(one, two)


def test_flows_are_kept_where_the_site_says_so(stage: Stage) -> None:
    served = stage.serve(DIRECT, on_down="keep", health=IMPATIENT_CHECK)
    with served.transfer_from("a") as transfer:
        transfer.goes_on()
        stage.node("a").host.unplug()
        try:
            served.wait_state("a", "down")
            time.sleep(1)
        finally:
            stage.node("a").host.plug()
        transfer.goes_on()


@BOTH
def test_a_check_that_connects_and_fails_cuts_nothing(stage: Stage, way: Way) -> None:
    one, two = way.nodes
    served = stage.serve(way, protocol="http")
    with one_from_each(served, way) as transfers:
        # nginx has no such page: both nodes fail, and still answer what is open.
        served.change(protocol="http", health={**QUICK_CHECK, "check": "http", "path": "/no-such-page"})
        for node in (one, two):
            served.wait_state(node, "down")
        all_go_on(transfers)


@BOTH
def test_the_supervisor_dies_and_the_next_one_adopts_its_flows(stage: Stage, way: Way) -> None:
    one, two = way.nodes
    served = stage.serve(way)
    with one_from_each(served, way) as transfers:
        served.wait_connections(**{one: 1, two: 1})
        stage.balancer.kill_supervisor()
        all_go_on(transfers)
        assert set(served.nodes(6)) == {one, two}, "new flows are carried without it"
        stage.balancer.start()
        for node in (one, two):
            served.wait_state(node, "up")
        assert stage.balancer.events("layer4.started")[-1]["adopted"] is True
        served.wait_connections(**{one: 1, two: 1})
        all_go_on(transfers)
        served.operate("drain", one)
        all_go_on(transfers)
        assert set(served.nodes(6)) == {two}


@BOTH
def test_the_supervisor_is_replaced_for_an_upgrade(stage: Stage, way: Way) -> None:
    served = stage.serve(way)
    with one_from_each(served, way) as transfers:
        assert stage.balancer.process is not None
        stage.balancer.process.send_signal(signal.SIGUSR2)
        stage.balancer.process.wait(20)
        all_go_on(transfers)
        stage.balancer.start()
        all_go_on(transfers)


@BOTH
def test_reloads_cut_nothing(stage: Stage, way: Way) -> None:
    one, two = way.nodes
    served = stage.serve(way)
    with one_from_each(served, way) as transfers:
        for number in range(10):
            nodes = {**served.document["nodes"]}
            nodes[one] = {**nodes[one], "weight": 101 + number}
            served.change(nodes=nodes)
            before = stage.balancer.status()["plan"]
            text = json.loads(stage.balancer.site.read_text())
            text["services"][served.name]["nodes"][two]["weight"] = 101 + number
            draft = stage.balancer.site.with_suffix(".new")
            draft.write_text(json.dumps(text))
            draft.replace(stage.balancer.site)
            assert stage.balancer.process is not None
            stage.balancer.process.send_signal(signal.SIGHUP)
            wait_plan(stage, other_than=before)
            for transfer in transfers.values():
                transfer.goes_on(1)
        all_go_on(transfers)


def test_another_service_comes_and_goes_and_this_one_does_not_notice(stage: Stage) -> None:
    served = stage.serve(DIRECT)
    other = {**served.document, **TRANSLATED.settings, "listen": f"{served.address}:8099"}
    other["nodes"] = {"x": {"address": f"{stage.node('x').address()}:8000"}}
    with one_from_each(served, DIRECT) as transfers:
        for _ in range(3):
            stage.apply({served.name: served.document, "other": other})
            all_go_on(transfers)
            assert served.far.nodes(served.address, 8099, 1) == ["x"]
            stage.apply({served.name: served.document})
            all_go_on(transfers)


def test_a_node_leaves_the_site_and_the_others_do_not_notice(stage: Stage) -> None:
    served = stage.serve(DIRECT, ("a", "b", "c"))
    with one_from_each(served, DIRECT) as transfers:
        left = {name: served.document["nodes"][name] for name in ("a", "b")}
        served.change(nodes=left)
        all_go_on(transfers)
        assert set(served.nodes(8)) == {"a", "b"}


@BOTH
def test_a_new_network_card_is_followed(stage: Stage, way: Way) -> None:
    one, _ = way.nodes
    served, host = stage.serve(way), stage.node(one).host
    before = host.mac()
    with one_from_each(served, way) as transfers:
        try:
            host.set_mac("02:77:00:00:00:77")
            for transfer in transfers.values():
                transfer.goes_on(10)
            served.wait_nodes(*way.nodes)
        finally:
            host.set_mac(before)
        all_go_on(transfers)


def test_a_new_network_card_is_told_of(stage: Stage) -> None:
    stage.serve(DIRECT)
    host, cards = stage.node("a").host, ["02:77:00:00:00:01", "02:77:00:00:00:02", "02:77:00:00:00:03"]
    before = host.mac()
    try:
        for mac in cards:  # of the first one nothing is told when it comes before the balancer has looked
            host.set_mac(mac)
            if moved := told_of(stage, mac, 15):
                break
        assert moved, "three changes, and no event"
        assert moved[-1]["address"] == host.address
    finally:
        host.set_mac(before)


@BOTH
def test_lost_syn_acks_cost_time_and_no_connection(stage: Stage, way: Way) -> None:
    served = stage.serve(way)
    with ExitStack() as stack:
        for name in way.nodes:
            stage.node(name).lose_syn_acks()
            stack.callback(stage.node(name).lose_nothing)
        # Together, since each loss costs its client a second: sockets that connect while the others wait.
        calls = served.far.call_together(served.address, served.port, SOURCES[:24])
        for call in calls:
            stack.enter_context(call)
        assert {call.node() for call in calls} == set(way.nodes)
        assert all(call.get("/small") == stage.page("small") for call in calls)


@BOTH
def test_rules_that_another_program_wiped_come_back(stage: Stage, way: Way) -> None:
    served = stage.serve(way)
    assert ours(stage)
    before = len(stage.balancer.events("layer4.restored"))
    stage.lab.balancer.must("nft", "flush", "ruleset")
    eventually(lambda: ours(stage), 30, "the rules")
    eventually(lambda: len(stage.balancer.events("layer4.restored")) > before, 30, "the event")
    assert set(served.nodes(4)) == set(way.nodes)


def test_rules_of_another_program_are_left_alone(stage: Stage) -> None:
    stage.lab.balancer.must("nft", "-f", "-", given=FOREIGN)
    before = stage.lab.balancer.must("nft", "list", "table", "inet", "foreign")
    try:
        served = stage.serve(DIRECT)
        assert set(served.nodes(4)) == {"a", "b"}
        stop(stage)
        assert tables(stage) == {"inet foreign"}, "on a stop ours go"
        stage.balancer.start()
        eventually(lambda: ours(stage), what="our rules")
        assert stage.lab.balancer.must("nft", "list", "table", "inet", "foreign") == before
    finally:
        stage.lab.balancer.must("nft", "delete", "table", "inet", "foreign")


def test_managed_addresses_come_and_go(stage: Stage) -> None:
    managed: dict[str, Any] = {"network": {"manage_addresses": True, "interface": "eth0"}}
    served = stage.serve(DIRECT, vip=2)
    stage.apply({served.name: served.document}, **managed)

    def held() -> bool:
        return f"{VIPS[2]}/" in stage.lab.balancer.ip("-brief", "address", "show", "dev", "eth0")

    eventually(held, what="the address")
    served.wait_nodes("a", "b")
    stop(stage)
    assert not held()
    stage.balancer.start()
    eventually(held, what="the address")
    stage.apply({})
    eventually(lambda: not held(), what="the end of the address")


@BOTH
def test_studies_are_stored_while_the_supervisor_dies(stage: Stage, way: Way) -> None:
    for name in way.nodes:
        stage.node(name).serve_store()
    served = stage.serve(way, port=STORE_PORT, protocol="dicom")
    (image,) = named("CT_small.dcm")
    command = dicom_command("storescu", served.address, STORE_PORT, "--repeat", "1000", "--", str(image.path))
    sending = [start(stage, command) for _ in range(2)]
    try:
        eventually(lambda: sum(served.connections().values()) == 2, what="two associations")
        stage.balancer.kill_supervisor()
        stage.balancer.start()
        assert [process.wait(100) for process in sending] == [0, 0]
    finally:
        for process in sending:
            process.kill()


def test_a_client_on_the_segment_never_learns_a_node_as_the_vip(stage: Stage) -> None:
    served = stage.serve(DIRECT)
    served.call(stage.lab.near).close()
    for host in (stage.lab.near.host, stage.lab.router):
        said = host.must(
            "arping", "-b", "-c", "2", "-w", "5", "-I", "eth1" if host is stage.lab.router else "eth0", VIPS[0]
        )
        assert {word.strip("[]") for word in said.lower().split() if word.count(":") == 5} <= {
            stage.lab.balancer.mac()
        }, said


def told_of(stage: Stage, mac: str, within_s: float) -> list[dict[str, Any]]:
    """Return the events of a node that has this card now, as soon as there are any; the balancer looks every 5 s."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        if moved := [event for event in stage.balancer.events("neighbour.moved") if event["after"] == mac]:
            return moved
        time.sleep(0.2)
    return []


def start(stage: Stage, command: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "TCP_NODELAY": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        [*stage.lab.far.host.prefix, *command], env=environment, stdin=quiet, stdout=quiet, stderr=quiet
    )


def wait_plan(stage: Stage, other_than: str) -> None:
    eventually(lambda: stage.balancer.status()["plan"] != other_than, what="the new plan")


def stop(stage: Stage) -> None:
    """Stop the balancer as systemd does."""
    process = stage.balancer.process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    process.wait(30)
