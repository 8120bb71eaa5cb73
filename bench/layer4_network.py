"""The network that `bench.layer4` measures in: client, nodes, and a machine for each balancer, as network namespaces.

    client ──┬─ a, b: nodes that own the VIPs, for direct routing, the proxies, and no balancer at all
             ├─ one machine for each balancer in l4_dr, and one for the proxies
             ├─ nat ────┐
             └─ router ─┴── x, y: nodes behind both; what goes through `router` is not translated

Leaves out what runs on the balancers (`layer4_contenders.py`).  Source: the addresses are those that are set aside for
measurements, RFC 2544 appendix C.2.2.
"""

import random
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.contenders import Program, Site, await_serving, start
from bench.programs import HERE, BenchError, Sink, find_program
from bench.web_contenders import SIZES, nginx_command
from tests.system import netns
from tests.system.netns import Host, Network

WEB_PORT, DICOM_PORT = 8080, 11112
A, B = "198.18.0.21", "198.18.0.22"
X, Y = "198.18.1.21", "198.18.1.22"
INNER, INNER_NETWORK = "inner", "198.18.1.0/24"
CLIENT, ROUTED_CLIENT = (
    "198.18.0.1",
    "198.18.0.3",
)  # the second one sends through the router, and is answered through it
ROUTER, ROUTER_INSIDE = "198.18.0.2", "198.18.1.2"
NAT, NAT_INSIDE = "198.18.0.12", "198.18.1.12"
PROXIES, OTHER_PROXY = "198.18.0.5", "198.18.0.6"
DIRECT_ROUTING = {
    name: f"198.18.0.{number}" for name, number in (("dr", 7), ("dr-least", 8), ("dr-full", 9), ("many", 10))
}
VIPS = {name: f"198.18.0.{101 + number}" for number, name in enumerate(DIRECT_ROUTING)}
MANY = {f"node-{number}": f"198.18.0.{150 + number}" for number in range(100)}  # half of them a's, half of them b's
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
# What a node of l4_dr needs, so that it never says that a VIP is its own: ip-sysctl, arp_ignore and arp_announce.
_SILENT = {"ipv4__conf__all__arp_ignore": 1, "ipv4__conf__all__arp_announce": 2}
# As many short connections from one address as there are ports, again and again: ip-sysctl, tcp_tw_reuse.
_PORTS = ("sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1", "net.ipv4.ip_local_port_range=1024 65535")
_TRIED = """table netdev try {
    chain c {
        type filter hook ingress device "eth0" priority 0
        fwd ip to 198.18.0.2 device "eth0"
    }
}
table inet try {
    chain c {
        type nat hook prerouting priority dstnat
        dnat ip to 198.18.0.2
    }
}
"""


def missing() -> str | None:
    """Return why this cannot be measured here, or None."""
    try:
        for program, package in (("nft", "nftables"), ("haproxy", "haproxy"), ("nginx", "nginx-light")):
            find_program(program, package)
    except BenchError as error:
        return str(error)
    if not STREAM_MODULE.exists():
        return f"nginx has no {STREAM_MODULE}; install it with: apt-get install libnginx-mod-stream"
    return netns.missing() or _kernel_lacks()


def _kernel_lacks() -> str | None:
    with Network() as network:
        tried = network.host("try", CLIENT).run(find_program("nft", "nftables"), "-f", "-", given=_TRIED)
    return f"the kernel does not take rules of layer 4: {tried.stderr.strip()[:300]}" if tried.returncode else None


@dataclass(frozen=True, slots=True)
class Machines:
    """The hosts that something is started on, and what answers on the nodes."""

    client: Host
    nodes: Mapping[str, Host]
    router: Host
    nat: Host
    proxies: Host
    direct_routing: Mapping[str, Host]
    web: Sequence[Program]
    sinks: Sequence[Sink]

    def node_processes(self) -> frozenset[int]:
        """Return the processes that answer, on all nodes."""
        web = frozenset(pid for program in self.web for pid in program.everything())
        return web | {sink.pid for sink in self.sinks}

    def wrong_at_nodes(self) -> list[str]:
        """Return what the nodes found wrong with what they were sent."""
        counted = [sink.counters() for sink in self.sinks]
        return [f"a node saw {one['first_error']}" for one in counted if one["protocol_errors"]]


def must(host: Host, *command: str) -> str:
    """Run a program on a host, and return what it printed.  Raises: BenchError where it fails."""
    done = host.run(*command)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()[-1000:]}")
    return done.stdout


