"""A client, a balancer and two nodes with the rules in between, and single TCP packets: who gets them is what counts.

The client is at one side of the balancer, the nodes `a` and `b` at the other.  No supervisor runs: each test says
itself what the kernel is to hold.
"""

import json
import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address

from equipoise.engines.layer4 import transaction
from equipoise.engines.layer4.artifact import Artifact
from equipoise.engines.layer4.balance import Balance
from equipoise.engines.layer4.kernel import Counts, Kernel
from equipoise.plan.inputs import Way
from equipoise.plan.states import NodeState
from tests.system.netns import Host, Network
from tests.unit.engines.layer4.plans import TABLE, artifact_of

PATIENCE_S = 20.0
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
VIP, CLIENT, FRIEND, STRANGER = "10.8.0.100", "10.8.0.2", "10.8.0.3", "10.8.0.200"
VIP6, CLIENT6 = "fd00:8::100", "fd00:8::2"
NODES = {"a": "10.9.0.11", "b": "10.9.0.12"}
NODES6 = {"a": "fd00:9::11", "b": "fd00:9::12"}
SILENT = range(9000, 9100)  # ports that nodes drop: they neither answer nor refuse
_ETH_P = {4: 0x0800, 6: 0x86DD}  # linux/if_ether.h


def up(weight: int = 100) -> NodeState:
    return NodeState("up", weight)


DOWN, GONE = NodeState("down", 100), NodeState("down", 100, reachable=False)
DRAIN, DISABLED = NodeState("drain", 100), NodeState("disabled", 100)


def way_to(address: str) -> Way:
    return Way("eth1" if address.startswith(("10.8.", "fd00:8:")) else "eth0")


