"""How this machine reaches an address: asked of the real kernel, in network namespaces where there may be some."""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping

import pytest

from equipoise.app import inputs
from equipoise.app.inputs import Inputs, look_again, read
from equipoise.app.ways import find_ways
from equipoise.app.wiring import catalogue
from equipoise.plan.inputs import HostFacts, Way
from tests.system.netns import Host, Network, missing

ASK = """
import json, sys
from equipoise.app.ways import find_ways
print(json.dumps({address: way and [way.interface, way.router] for address, way in find_ways(sys.argv[1:]).items()}))
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    if reason := missing():
        pytest.skip(reason)
    with Network() as network:
        host = network.host("balancer", "10.77.0.2")
        for command in (
            "link add side type veth peer name far",
            "link set side up",
            "link set far up",
            "address add 10.78.0.2/24 dev side",
            "address add fd77::2/64 dev eth0 nodad",
            "address add 10.77.0.99/32 dev lo",
            "route add default via 10.77.0.1",
            "route add 10.90.0.0/16 via 10.78.0.9",
            "route add unreachable 10.91.0.0/16",
            "route add blackhole 10.92.0.0/16",
            "route add 10.93.0.0/16 via inet6 fd77::9 dev eth0",
        ):
            done = host.run("ip", *command.split())
            assert done.returncode == 0, f"{command}: {done.stderr}"
        yield host


def asked(machine: Host, *addresses: str) -> Mapping[str, list[str | None] | None]:
    done = machine.run(sys.executable, "-c", ASK, *addresses)
    assert done.returncode == 0, done.stderr
    found: Mapping[str, list[str | None] | None] = json.loads(done.stdout)
    return found


@pytest.mark.root("makes network namespaces")
def test_ways_of_a_machine_with_two_interfaces(machine: Host) -> None:
    expected: dict[str, list[str | None] | None] = {
        "10.77.0.11": ["eth0", None],  # on the segment
        "10.78.0.11": ["side", None],
        "10.77.0.2": ["eth0", None],  # its own
        "10.78.0.2": ["side", None],
        "fd77::2": ["eth0", None],
        "fd77::11": ["eth0", None],
        "192.0.2.1": ["eth0", "10.77.0.1"],  # by the default router
        "10.90.1.1": ["side", "10.78.0.9"],
        "10.93.0.1": ["eth0", "fd77::9"],
        "10.91.0.1": None,
        "10.92.0.1": None,
        "10.77.0.255": None,  # a broadcast
        "2001:db8::1": None,  # no route
        "127.0.0.1": ["lo", None],
        "127.0.0.2": ["lo", None],
        "10.77.0.99": None,  # on the loopback interface: clients may come by any
    }
    assert asked(machine, *expected) == expected


@pytest.mark.root("makes network namespaces")
def test_an_address_that_appears_keeps_its_interface(machine: Host) -> None:
    before = asked(machine, "10.77.0.100", "10.78.0.100", "fd77::100")
    for address, interface in (("10.77.0.100/32", "eth0"), ("10.78.0.100/24", "side"), ("fd77::100/128", "eth0")):
        assert machine.run("ip", "address", "add", address, "dev", interface).returncode == 0
    assert asked(machine, *before) == before == {
        "10.77.0.100": ["eth0", None],
        "10.78.0.100": ["side", None],
        "fd77::100": ["eth0", None],
    }  # fmt: skip


@pytest.mark.root("makes network namespaces")
def test_an_interface_that_is_down_is_no_way(machine: Host) -> None:
    assert machine.run("ip", "link", "set", "side", "down").returncode == 0
    try:
        assert asked(machine, "10.90.1.1")["10.90.1.1"] == ["eth0", "10.77.0.1"], "only the default router is left"
    finally:
        assert machine.run("ip", "link", "set", "side", "up").returncode == 0


def test_loopback_and_what_is_no_address() -> None:
    assert find_ways(["127.0.0.1", "127.8.8.8", "nonsense", "0.0.0.0", "127.0.0.1"]) == {
        "127.0.0.1": Way("lo"),
        "127.8.8.8": Way("lo"),
        "nonsense": None,
        "0.0.0.0": None,
    }
    assert find_ways([]) == {}


SITE = """\
site: here
services:
  pacs:
    protocol: dicom
    mode: {mode}
    listen: 10.77.9.5
    nodes: {{a: {{address: 10.77.9.6}}}}
"""


def taken(mode: str, known: HostFacts | None = None) -> Inputs:
    return asyncio.run(read(SITE.format(mode=mode), "site.yaml", catalogue(), known or HostFacts(), time.time()))


def again(before: Inputs) -> Inputs:
    return asyncio.run(look_again(before, time.time()))[0]


def test_a_site_with_direct_routing_knows_its_ways() -> None:
    found = taken("l4_dr")
    assert found.facts.ways == find_ways(["10.77.9.5", "10.77.9.6"])
    (service,) = found.compiled().services
    way = found.facts.ways["10.77.9.6"]
    assert service.nodes[0].router == (way.router if way else None)
    assert again(found) == found


@pytest.mark.parametrize("mode", ["l4_nat", "l7_snat"])
def test_nothing_is_asked_where_nothing_needs_it(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "find_ways", None)  # it would fail to be called
    assert taken(mode).facts.ways == {}


def test_a_way_that_has_changed_is_followed() -> None:
    now = taken("l4_dr")
    before = Inputs(
        now.document, HostFacts(ways={"10.77.9.5": Way("eth7"), "10.77.9.6": Way("eth7", "192.0.2.1")}), now.text
    )
    assert again(before) == now
    assert before.compiled().digest != now.compiled().digest


def test_a_way_that_vanishes_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before, threads = taken("l4_dr"), []

    def gone(addresses: frozenset[str]) -> dict[str, Way | None]:
        threads.append(threading.current_thread())
        return dict.fromkeys(addresses)

    monkeypatch.setattr(inputs, "find_ways", gone)
    assert again(before) == before
    assert taken("l4_dr", before.facts).facts.ways == before.facts.ways, "in another document too"
    assert taken("l4_dr").facts.ways == {"10.77.9.5": None, "10.77.9.6": None}
    assert threading.main_thread() not in threads, "netlink blocks"