def passed_bytes(host: Host) -> int:
    """Return what a machine has received and sent so far, on all its cables, headers included."""

    def look() -> str:
        return Path("/proc/thread-self/net/dev").read_text()

    lines = (line.split() for line in host.inside(look).splitlines() if line.lstrip().startswith("eth"))
    return sum(int(fields[1]) + int(fields[9]) for fields in lines)


@contextmanager
def ending() -> Iterator[ExitStack]:
    """Give what ends everything; an end that has begun goes on, though somebody who waits presses Ctrl-C once more."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ExitStack() as stack:
            try:
                yield stack
            finally:
                for number in before:
                    signal.signal(number, signal.SIG_IGN)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def machines(site: Site, stack: ExitStack, chance: random.Random) -> Machines:
    """Build the network and start the nodes; the end of `stack` removes all of it.  Raises: BenchError."""
    try:
        _write_objects(site, chance)
        return _built(stack.enter_context(Network()), site, stack)
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{' '.join(error.cmd)} failed: {error.stderr.strip()}") from None


def _built(network: Network, site: Site, stack: ExitStack) -> Machines:
    network.add_segment(INNER)
    client = network.host("client", CLIENT, also=[f"{ROUTED_CLIENT}/24"])
    _spare_the_switch(client)
    router, nat = (_between(network, *each) for each in (("router", ROUTER, ROUTER_INSIDE), ("nat", NAT, NAT_INSIDE)))
    proxies = network.host("proxies", PROXIES, also=[f"{OTHER_PROXY}/24"])
    for host in (client, proxies):
        must(host, *_PORTS)
    client.ip("route", "add", INNER_NETWORK, "via", ROUTER, "src", ROUTED_CLIENT)
    routing = {name: network.host(name, address, also=[f"{VIPS[name]}/32"]) for name, address in DIRECT_ROUTING.items()}
    nodes = {**_nodes_with_vips(network), **_nodes_behind(network)}
    web = [_serve_web(name, host, site, stack) for name, host in nodes.items()]
    return Machines(client, nodes, router, nat, proxies, routing, web, [_take(host, stack) for host in nodes.values()])


def _spare_the_switch(client: Host) -> None:
    """Have the switch be a switch: it asks netfilter about every packet where br_netfilter is loaded."""
    name = client.cable()[1]
    switches = Host(name, "", name)
    if switches.run("test", "-d", "/proc/sys/net/bridge").returncode == 0:
        switches.set_kernel(**{f"bridge__bridge-nf-call-{kind}tables": 0 for kind in ("ip", "ip6", "arp")})


def _between(network: Network, name: str, address: str, inside: str) -> Host:
    host = network.host(name, address)
    host.add_cable("eth1", INNER, f"{inside}/24")
    host.set_kernel(ipv4__ip_forward=1)
    return host


def _nodes_with_vips(network: Network) -> dict[str, Host]:
    addresses, found = list(MANY.values()), {}
    for number, (name, address) in enumerate((("a", A), ("b", B))):
        found[name] = network.host(name, address, also=[f"{each}/24" for each in addresses[number::2]])
        found[name].set_kernel(**_SILENT)
        for vip in VIPS.values():
            found[name].add_address(f"{vip}/32", "lo")
    return found


def _nodes_behind(network: Network) -> dict[str, Host]:
    found = {name: network.host(name, address, segment=INNER) for name, address in (("x", X), ("y", Y))}
    for host in found.values():
        host.ip("route", "add", "default", "via", NAT_INSIDE)
        host.ip("route", "add", ROUTED_CLIENT, "via", ROUTER_INSIDE)
    return found


def _write_objects(site: Site, chance: random.Random) -> None:
    directory = site.directory / "objects"
    directory.mkdir()
    for name in ("1kB", "30MB"):
        (directory / name).write_bytes(chance.randbytes(SIZES[name]))


def _serve_web(name: str, host: Host, site: Site, stack: ExitStack) -> Program:
    places = {"name": name, "web_port": str(WEB_PORT)}
    config = site.fill(HERE / "nginx" / "layer4_node.conf", f"web-{name}", WEB_PORT, places)
    program = start(f"web-{name}", [*host.prefix, *nginx_command(config)], site)
    stack.callback(program.stop)
    await_serving(f"web-{name}", program, partial(_not_listening, host))
    return program


def _not_listening(host: Host) -> str:
    try:
        host.connect(host.address, WEB_PORT, timeout_s=2).close()
    except OSError as error:
        return str(error)
    return ""


def _take(host: Host, stack: ExitStack) -> Sink:
    sink = Sink(1, "--address", "0.0.0.0", "--port", str(DICOM_PORT), prefix=host.prefix)
    stack.callback(sink.stop)
    return sink
