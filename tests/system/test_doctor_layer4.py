"""The doctor among real machines: nodes that are prepared for direct routing, and nodes that are not."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from equipoise.app.doctor.facts_layer4 import Layer4Facts
from equipoise.app.doctor.gather_layer4 import WhoHas, gather_layer4
from equipoise.base.clock import SystemClock
from equipoise.engines.addresses.segment import who_has
from equipoise.plan.inputs import Way
from equipoise.plan.model import Endpoint
from tests.system import netns
from tests.unit.app.doctor.healthy import plan

SITE = """\
site: here
services:
  ct:
    protocol: dicom
    mode: l4_dr
    listen: '{vip}'
    nodes:
      good: {{address: '{good}'}}
      bare: {{address: '{bare}'}}
      away: {{address: '{away}'}}
  web: {{protocol: tcp, mode: l4_nat, listen: '{vip}:80', nodes: {{good: {{address: '{good}:8080'}}}}}}
"""
V4 = {"vip": "10.9.0.100", "good": "10.9.0.11", "bare": "10.9.0.12", "away": "192.0.2.9"}
V6 = {"vip": "fd00:9::100", "good": "fd00:9::11", "bare": "fd00:9::12", "away": "2001:db8::9"}

without_network = netns.missing()
pytestmark = [
    pytest.mark.root("makes network namespaces"),
    pytest.mark.skipif(without_network is not None, reason=without_network or ""),
]


class Site:
    """A balancer and two nodes, of which one is prepared, in both versions of IP."""

    def __init__(self, network: netns.Network) -> None:
        self.balancer, self.good, self.bare = (
            network.host(name, address)
            for name, address in (("lb", "10.9.0.1"), ("good", V4["good"]), ("bare", V4["bare"]))
        )
        for host, number in ((self.balancer, 1), (self.good, 11), (self.bare, 12)):
            host.add_address(f"fd00:9::{number}/64")
        for vip in (f"{V4['vip']}/32", f"{V6['vip']}/128"):
            self.balancer.add_address(vip)
            self.good.add_address(vip, "lo")
        self.good.set_kernel(ipv4__conf__all__arp_ignore=1)
        self.balancer.ip("route", "add", "default", "via", "10.9.0.254")
        self.balancer.ip("-6", "route", "add", "default", "via", "fd00:9::fe")

    def gathered(self, words: dict[str, str], who_has: WhoHas = who_has) -> Layer4Facts:
        vip = f"[{words['vip']}]" if ":" in words["vip"] else words["vip"]
        good = f"[{words['good']}]" if ":" in words["good"] else words["good"]
        text = SITE.format(**words).replace(f"'{words['vip']}:80'", f"'{vip}:80'")
        text = text.replace(f"'{words['good']}:8080'", f"'{good}:8080'")
        found = self.balancer.inside(lambda: gather_layer4(plan(text), None, "me", (), SystemClock(), who_has=who_has))
        assert found is not None
        return found


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with netns.Network() as network:
        yield Site(network)


@contextmanager
def listening(host: netns.Host, address: str, port: int) -> Iterator[None]:
    family = "AF_INET6" if ":" in address else "AF_INET"
    code = f"""
import socket
with socket.create_server(({address!r}, {port}), family=socket.{family}) as server:
    print("ready", flush=True)
    while True: server.accept()
"""
    process = host.start(sys.executable, "-c", code)
    yield
    process.kill()
    process.wait()


@pytest.mark.parametrize("words", [V4, V6], ids=["IPv4", "IPv6"])
def test_nodes_are_told_apart(site: Site, words: dict[str, str]) -> None:
    with listening(site.good, words["vip"], 104):
        found = site.gathered(words)
    good, bare, away = found.nodes
    target = Endpoint(words["vip"], 104)
    assert (good.macs, good.knocks) == ((site.good.mac(),), ((target, "listens"),))
    assert good.called_from == ("fd00:9::100" if ":" in words["vip"] else "10.9.0.1"), "IPv6: the longest match"
    assert (bare.macs, bare.knocks) == ((site.bare.mac(),), ((target, "silent"),))
    assert away.way is not None
    assert away.way.router == ("fd00:9::fe" if ":" in words["vip"] else "10.9.0.254")
    assert (away.macs, away.knocks) == (None, ())
    assert [(claim.address, claim.macs) for claim in found.claims] == [(words["vip"], ())]
    assert (found.may_change, found.may_ask, found.refused, found.absent) == (True, True, "", ())
    assert found.ways[words["good"]] == Way("eth0")


def test_a_node_that_answers_for_the_address_and_where_nothing_listens(site: Site) -> None:
    site.good.set_kernel(ipv4__conf__all__arp_ignore=0)
    try:
        found = site.gathered(V4)
    finally:
        site.good.set_kernel(ipv4__conf__all__arp_ignore=1)
    assert found.claims[0].macs == (site.good.mac(),)
    assert found.nodes[0].knocks == ((Endpoint(V4["vip"], 104), "refuses"),)


def test_settings(site: Site) -> None:
    def nobody(*_: object) -> tuple[str, ...]:
        return ()

    site.balancer.set_kernel(ipv4__ip_forward=1, ipv4__conf__all__send_redirects=0, ipv4__conf__eth0__send_redirects=1)
    site.balancer.set_kernel(ipv4__conf__all__rp_filter=1, ipv4__conf__eth0__rp_filter=0)
    found = site.gathered(V4, nobody)
    assert found.forwarding == {4: True, 6: False}
    assert (set(found.redirecting), found.strict) == ({"eth0"}, ("eth0",))
    site.balancer.set_kernel(ipv4__conf__all__rp_filter=2)
    assert site.gathered(V4, nobody).strict == ()
