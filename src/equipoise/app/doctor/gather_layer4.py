"""Look at what services in the kernel need: rights, nft, settings, and the nodes of direct routing.  Changes nothing.

Asks the segment who answers for a virtual address, and each node whether it takes packets for it; both need
CAP_NET_RAW, and are left out without it.

Source: the kernel's ip-sysctl (ip_forward, send_redirects, rp_filter); capabilities(7).
"""

import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TypeAlias

from equipoise.app.doctor.deadline import answers_within
from equipoise.app.doctor.facts import Lookup, Running
from equipoise.app.doctor.facts_layer4 import Claim, DirectNode, Layer4Facts
from equipoise.app.doctor.knocking import Door, knock
from equipoise.app.ways import find_ways
from equipoise.base.clock import Clock
from equipoise.base.errors import EngineError, EquipoiseError
from equipoise.base.rights import effective
from equipoise.config.fields import split_port
from equipoise.engines import nft
from equipoise.engines.addresses.interfaces import look
from equipoise.engines.addresses.segment import who_has
from equipoise.engines.sockets import is_local
from equipoise.plan.inputs import Way
from equipoise.plan.model import Endpoint, Node, Plan, Service

WhoHas: TypeAlias = Callable[[str, str, float], tuple[str, ...]]

NET_ADMIN, NET_RAW = 12, 13  # linux/capability.h
ASK_S = 1.5  # for one question on the segment; a machine that is well answers within a millisecond
_WITHIN_S = 6.0  # for all questions together
_DISCARD = 9  # the port that nothing is sent to
# What both kinds of tables rest on; the name is never taken, since nft only checks.
_DIRECT_RULES = """\
add table netdev equipoise-doctor
add chain netdev equipoise-doctor arrive {{ type filter hook ingress device "{interface}" priority 0; }}
add rule netdev equipoise-doctor arrive numgen inc mod 2 0 fwd ip to 192.0.2.1 device "{interface}"
add rule netdev equipoise-doctor arrive reject with tcp reset
"""
_TRANSLATING_RULES = """\
add table inet equipoise-doctor
add chain inet equipoise-doctor arrive { type nat hook prerouting priority dstnat; }
add rule inet equipoise-doctor arrive ct mark 1 dnat ip to 192.0.2.1
add chain inet equipoise-doctor leave { type nat hook postrouting priority srcnat; }
add rule inet equipoise-doctor leave ct mark 1 masquerade
"""


def gather_layer4(
    plan: Plan,
    running: Running | None,
    user: str,
    lookups: tuple[Lookup, ...],
    clock: Clock,
    *,
    who_has: WhoHas = who_has,
    proc: Path = Path("/proc"),
) -> Layer4Facts | None:
    """Return what a plan's services in the kernel find here; None where it has none."""
    services = [service for service in plan.services if service.engine == "layer4"]
    if not services:
        return None
    resolved = {lookup.name: lookup.addresses for lookup in lookups}
    addresses = sorted({endpoint.host for service in services for endpoint in service.listen})
    hosts = {_host(service, node, resolved) for service in services for node in service.nodes}
    ways = find_ways({*addresses, *(host for host in hosts if host is not None)})
    own = effective(proc / "self/status")
    acting = own if running is None else effective(proc / str(running.pid) / "status")
    may_change, may_ask = bool(acting >> NET_ADMIN & 1), bool(own >> NET_RAW & 1)
    facts = Layer4Facts(
        whose=user if running is None else "the running balancer",
        may_change=may_change,
        may_ask=may_ask,
        refused=_refused(services, ways) if own >> NET_ADMIN & 1 else None,
        absent=tuple(each for each in addresses if not is_local(each) and each not in _managed(plan)),
        forwarding={4: _flag(proc, "ipv4/ip_forward"), 6: _flag(proc, "ipv6/conf/all/forwarding")},
        redirecting=frozenset(_interfaces_with(proc, "send_redirects", "1")),
        strict=tuple(_interfaces_with(proc, "rp_filter", "1")),
        ways=ways,
        nodes=tuple(_direct_nodes(services, resolved, ways)),
        claims=(),
    )
    if not may_ask:
        return facts
    # The peer of a pair answers for what is not here; for what is, nobody else may.
    elsewhere = {
        each for each in addresses if plan.cluster is not None and each in _managed(plan) and not is_local(each)
    }
    return _asked(facts, services, elsewhere, who_has, clock)


def _managed(plan: Plan) -> set[str]:
    return {address.host for address in plan.vips}


