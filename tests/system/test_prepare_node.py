"""`equipoise layer4 prepare-node` on machines of their own: the node has the address, and tells nobody."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import netns

VIP, VIP6 = "10.9.0.100", "fd00:9::100"
NODE, BALANCER = "10.9.0.11", "10.9.0.1"
SITE = f"""\
site: here
services:
  ct: {{protocol: dicom, mode: l4_dr, listen: '{VIP}', nodes: {{pacs-a: {{address: '{NODE}'}}}}}}
  web: {{protocol: tcp, mode: l4_dr, listen: '[{VIP6}]:80', nodes: {{pacs-a: {{address: 'fd00:9::11'}}}}}}
"""
EQUIPOISE = (sys.executable, "-m", "equipoise", "layer4", "prepare-node")
# What is written to /etc goes into a directory of the test, and no systemd is seen: a mount namespace of its own.
SEPARATE = """\
mount --bind "$0/etc" /etc && mkdir -p /etc/sysctl.d /etc/systemd/system && {{ [ ! -d /run/systemd ] ||
mount -t tmpfs none /run/systemd; }} && exec "$@"
"""

without_network = netns.missing()
pytestmark = [
    pytest.mark.root("makes network namespaces"),
    pytest.mark.skipif(without_network is not None, reason=without_network or ""),
]


class Node:
    """A node, with its own /etc."""

    def __init__(self, host: netns.Host, directory: Path) -> None:
        self.host, self._directory = host, directory
        (directory / "etc").mkdir()
        self.site = directory / "site.yaml"
        self.site.write_text(SITE)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.host.run(
            "unshare", "--mount", "sh", "-c", SEPARATE.format(), str(self._directory), *command, timeout_s=60
        )

    def prepare(self, *words: str, code: int = 0) -> dict[str, Any]:
        done = self.run(*EQUIPOISE, "--json", *words)
        assert done.returncode == code, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def file(self, name: str) -> Path:
        return self._directory / name.removeprefix("/")

    def addresses(self, device: str = "lo") -> set[str]:
        links = json.loads(self.host.run("ip", "-json", "address", "show", "dev", device).stdout)
        return {each["local"] for each in links[0]["addr_info"]}


@pytest.fixture
def network() -> Iterator[netns.Network]:
    with netns.Network() as network:
        yield network


@pytest.fixture
def node(network: netns.Network, tmp_path: Path) -> Node:
    host = network.host("node", NODE)
    host.run("ip", "address", "add", "fd00:9::11/64", "dev", "eth0", "nodad")
    return Node(host, tmp_path)


@pytest.fixture
def balancer(network: netns.Network, node: Node) -> netns.Host:
    host = network.host("balancer", BALANCER)
    host.run("ip", "address", "add", "fd00:9::1/64", "dev", "eth0", "nodad")
    return host


def answers_arp(balancer: netns.Host) -> bool:
    return balancer.run("arping", "-c", "1", "-w", "5", "-I", "eth0", VIP).returncode == 0


def answers_ndp(balancer: netns.Host) -> bool:
    """Have the kernel look for a neighbour that has the address, and say what it found."""
    reach = f"import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'x', ({VIP6!r}, 9))"
    balancer.run(sys.executable, "-c", reach + "; import time; time.sleep(3.5)")  # three solicitations, a second apart
    return "lladdr" in balancer.run("ip", "-6", "neigh", "show", VIP6).stdout


def takes_packets(node: Node, balancer: netns.Host, address: str) -> bool:
    """Say whether the node answers for the address once packets are routed there past any ARP, as the balancer does."""
    listen = f"""
import socket
with socket.create_server(({address!r}, 8104), family={"socket.AF_INET6" if ":" in address else "socket.AF_INET"}) as s:
    print("ready", flush=True)
    s.settimeout(20)
    s.accept()[0].sendall(b"x")
