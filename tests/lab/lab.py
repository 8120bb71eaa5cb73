"""The laboratory: a hospital's network in namespaces, with the balancer's machine in the middle of it.

    far ── clients 10.77.0.0/24 ── router ── servers 10.77.1.0/24 ─┬─ near, another client
                                                                   ├─ a, b, c: nodes that own the VIPs, for l4_dr
                                                                   └─ balancer ── inner 10.77.2.0/24 ── x, y: nodes

Each segment is IPv6, too: fd77:0:0:0::/64, fd77:0:0:1::/64 and fd77:0:0:2::/64.  x and y send what leaves their segment
to the balancer, so l4_nat needs no masquerade there; a, b and c send it to the router.  Offloads stay as they are on
veth: packets of 64 KiB cross it, as they do on real cards.

With `pair=True` a second machine, `standby`, stands beside `balancer` at both segments; neither has VIPs from the
beginning, and x and y send to `FLOATING`, which whoever holds the VIPs is to have.  Leaves out what runs on the hosts:
`machines.py`; and the balancer, which tests and `make lab` start in `Lab.balancer` and `Lab.standby`.
"""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from enum import IntEnum
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType

from tests.lab.machines import Client, Node
from tests.system import netns
from tests.system.netns import Host, Network

PROGRAMS = ("ip", "nsenter", "nft", "nginx", "tcpdump", "curl", "storescp", "dcmqrscp")
_PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ROUTER, _BALANCER, _STANDBY, _FIRST_NODE, _CLIENT = 1, 2, 3, 11, 50
_GATEWAY = 1  # on the inner segment of a pair
# What a node of l4_dr needs, so that it never says that a VIP is its own: ip-sysctl, arp_ignore and arp_announce.
SILENT = {"ipv4__conf__all__arp_ignore": 1, "ipv4__conf__all__arp_announce": 2}


class Segment(IntEnum):
    """The networks; the value stands in their addresses."""

    CLIENTS = 0
    SERVERS = 1
    INNER = 2

    def v4(self, host: int) -> str:
        """Return the IPv4 address of a host."""
        return f"10.77.{self.value}.{host}"

    def v6(self, host: int) -> str:
        """Return its IPv6 address, which ends in the same digits, so that people see that it is the same host."""
        return str(ip_address(f"fd77:0:0:{self.value}::{host}"))


VIPS = tuple(Segment.SERVERS.v4(number) for number in (100, 101, 102))
VIPS6 = tuple(Segment.SERVERS.v6(number) for number in (100, 101, 102))
FLOATING = (Segment.INNER.v4(_GATEWAY), Segment.INNER.v6(_GATEWAY))  # the default gateway of x and y, with a pair
# Source addresses of `far`: as many clients, for hashes and persistence.
SOURCES = tuple(Segment.CLIENTS.v4(number) for number in range(_CLIENT, _CLIENT + 40))


def missing() -> str | None:
    """Return why there can be no laboratory here, or None."""
    if absent := [name for name in PROGRAMS if shutil.which(name, path=_PLACES) is None]:
        return f"not here: {', '.join(absent)}"
    return netns.missing()


