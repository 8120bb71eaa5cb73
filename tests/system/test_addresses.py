"""The engine of addresses and its questions, on segments of real hosts: what neighbours hear, believe and answer."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from equipoise.base.errors import EquipoiseError
from tests.system import netns
from tests.system.addressing import Engine
from tests.system.balancer import eventually
from tests.system.netns import Host, Network

without_network = netns.missing()
pytestmark = [
    pytest.mark.root("makes network namespaces"),
    pytest.mark.skipif(without_network is not None, reason=without_network or ""),
]

VIP, VIP6 = "10.0.0.100", "fd00::100"
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Segment:
    """A balancer and two neighbours, and engines on the balancer."""

    def __init__(self, network: Network, directory: Path) -> None:
        self.network, self.directory = network, directory
        self.balancer, self.one, self.two = (
            network.host(name, f"10.0.0.{number}") for number, name in enumerate(("lb", "one", "two"), 1)
        )
        for number, host in enumerate((self.balancer, self.one, self.two), 1):
            give(host, f"fd00::{number}/64")
        self._engines: list[Engine] = []

    def engine(self) -> Engine:
        self._engines.append(Engine(self.balancer, self.directory))
        return self._engines[-1]

    def end(self) -> None:
        for engine in self._engines:
            engine.kill()


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Network() as network:
        segment = Segment(network, tmp_path)
        try:
            yield segment
        finally:
            segment.end()


def give(host: Host, address: str, device: str = "eth0") -> None:
    done = host.run("ip", "address", "add", address, "dev", device, *(["nodad"] if ":" in address else []))
    assert done.returncode == 0, done.stderr


def mac(host: Host) -> str:
    found = MAC.search(host.run("ip", "-o", "link", "show", "eth0").stdout)
    assert found
    return found[0]


def addresses(host: Host) -> set[str]:
    """Return its addresses with their lengths, without those that IPv6 makes up."""
    shown = json.loads(host.run("ip", "-json", "address", "show", "eth0").stdout)[0]["addr_info"]
    return {f"{each['local']}/{each['prefixlen']}" for each in shown if each["scope"] != "link"}


def neighbour(host: Host, address: str) -> str | None:
    """Return the hardware address that a host believes in."""
    found = MAC.search(host.run("ip", "neighbour", "show", address, "dev", "eth0").stdout)
    return found[0] if found else None


def believes(host: Host, address: str, hardware: str) -> bool:
    return neighbour(host, address) == hardware


@contextmanager
def capture(host: Host, what: str) -> Iterator[Callable[[], str]]:
    """Listen with tcpdump; what is yielded returns all that was heard so far."""
    command = f"exec tcpdump -l -n -e -vv -i eth0 '{what}' 2>&1"
    with host.start("sh", "-c", command) as process:
        assert process.stdout is not None
        lines: list[bytes] = []
        os.set_blocking(process.stdout.fileno(), False)

        def heard() -> str:
            lines.append(process.stdout.read() or b"" if process.stdout else b"")
            return b"".join(lines).decode()

        try:
            yield heard
        finally:
            process.kill()


# Asking


def test_a_neighbour_that_has_the_address_is_named(segment: Segment) -> None:
    engine = segment.engine()
    for address in ("10.0.0.2", "fd00::2"):
        assert engine.do("who_has", "eth0", address, 3) == [mac(segment.one)]
    assert arping(segment.balancer, "10.0.0.2") == {mac(segment.one)}


def test_an_address_of_nobody_else_has_no_owner(segment: Segment) -> None:
    """Nor has our own."""
    engine = segment.engine()
    for address in ("10.0.0.77", "fd00::77", "10.0.0.1", "fd00::1"):
        assert engine.do("who_has", "eth0", address, 0.3) == []


def test_both_of_two_owners_are_named_while_we_have_it_too(segment: Segment) -> None:
    engine = segment.engine()
    for address in (VIP, VIP6):
        for host in (segment.balancer, segment.one, segment.two):
            give(host, f"{address}/{128 if ':' in address else 32}")
        assert engine.do("who_has", "eth0", address, 3) == sorted([mac(segment.one), mac(segment.two)])


def arping(host: Host, address: str, *options: str) -> set[str]:
    """Return who answers a program that is not ours."""
    return {
        each[0]
        for each in MAC.finditer(
            host.run("arping", "-c", "1", "-w", "3", "-I", "eth0", *options, address).stdout.lower()
        )
    }


def test_a_host_that_has_no_way_back_to_us_is_found(segment: Segment) -> None:
    give(segment.one, f"{VIP}/32")
    segment.one.run("ip", "address", "del", "10.0.0.2/24", "dev", "eth0")
    segment.one.run("sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=1")
    assert arping(segment.balancer, VIP) == set()
    assert arping(segment.balancer, VIP, "-D") == {mac(segment.one)}
    assert segment.engine().do("who_has", "eth0", VIP, 3) == [mac(segment.one)]


def test_a_segment_that_lets_no_question_from_nobody_through_is_asked(segment: Segment) -> None:
    """As switches do that inspect ARP."""
    rules = "table arp f { chain in { type filter hook input priority 0; arp saddr ip 0.0.0.0 drop; }; }"
    assert segment.one.run("nft", rules).returncode == 0
    assert arping(segment.balancer, "10.0.0.2", "-D") == set()
    assert segment.engine().do("who_has", "eth0", "10.0.0.2", 3) == [mac(segment.one)]


def test_an_asker_without_an_address_there_is_answered(segment: Segment) -> None:
    segment.balancer.run("ip", "address", "flush", "dev", "eth0")
    engine = segment.engine()
    assert engine.do("who_has", "eth0", "10.0.0.2", 3) == [mac(segment.one)]
    assert engine.do("who_has", "eth0", "fd00::2", 3) == [mac(segment.one)]


def test_where_nobody_can_be_asked_it_is_said_why(segment: Segment) -> None:
    engine = segment.engine()
    with pytest.raises(EquipoiseError, match=r"no interface 'eth9' on this machine; it has lo, eth0"):
        engine.do("who_has", "eth9", VIP, 1)
    assert engine.do("who_has", "lo", VIP, 1) == []
    segment.balancer.run("ip", "link", "set", "eth0", "down")
    with pytest.raises(EquipoiseError, match=r"eth0: the interface is down; `ip link set eth0 up`"):
        engine.do("who_has", "eth0", VIP, 1)


# Announcing


def test_neighbours_learn_at_once_who_has_the_address_now(segment: Segment) -> None:
    """One asked before, when another machine had it: its cache is right before it asks again."""
    give(segment.two, f"{VIP}/24")
    give(segment.two, f"{VIP6}/64")
    for address in (VIP, VIP6):
        segment.one.run("curl", "--max-time", "5", f"http://[{address}]:9" if ":" in address else f"http://{address}:9")
        assert neighbour(segment.one, address) == mac(segment.two)
    segment.two.unplug()
    engine = segment.engine()
    with capture(segment.one, "arp or icmp6[0] == 136") as heard:
        assert engine.do("check", [VIP, VIP6]) == []
        engine.do("apply", [VIP, VIP6])
        ours = mac(segment.balancer)
        for address in (VIP, VIP6):
            eventually(partial(believes, segment.one, address, ours), 30, f"the cache to know of {address}")
        eventually(lambda: heard().count("neighbor advertisement") >= 3, 30, "three advertisements")
        eventually(lambda: len(re.findall(r"Reply 10.0.0.100 is-at", heard())) >= 3, 30, "three announcements")
        said = heard()
    assert f"{ours} > ff:ff:ff:ff:ff:ff" in said
    assert re.search(r"(Announcement|Request who-has) 10\.0\.0\.100", said)
    assert f"{ours} > 33:33:00:00:00:01" in said
    assert "Flags [override]" in said
    assert engine.do("bugs") == []


# The engine


def test_addresses_come_and_go_with_the_plan_and_a_second_time_does_nothing(segment: Segment) -> None:
    engine, before = segment.engine(), addresses(segment.balancer)
    engine.do("apply", [VIP, VIP6])
    assert addresses(segment.balancer) == before | {f"{VIP}/32", f"{VIP6}/128"}
    engine.do("apply", [VIP, VIP6])
    assert [each["address"] for each in engine.events("address.added")] == [VIP, VIP6]
    engine.do("apply", [VIP6, "10.0.0.101"])
    assert addresses(segment.balancer) == before | {"10.0.0.101/32", f"{VIP6}/128"}
    assert [(each["address"], each["reason"]) for each in engine.events("address.removed")] == [
        (VIP, "the plan does not name it any more")
    ]
    engine.do("stop")
    assert addresses(segment.balancer) == before


def test_this_machine_does_not_call_others_from_a_managed_address(segment: Segment) -> None:
    """With l4_dr the nodes have it too, and would take the answer for their own."""
    segment.engine().do("apply", [VIP, "fd00::2:0"])
    for target, own in (("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1"), ("fd00::2:1", "fd00::1")):
        assert f"src {own} " in segment.balancer.run("ip", "route", "get", target).stdout


def test_an_address_of_another_machine_is_refused(segment: Segment) -> None:
    give(segment.one, f"{VIP}/24")
    give(segment.two, f"{VIP6}/64")
    engine = segment.engine()
    first, second = engine.do("check", [VIP, VIP6, "10.0.0.101"])
    assert first[0].startswith(f"{VIP} is another machine's: {mac(segment.one)} answers for it on eth0; take it off")
    assert second[0].startswith(f"{VIP6} is another machine's: {mac(segment.two)} answers")
    assert first[1] == ["services", "pacs", "listen"]
    assert "node" not in first[0]
    ((with_nodes, _),) = engine.do("check", [VIP], "eth0", True)
    assert with_nodes.endswith("where that is a node, prepare it for l4_dr: `equipoise layer4 prepare-node` there")


def test_what_is_ours_already_is_not_asked_for(segment: Segment) -> None:
    """A conflict that came later keeps no other change from being made."""
    engine = segment.engine()
    engine.do("apply", [VIP])
    give(segment.one, f"{VIP}/24")
    assert engine.do("check", [VIP]) == []


def test_an_interface_that_is_not_there_is_refused(segment: Segment) -> None:
    ((message, path),) = segment.engine().do("check", [VIP], "eth9")
    assert message == "there is no interface 'eth9' on this machine; it has lo, eth0: name one of them"
    assert path == ["network", "interface"]


def test_without_the_rights_it_is_refused(segment: Segment) -> None:
    engine = Engine(segment.balancer, segment.directory, "setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")
    try:
        ((message, path),) = engine.do("check", [VIP])
        assert message.startswith("addresses cannot be managed without CAP_NET_RAW; start as root, or add")
        assert path == ["network", "manage_addresses"]
        assert engine.do("check", []) == []
    finally:
        engine.kill()


def test_a_failure_takes_back_what_was_done(segment: Segment) -> None:
    """The one address can be added, the other not: IPv6 is off."""
    engine = segment.engine()
    engine.do("apply", ["10.0.0.101"])
    segment.balancer.run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
    before = addresses(segment.balancer)
    with pytest.raises(EquipoiseError, match=r"cannot add fd00::100 on eth0: IPv6 is off there; `sysctl net\.ipv6"):
        engine.do("apply", [VIP, VIP6])
    assert addresses(segment.balancer) == before
    engine.do("stop")
    assert addresses(segment.balancer) == {"10.0.0.1/24"}


def test_an_address_that_was_there_before_stays(segment: Segment) -> None:
    give(segment.balancer, f"{VIP}/24")
    give(segment.balancer, f"{VIP6}/64")
    engine, before = segment.engine(), addresses(segment.balancer)
    assert engine.do("check", [VIP, VIP6]) == []
    engine.do("apply", [VIP, VIP6])
    engine.do("apply", [])
    engine.do("stop")
    assert addresses(segment.balancer) == before
    assert engine.do("events") == []


def test_a_supervisor_finds_what_the_killed_one_left(segment: Segment) -> None:
    before = addresses(segment.balancer)
    give(segment.balancer, "10.0.0.103/32")  # not ours, and looks like it
    first = segment.engine()
    first.do("apply", [VIP, VIP6, "10.0.0.103"])
    first.kill()
    assert {f"{VIP}/32", f"{VIP6}/128"} <= addresses(segment.balancer)
    second = segment.engine()
    second.do("adopt")
    second.do("apply", [VIP, "10.0.0.103"])
    assert addresses(segment.balancer) == before | {f"{VIP}/32", "10.0.0.103/32"}
    assert second.events("address.added") == []
    second.do("stop")
    assert addresses(segment.balancer) == before | {"10.0.0.103/32"}


def test_a_start_that_fails_leaves_what_it_found(segment: Segment) -> None:
    first = segment.engine()
    first.do("apply", [VIP, VIP6])
    first.kill()
    second, before = segment.engine(), addresses(segment.balancer)
    second.do("adopt")
    second.do("apply", [VIP, "10.0.0.101"])
    second.do("undo_start")
    assert addresses(segment.balancer) == before


def test_an_address_that_vanishes_is_put_back(segment: Segment) -> None:
    """When a link goes down the kernel drops its IPv6 addresses."""
    engine = segment.engine()
    engine.do("apply", [VIP, VIP6])
    before = addresses(segment.balancer)
    for state in ("down", "up"):
        segment.balancer.run("ip", "link", "set", "eth0", state)
    segment.balancer.run("ip", "address", "del", f"{VIP}/32", "dev", "eth0")
    assert f"{VIP6}/128" not in addresses(segment.balancer)
    engine.do("later", 5)
    assert {f"{VIP}/32", f"{VIP6}/128"} <= addresses(segment.balancer) <= before
    assert [each["address"] for each in engine.events("address.added")] == [VIP, VIP6, VIP, VIP6]


def test_a_conflict_is_told_once_until_it_is_gone(segment: Segment) -> None:
    engine = segment.engine()
    engine.do("apply", [VIP, VIP6])

    def conflicts() -> list[tuple[str, str]]:
        return [(each["address"], each["mac"]) for each in engine.events("address.conflict")]

    def look() -> None:
        """Let a minute go by, and have the look end that is due then."""
        engine.do("later", 61)
        engine.do("idle")

    look()
    assert conflicts() == []
    give(segment.one, f"{VIP}/24")
    give(segment.two, f"{VIP6}/64")
    expected = [(VIP, mac(segment.one)), (VIP6, mac(segment.two))]
    for _ in range(2):
        look()
        assert conflicts() == expected
    segment.one.run("ip", "address", "del", f"{VIP}/24", "dev", "eth0")
    look()
    give(segment.one, f"{VIP}/24")
    look()
    assert conflicts() == [*expected, expected[0]]
    assert engine.do("bugs") == []
