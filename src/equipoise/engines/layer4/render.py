"""What a plan means for the kernel.  Pure: the same plan gives the same rules.

A packet is looked up once, by address and port, and goes to the chain of its service: `render_direct.py` for `l4_dr`,
`render_translated.py` for `l4_nat`.  Source: docs/adr/0012-layer-4.md.
"""

from collections.abc import Iterable, Mapping, Sequence

from equipoise.engines.layer4 import conntrackd, render_direct, render_translated
from equipoise.engines.layer4.artifact import Artifact, Chain, Keyed, Member, Pool, Table
from equipoise.engines.layer4.marks import marks
from equipoise.engines.layer4.render_parts import persisted, remembers, tracked
from equipoise.engines.layer4.slots import slot_count
from equipoise.plan.model import ManagedAddress, Node, Plan, Service
from equipoise.plan.states import node_key
from equipoise.policy.catalogue import policies

DIRECT, TRANSLATED = "l4_dr", "l4_nat"


def render(plan: Plan, table: str) -> Artifact:
    """Return what the kernel is to do for the services of `plan` that it carries, in tables of this name."""
    carried = [service for service in plan.services if service.engine == "layer4" and service.nodes]
    if not carried:
        return Artifact(name=table)
    known = marks(plan, table)
    pools = {service.name: _pool(service, known) for service in carried}
    direct = [(service, pools[service.name]) for service in carried if service.mode == DIRECT]
    translated = [(service, pools[service.name]) for service in carried if service.mode == TRANSLATED]
    return Artifact(
        name=table,
        tables=tuple(table for table in (_direct(direct), _translated(translated)) if table is not None),
        pools=tuple(pools.values()),
        unreached=tuple(service.name for service, _ in direct if not service.layer4.interfaces),
        routed=tuple(
            (service.name, node.name, node.router) for service, _ in direct for node in service.nodes if node.router
        ),
        direct=tuple(
            (service.name, node.name, node.host) for service, _ in direct for node in service.nodes if node.host
        ),
        sources=tuple(
            (service.name, service.source_address)
            for service, _ in translated
            if service.source_address and service.source_address not in {each.host for each in plan.vips}
        ),
        interfaces=_interfaces(service for service, _ in direct),
        neighbours=_neighbours(service for service, _ in direct),
        forwards=tuple(sorted({render_translated.family(service) for service, _ in translated})),
        tracking=conntrackd.render(plan.cluster, [service for service, _ in translated]),
    )


def _pool(service: Service, known: Mapping[str, int]) -> Pool:
    return Pool(
        service=service.name,
        family="netdev" if service.mode == DIRECT else "inet",
        members=tuple(_member(service, node, known[node_key(service.name, node.name)]) for node in service.nodes),
        kind=policies()[service.balance],
        slow_start_s=service.slow_start_s,
        cut=service.on_down == "cut",
        slots=slot_count(service),
        flows=tracked(service) if service.mode == DIRECT else "",
        idle_s=service.layer4.idle_s,
        persists=persisted(service) if remembers(service) else "",
        ttl_s=service.persistence.ttl_s,
    )


def _member(service: Service, node: Node, mark: int) -> Member:
    return Member(
        name=node.name,
        mark=mark,
        weight=node.weight,
        backup=node.backup,
        max_connections=node.max_connections,
        serves=node.host is not None and (service.mode == TRANSLATED or node.interface is not None),
        seats=render_translated.seats(service, node),
    )


def _interfaces(services: Iterable[Service]) -> tuple[str, ...]:
    found: set[str] = set()
    for service in services:
        found |= {*service.layer4.interfaces, *(node.interface for node in service.nodes if node.interface)}
    return tuple(sorted(found))


def _neighbours(services: Iterable[Service]) -> tuple[ManagedAddress, ...]:
    return tuple(
        sorted(
            {
                ManagedAddress(node.host, node.interface)
                for service in services
                for node in service.nodes
                if node.host is not None and node.interface is not None
            }
        )
    )


def _direct(carried: Sequence[tuple[Service, Pool]]) -> Table | None:
    """Return the table of direct routing: packets are sent on where they come in, before anything else sees them."""
    if not carried:
        return None
    parts = [render_direct.service(service, pool) for service, pool in carried]
    doors = sorted({interface for service, _ in carried for interface in service.layer4.interfaces})
    arrivals = [
        Chain(
            f"arrive-{door}",
            # A switch that floods shows packets for the other machine of a pair here, too: that one sends them on.
            tuple(f"meta pkttype host {rule}" for rule in _by_service()),
            f'type filter hook ingress device "{door}" priority 0; policy accept;',
            door,
        )
        for door in doors
    ]
    return Table(
        family="netdev",
        keyed=(*_services([service for service, _ in carried]), *(each for part in parts for each in part.keyed)),
        counters=tuple(name for part in parts for name in part.counters),
        restarted=tuple(name for part in parts for name in part.restarted),
        chains=(*(chain for part in parts for chain in part.chains), *arrivals),
    )


def _translated(carried: Sequence[tuple[Service, Pool]]) -> Table | None:
    """Return the table of address translation."""
    if not carried:
        return None
    parts = [render_translated.service(service, pool) for service, pool in carried]
    return Table(
        family="inet",
        keyed=(
            *_services([service for service, _ in carried]),
            *render_translated.targets(carried),
            *(each for part in parts for each in part.keyed),
        ),
        counters=tuple(name for part in parts for name in part.counters),
        restarted=tuple(name for part in parts for name in part.restarted),
        chains=(*(chain for part in parts for chain in part.chains), *render_translated.base_chains(_by_service())),
    )


def _services(services: Sequence[Service]) -> tuple[Keyed, ...]:
    """Return the maps from address and port to the chain of a service."""
    found = []
    for family in ("ip", "ip6"):
        elements = tuple(
            f"{endpoint.host} . {endpoint.port} : goto from-{service.name}"
            for service in services
            for endpoint in service.listen
            if (":" in endpoint.host) == (family == "ip6")
        )
        found.append(Keyed("map", f"services-{family}", f"typeof {family} daddr . tcp dport : verdict;", elements))
    return tuple(found)


def _by_service() -> tuple[str, ...]:
    return tuple(f"{family} daddr . tcp dport vmap @services-{family}" for family in ("ip", "ip6"))