"""
    server = node.host.start(sys.executable, "-c", listen)
    try:
        balancer.run("ip", "route", "replace", address, "via", "fd00:9::11" if ":" in address else NODE)
        call = f"import socket; print(socket.create_connection(({address!r}, 8104), 10).recv(1))"
        return "b'x'" in balancer.run(sys.executable, "-c", call).stdout
    finally:
        server.kill()
        server.wait()


def test_a_node_has_the_addresses_and_answers_for_none(node: Node, balancer: netns.Host) -> None:
    node.host.run("ip", "address", "add", f"{VIP}/32", "dev", "lo")
    assert answers_arp(balancer), "this is what must not be"

    found = node.prepare("--apply", str(node.site), "pacs-a")
    assert f"{VIP} on lo" in found["unchanged"]
    assert f"{VIP6} on lo" in found["changed"]
    assert not answers_arp(balancer)
    assert not answers_ndp(balancer)
    assert takes_packets(node, balancer, VIP)
    assert takes_packets(node, balancer, VIP6)

    again = node.prepare("--apply", str(node.site), "pacs-a")
    assert again["changed"] == []
    assert len(again["unchanged"]) == 7

    assert node.prepare("--undo")["changed"]
    assert node.addresses() == {"127.0.0.1", "::1"}
    assert not node.file("/etc/sysctl.d/90-equipoise-direct-routing.conf").exists()
    assert node.prepare("--undo")["changed"] == []


def test_the_printed_script_does_the_same(node: Node, balancer: netns.Host) -> None:
    printed = node.prepare(str(node.site), "pacs-a")
    assert node.addresses() == {"127.0.0.1", "::1"}, "printing changes nothing"
    for _ in range(2):
        done = node.run("sh", "-c", printed["script"])
        assert done.returncode == 0, done.stderr
    assert node.addresses() == {"127.0.0.1", "::1", VIP, VIP6}
    assert not answers_arp(balancer)
    after = node.prepare("--apply", str(node.site), "pacs-a")
    assert [line for line in after["changed"] if "systemd" not in line] == []
    for name, content in printed["files"].items():
        assert node.file(name).read_text() == content


def test_an_address_that_the_site_no_longer_has_goes(node: Node) -> None:
    node.prepare("--apply", "--vip", VIP, "--vip", "10.9.0.101")
    node.prepare("--apply", "--vip", VIP)
    assert node.addresses() == {"127.0.0.1", "::1", VIP}


def test_a_machine_that_answers_for_the_address_is_left_alone(node: Node) -> None:
    node.host.run("ip", "address", "add", f"{VIP}/24", "dev", "eth0")
    done = node.run(*EQUIPOISE, "--apply", "--vip", VIP)
    assert done.returncode == 1
    assert f"{VIP} is on eth0 here, where this machine answers for it" in done.stderr
    assert not node.file("/etc/sysctl.d").exists() or not list(node.file("/etc/sysctl.d").iterdir())
    assert node.addresses() == {"127.0.0.1", "::1"}


def test_an_interface_that_is_not_there(node: Node) -> None:
    done = node.run(*EQUIPOISE, "--apply", "--vip", VIP, "--interface", "eth9")
    assert (done.returncode, "no interface 'eth9'" in done.stderr) == (1, True)
    node.prepare("--apply", "--vip", VIP, "--interface", "eth0")
    shown = node.host.run("sysctl", "-n", "net.ipv4.conf.all.arp_ignore", "net.ipv4.conf.eth0.arp_ignore")
    assert shown.stdout.split() == ["0", "1"]


def test_a_strict_filter_between_two_networks_is_remarked(node: Node) -> None:
    node.host.run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth2")
    node.host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
    found = node.prepare("--apply", "--vip", VIP, code=2)
    assert "rp_filter is strict" in found["remarks"][0]


def test_the_systemd_unit_is_one(node: Node) -> None:
    node.prepare("--apply", "--vip", VIP, "--vip", VIP6)
    unit = node.file("/etc/systemd/system/equipoise-direct-routing.service")
    try:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except FileNotFoundError:
        pytest.skip("systemd-analyze is not here")
    assert unit.name not in done.stderr, done.stderr


def test_nobody_but_root_may_apply() -> None:
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", *EQUIPOISE, "--apply", "--vip", VIP],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "HOME": "/"},
    )
    assert done.returncode == 1
    assert "only root may change addresses" in done.stderr or "Permission denied" in done.stderr