class Lab:
    """The network with its hosts; leaving it ends every process there and removes it.

    Args:
        folder: Where nodes keep their files.
        nodes: Names of those on the segment of the servers, with the VIPs on `lo`.
        inner: Names of those behind the balancer.
        vips: How many of `VIPS` the balancer has from the beginning, as many of `VIPS6`; with a pair none.
        pair: Whether there is a second balancer.
    """

    def __init__(
        self,
        folder: Path,
        nodes: Sequence[str] = ("a", "b", "c"),
        inner: Sequence[str] = ("x", "y"),
        vips: int = 1,
        *,
        pair: bool = False,
    ) -> None:
        self._network, self._end = Network(), ExitStack()
        self._folder, self._names = folder, (tuple(nodes), tuple(inner))
        self._vips, self._pair = 0 if pair else vips, pair
        self.nodes: dict[str, Node] = {}
        self.inner: dict[str, Node] = {}

    def __enter__(self) -> "Lab":
        with ExitStack() as stack:
            stack.enter_context(self._network)
            self._build()
            self._end = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.__exit__(kind, error, trace)

    @property
    def all_nodes(self) -> dict[str, Node]:
        """Return the nodes of both segments."""
        return {**self.nodes, **self.inner}

    @property
    def hosts(self) -> dict[str, Host]:
        """Return every host by its name."""
        ends = {"far": self.far.host, "near": self.near.host, "router": self.router, "balancer": self.balancer}
        if self._pair:
            ends["standby"] = self.standby
        return ends | {name: node.host for name, node in self.all_nodes.items()}

    @property
    def token(self) -> str:
        """Return the word that the names of its namespaces begin with."""
        return self.balancer.namespace.rpartition("-")[0]

    def lose(self, *matches: str) -> None:
        """Have the switches lose what matches one of these (`Host.sent`, `Host.heard`, both), and nothing else."""
        self._network.lose(*matches)

    def _build(self) -> None:
        for segment in Segment:
            self._network.add_segment(segment.name.lower())
        self.router = self._router()
        self.balancer = self._balancer("balancer", _BALANCER)
        if self._pair:
            self.standby = self._balancer("standby", _STANDBY)
        self.far = self._client("far", Segment.CLIENTS)
        for source in SOURCES[1:]:
            self.far.host.add_address(f"{source}/24")
        self.near = self._client("near", Segment.SERVERS)
        servers, inner = self._names
        for number, name in enumerate(servers, _FIRST_NODE):
            self.nodes[name] = self._node(name, Segment.SERVERS, number, _ROUTER)
            own_vips(self.nodes[name].host)
        for number, name in enumerate(inner, _FIRST_NODE):
            self.inner[name] = self._node(name, Segment.INNER, number, _GATEWAY if self._pair else _BALANCER)

    def _host(self, name: str, segment: Segment, number: int, gateway: int | None) -> Host:
        also = [f"{segment.v6(number)}/64"]
        host = self._network.host(name, segment.v4(number), segment=segment.name.lower(), also=also)
        if gateway is not None:
            _lead(host, "default", segment, gateway)
        return host

    def _router(self) -> Host:
        host = self._host("router", Segment.CLIENTS, _ROUTER, None)
        servers = Segment.SERVERS
        host.add_cable("eth1", "servers", f"{servers.v4(_ROUTER)}/24", f"{servers.v6(_ROUTER)}/64")
        _forward(host)
        if self._pair:
            return host  # nobody of the segment of clients calls x or y by their own addresses
        for network in (f"{Segment.INNER.v4(0)}/24", f"{Segment.INNER.v6(0)}/64"):
            _lead(host, network, servers, _BALANCER)
        return host

    def _balancer(self, name: str, number: int) -> Host:
        host = self._host(name, Segment.SERVERS, number, _ROUTER)
        inner = Segment.INNER
        host.add_cable("eth1", "inner", f"{inner.v4(number)}/24", f"{inner.v6(number)}/64")
        for v4, v6 in list(zip(VIPS, VIPS6, strict=True))[: self._vips]:
            host.add_address(f"{v4}/32")
            # Deprecated, RFC 4862 section 5.5.4: else it calls nodes from the VIP, which they think is their own.
            host.ip("address", "add", f"{v6}/128", "dev", "eth0", "nodad", "preferred_lft", "0")
        _forward(host)
        return host

    def _client(self, name: str, segment: Segment) -> Client:
        return Client(self._host(name, segment, _CLIENT, _ROUTER), segment.v6(_CLIENT))

    def _node(self, name: str, segment: Segment, number: int, gateway: int) -> Node:
        host = self._host(name, segment, number, gateway)
        # A new network card is announced, as `ifup` and its like do.
        host.set_kernel(ipv4__conf__all__arp_notify=1, ipv6__conf__all__ndisc_notify=1)
        folder = self._folder / name
        folder.mkdir()
        return Node(name, host, segment.v6(number), folder)


def own_vips(host: Host) -> None:
    """Prepare a node for l4_dr: the VIPs are its own, and it says so to nobody."""
    host.set_kernel(**SILENT)
    for v4, v6 in zip(VIPS, VIPS6, strict=True):
        host.add_address(f"{v4}/32", "lo")
        host.add_address(f"{v6}/128", "lo")  # nobody is told of what is on lo: ndisc asks for addresses of the device


def _forward(host: Host) -> None:
    """Make it a router.  It sends no redirects: what comes in and leaves by the same card is meant so here."""
    host.set_kernel(
        ipv4__ip_forward=1,
        ipv6__conf__all__forwarding=1,
        ipv4__conf__all__send_redirects=0,
        ipv4__conf__eth0__send_redirects=0,
    )


def _lead(host: Host, network: str, segment: Segment, gateway: int) -> None:
    if ":" not in network:
        host.ip("route", "add", network, "via", segment.v4(gateway))
    if ":" in network or network == "default":
        host.ip("-6", "route", "add", network, "via", segment.v6(gateway))
