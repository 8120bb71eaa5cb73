"""The laboratory of the pair itself, without a balancer: what is lost there is lost, and the prober sees it."""

import time
from collections.abc import Iterator

import pytest

from tests.lab.lab import FLOATING, Lab, Segment, missing
from tests.lab.machines import write_pages
from tests.lab.prober import Prober
from tests.system.balancer import eventually
from tests.system.netns import Host

VIP, PORT = Segment.SERVERS.v4(120), 8000


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if reason := missing():
        pytest.skip(f"there is no laboratory here: {reason}")
    folder = tmp_path_factory.mktemp("lab")
    write_pages(folder / "www")
    with Lab(folder, nodes=("a", "b"), inner=("x",), pair=True) as lab:
        for node in lab.all_nodes.values():
            node.serve_web(folder / "www")
        yield lab


def hears(host: Host, asked: str, within_s: int = 5) -> bool:
    """Say whether somebody answers a host that asks who has an address; it asks each second."""
    return host.run("arping", "-c", "1", "-w", str(within_s), "-I", "eth0", asked).returncode == 0


def test_both_machines_reach_every_segment_and_nobody_has_the_floating_gateway(lab: Lab) -> None:
    for machine in (lab.balancer, lab.standby):
        for address in (lab.nodes["a"].host.address, lab.inner["x"].host.address, lab.far.host.address):
            machine.must("ip", "route", "get", address)
        machine.must("curl", "-sf", f"http://{lab.inner['x'].host.address}:{PORT}/who")
        assert FLOATING[0] not in machine.ip("address", "show")
    assert f"default via {FLOATING[0]}" in lab.inner["x"].host.ip("route")


def test_the_prober_sees_an_address_that_was_gone_for_a_while(lab: Lab) -> None:
    one, two = lab.nodes["a"].host, lab.nodes["b"].host
    one.add_address(f"{VIP}/32")
    with Prober(lab.far.host, VIP, PORT) as prober:
        time.sleep(0.3)
        one.ip("address", "delete", f"{VIP}/32", "dev", "eth0")
        time.sleep(1)
        lab.router.run("ip", "neighbour", "flush", "to", VIP)
        two.add_address(f"{VIP}/32")
        time.sleep(1.5)
    seen = prober.seen
    assert seen.longest_gap() >= 0.9, seen
    assert seen.nodes() == {"a", "b"}
    assert seen.nodes(max(one.began_s for one in seen.attempts) - 0.2) == {"b"}
    two.ip("address", "delete", f"{VIP}/32", "dev", "eth0")


def test_the_prober_counts_what_is_refused(lab: Lab) -> None:
    one = lab.nodes["a"]
    with Prober(lab.far.host, one.host.address, PORT) as prober:
        one.kill()
        time.sleep(0.3)
        one.start()
        time.sleep(0.3)
    assert prober.seen.failures().get("refused", 0) > 0, prober.seen


def test_what_the_switch_loses_is_lost_one_way_alone(lab: Lab) -> None:
    one, two = lab.balancer, lab.standby

    assert hears(one, two.address)
    lab.lose(f"{one.sent()} {two.heard()}")
    assert not hears(one, two.address, 1)
    assert hears(one, lab.nodes["a"].host.address), "others hear it"
    lab.lose(two.sent())
    assert not hears(one, two.address, 1)
    lab.lose()
    assert hears(one, two.address)


def test_a_machine_without_power_answers_nobody_and_runs_nothing(lab: Lab) -> None:
    host = lab.standby
    process = host.start("sh", "-c", "echo ready; sleep 600")
    host.lose_power()
    process.communicate(timeout=10)
    assert process.returncode == -9
    assert host.pids() == []
    assert not hears(lab.balancer, host.address, 1)
    for device in host.devices:
        host.plug(device)
    eventually(lambda: hears(lab.balancer, host.address), what="an answer")