def _host(service: Service, node: Node, resolved: Mapping[str, tuple[str, ...]]) -> str | None:
    if node.host is not None:
        return node.host
    of_its_kind = ":" in service.listen[0].host  # a service in the kernel is of one IP version
    found = resolved.get(split_port(node.address)[0], ())
    return next((address for address in found if (":" in address) == of_its_kind), None)


def _refused(services: list[Service], ways: Mapping[str, Way | None]) -> str:
    modes = {service.mode for service in services}
    interface = next((way.interface for way in ways.values() if way is not None), "lo")
    rules = _DIRECT_RULES.format(interface=interface) if "l4_dr" in modes else ""
    rules += _TRANSLATING_RULES if "l4_nat" in modes else ""
    try:
        nft.run(rules, only_check=True)
    except EngineError as error:
        return str(error)
    return ""


def _direct_nodes(
    services: list[Service], resolved: Mapping[str, tuple[str, ...]], ways: Mapping[str, Way | None]
) -> Iterator[DirectNode]:
    for service in services:
        for node in service.nodes if service.mode == "l4_dr" else ():
            host = _host(service, node, resolved)
            way = ways.get(host) if host is not None else None
            source = service.health.source_address or (_source(host) if host is not None else "")
            yield DirectNode(service.name, node.name, host, way, source)


# Settings


def _flag(proc: Path, name: str) -> bool | None:
    text = _setting(proc, name)
    return None if not text else text != "0"


def _interfaces_with(proc: Path, name: str, value: str) -> Iterator[str]:
    """Yield interfaces with a setting of IPv4 whose larger value, of theirs and of `all`, holds."""
    general = _setting(proc, f"ipv4/conf/all/{name}")
    for each in sorted((proc / "sys/net/ipv4/conf").glob("*")):
        if each.name in ("all", "default", "lo"):
            continue
        if max(general, _setting(proc, f"ipv4/conf/{each.name}/{name}")) == value:
            yield each.name


def _setting(proc: Path, name: str) -> str:
    with suppress(OSError):
        return (proc / "sys/net" / name).read_text().strip()
    return ""


# The segment


def _asked(
    facts: Layer4Facts, services: list[Service], elsewhere: Collection[str], who_has: WhoHas, clock: Clock
) -> Layer4Facts:
    """Return the facts with what the machines of the segment say."""
    listen = {service.name: service.listen for service in services}
    direct = {endpoint.host for service in services if service.mode == "l4_dr" for endpoint in service.listen}
    direct -= set(elsewhere)
    questions: dict[str, Callable[[], DirectNode | Claim | None]] = {
        node.key: partial(_looked_at, node, listen[node.service], who_has, clock) for node in facts.nodes
    }
    questions |= {each: partial(_claim, each, facts, who_has) for each in sorted(direct)}
    found = [answer.value for answer in answers_within(_WITHIN_S, questions, clock).values()]
    nodes = {each.key: each for each in found if isinstance(each, DirectNode)}
    claims = sorted((each for each in found if isinstance(each, Claim)), key=lambda claim: claim.address)
    return replace(facts, nodes=tuple(nodes.get(node.key, node) for node in facts.nodes), claims=tuple(claims))


def _claim(address: str, facts: Layer4Facts, who_has: WhoHas) -> Claim | None:
    """Return who answers for an address, on the segment where it is or else where its nodes are."""
    way = facts.ways.get(address) or next((node.way for node in facts.nodes if node.way is not None), None)
    if way is None:
        return None
    try:
        return Claim(address, who_has(way.interface, address, ASK_S))
    except (OSError, EquipoiseError):
        return None


def _looked_at(node: DirectNode, listen: tuple[Endpoint, ...], who_has: WhoHas, clock: Clock) -> DirectNode:
    way = node.way
    if node.host is None or way is None or way.router is not None:
        return node
    host = node.host
    try:
        node = replace(node, macs=(macs := who_has(way.interface, host, ASK_S)))
        own_address = _own_address(way.interface, host, {target.host for target in listen})
        if not macs or own_address is None:
            return node
        door = Door(way.interface, macs[0], own_address)
        knocks = tuple((target, knock(door, target, ASK_S, clock)) for target in listen)
    except (OSError, EquipoiseError):
        return node
    return replace(node, knocks=knocks)


def _own_address(interface: str, host: str, virtual: Collection[str]) -> str | None:
    """Return an address of this machine for a node to answer to, of its own network: none that the node has too."""
    usable = (held for held in look().held if held.interface == interface and not held.is_tentative)
    near = (held.host for held in usable if ip_address(host) in held.network.network)
    return next((each for each in near if each not in virtual), None)


def _source(host: str) -> str:
    """Return the address that the kernel calls a host from; empty where it finds none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((host, _DISCARD))
        return str(probe.getsockname()[0])
    return ""