class Wire:
    """The network, and what was loaded last."""

    def __init__(self, network: Network) -> None:
        self.balancer = network.host("bal", "10.9.0.1", also=["fd00:9::1/64"])
        network.add_segment("clients")
        self.balancer.add_cable("eth1", "clients", "10.8.0.1/24", f"{VIP}/24", "fd00:8::1/64", f"{VIP6}/64")
        self.balancer.set_kernel(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        others = [f"{address}/24" for address in (FRIEND, STRANGER)]
        self.client = network.host("cli", CLIENT, segment="clients", also=[*others, f"{CLIENT6}/64"])
        self.client.ip("route", "add", "default", "via", "10.8.0.1")
        self.nodes = {name: self._node(network, name) for name in NODES}
        self._sniffers = {name: node.inside(_sniffer) for name, node in self.nodes.items()}
        self._raw = {version: self.client.inside(partial(_raw, version)) for version in (4, 6)}
        self.kernel = Kernel(TABLE)
        self.artifact = Artifact()
        self._held: dict[str, transaction.Filling] = {}

    def _node(self, network: Network, name: str) -> Host:
        node = network.host(name, NODES[name], also=[f"{NODES6[name]}/64"])
        node.ip("route", "add", "default", "via", "10.9.0.1")
        ports = f"{SILENT.start}-{SILENT.stop - 1}"
        node.must(
            "nft",
            "add table inet silent; add chain inet silent in { type filter hook input priority 0; };"
            f"add rule inet silent in tcp dport {ports} drop",
        )
        return node

    def close(self) -> None:
        for opened in (*self._sniffers.values(), *self._raw.values()):
            opened.close()

    # Rules

    def load(self, services: str) -> None:
        """Put a plan into force as the engine does, with what it leaves over removed."""
        self.artifact = artifact_of(services, way_to)
        self._held = self._fillings({}, {})
        found = self.balancer.inside(self.kernel.found)
        self.tell(transaction.structure(self.artifact, self._held, found))
        self.tell(transaction.leftovers(self.artifact, found))

    def clear(self) -> None:
        self.balancer.must("sh", "-c", "nft flush ruleset; conntrack -F 2>/dev/null || true")

    def set_nodes(self, connections: Mapping[str, int] | None = None, /, **states: NodeState) -> None:
        """Say what the nodes of every service are now; those that are not named are up."""
        before, self._held = self._held, self._fillings(states, connections or {})
        self.tell(transaction.nodes(self.artifact, before, self._held))
        for pool in self.artifact.pools:
            cut = [member.mark for member in pool.members if member.name in self._held[pool.service].cut]
            if pool.family == "inet" and cut:
                self.balancer.inside(partial(self.kernel.end, cut))

    def tell(self, text: str) -> None:
        self.balancer.inside(lambda: self.kernel.load(text))

    def _fillings(
        self, states: Mapping[str, NodeState], connections: Mapping[str, int]
    ) -> dict[str, transaction.Filling]:
        return {pool.service: Balance(pool, states).filling(connections, 0, 0.0) for pool in self.artifact.pools}

    def counts(self) -> Counts:
        def read() -> Counts:
            return self.kernel.counts(self.artifact.pools, self.kernel.found())

        return self.balancer.inside(read)

    def kept(self, family: str, name: str) -> list[int]:
        """Return how many seconds each entry of a map has left."""
        listed = json.loads(self.balancer.must("nft", "-j", "list", "map", family, TABLE, name))
        held = next(each["map"] for each in listed["nftables"] if "map" in each)
        return [key["elem"]["expires"] for key, _ in held.get("elem", [])]

    def live(self) -> dict[str, int]:
        """Return the live connections of each node of the one service."""
        (pool,) = self.artifact.pools
        counted = self.counts().live[pool.service]
        return {member.name: counted.get(member.mark, 0) for member in pool.members}

    # Packets

    def send(self, port: int, flags: int, *, to: int = 9000, source: str = CLIENT) -> str:
        """Send one packet to the address of the service; return who gets it, `a` or `b`, or `reset`."""
        target = VIP6 if ":" in source else VIP
        raw = self._raw[6 if ":" in source else 4]
        while select.select([raw, *self._sniffers.values()], [], [], 0)[0]:  # of earlier packets
            for opened in select.select([raw, *self._sniffers.values()], [], [], 0)[0]:
                opened.recv(65535)
        data = _tcp(source, target, port, to, flags)
        raw.sendmsg([data], _from(source), 0, (target, 0))
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            for opened in select.select([raw, *self._sniffers.values()], [], [], 1)[0]:
                if who := self._who(opened, opened.recv(65535), raw, port):
                    return who
        raise AssertionError(f"nobody got the packet from port {port}")

    def _who(self, opened: socket.socket, packet: bytes, raw: socket.socket, port: int) -> str | None:
        if opened is raw:
            tcp = packet if raw.family == socket.AF_INET6 else packet[(packet[0] & 15) * 4 :]
            own = struct.unpack_from(">H", tcp, 2)[0] == port
            return "reset" if own and tcp[13] & RST else None
        name = next(name for name, sniffer in self._sniffers.items() if sniffer is opened)
        version = packet[0] >> 4
        tcp = packet[(packet[0] & 15) * 4 :] if version == 4 else packet[40:]
        is_tcp = packet[9 if version == 4 else 6] == socket.IPPROTO_TCP
        return name if is_tcp and len(tcp) >= 20 and struct.unpack_from(">H", tcp)[0] == port else None


@contextmanager
def wire() -> Iterator[Wire]:
    with Network() as network:
        made = Wire(network)
        try:
            yield made
        finally:
            made.close()


def _sniffer() -> socket.socket:
    """Return what sees every IP packet that arrives here, without its Ethernet header."""
    return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # ETH_P_ALL


def _raw(version: int) -> socket.socket:
    return socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_TCP)


def _from(source: str) -> list[tuple[int, int, bytes]]:
    """Return what makes the kernel send from this address: ip(7) IP_PKTINFO, ipv6(7) IPV6_PKTINFO."""
    address = ip_address(source)
    if address.version == 4:
        return [(socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 0, address.packed, bytes(4)))]
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("=16sI", address.packed, 0))]


def _tcp(source: str, target: str, port: int, to: int, flags: int) -> bytes:
    """Return a TCP header without options: RFC 9293, section 3.1."""
    header = struct.pack(">HHIIBBHHH", port, to, 1000, 2000 if flags & ACK else 0, 5 << 4, flags, 65535, 0, 0)
    ends = ip_address(source).packed + ip_address(target).packed
    pseudo = ends + struct.pack(">HH" if len(ends) == 8 else ">II", *((6, 20) if len(ends) == 8 else (20, 6)))
    total = sum(struct.unpack(f">{len(pseudo + header) // 2}H", pseudo + header))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:16] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + header[18:]
