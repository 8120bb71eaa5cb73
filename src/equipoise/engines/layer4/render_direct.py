"""The rules of one service in `l4_dr`: its packets go on to a node as they are; the node answers the client by itself.

A flow is remembered from its first packet: for a minute, until the client's second packet shows that it was answered,
then for as long as it may be silent.  A client that ends its side moves the flow to `closing`: what is in `flows` are
live connections, and can be counted.  Of a flow in neither, only persistence or the hash know the node, where another
machine has carried it so far; where they do not, it is reset at once.

Kept short where every packet passes: known flows take one look at `flows`, and one that renews its time.
Source: docs/adr/0012-layer-4.md.
"""

from equipoise.engines.layer4.artifact import Chain, Keyed, Pool
from equipoise.engines.layer4.render_parts import (
    FIRST_PACKET,
    HASH_SEED,
    LAST_PACKETS,
    RESET,
    Part,
    by_address,
    choice,
    client,
    family,
    objects,
    persisted,
    remembers,
    seconds,
    strangers,
    tracked,
)
from equipoise.plan.model import Node, Service

FLOWS = 1 << 20  # at most, a service; about 150 bytes of the kernel's memory each
_OPENING_S = 60.0  # a client that is not answered sends its first packet again in less
_CLOSING_S = 300.0  # after the last packet of a client that ended its side, and may await much of the other


def service(service: Service, pool: Pool) -> Part:
    """Return what a service adds to the table of direct routing."""
    name = service.name
    spec = f"typeof {_flow(service)} : meta mark; size {FLOWS}; flags dynamic,timeout;"
    return Part(
        keyed=(
            Keyed("map", tracked(service), spec),
            Keyed("map", by_address("closing", service), spec),
            *objects(service, "meta mark"),
        ),
        counters=(f"full-{name}", f"lost-{name}", *(f"in-{name}/{node.name}" for node in service.nodes)),
        restarted=(f"picks-{name}",),
        chains=(*(_node(service, node) for node in service.nodes), *_chains(service, pool)),
    )


def _flow(service: Service) -> str:
    """Return the key of a flow.

    nft 1.0.6 takes at most 128 bits where a rule writes to a map, so both addresses of IPv6 with both ports are taken
    by two hashes of 32 bits: with a million flows, one in a million shares its entry with another.
    """
    protocol = family(service)
    whole = f"{protocol} saddr . tcp sport . {protocol} daddr . tcp dport"
    if protocol == "ip":
        return whole
    return " . ".join(f"jhash {whole} mod 4294967295 seed {seed:#x}" for seed in (HASH_SEED, HASH_SEED + 1))


def _node(service: Service, node: Node) -> Chain:
    """Return the chain that sends a packet to a node; the kernel's own table of neighbours knows its address there."""
    name = f"to-{service.name}/{node.name}"
    if node.host is None or node.interface is None:
        return Chain(name, (RESET,))
    way = f'fwd {family(service)} to {node.host} device "{node.interface}"'
    return Chain(name, (f"counter name in-{service.name}/{node.name} {way}",), interface=node.interface)


def _chains(service: Service, pool: Pool) -> tuple[Chain, ...]:
    name, flow = service.name, _flow(service)
    flows, closing = tracked(service), by_address("closing", service)
    known = f"meta mark set {flow} map @{flows}"
    ending = f"meta mark set {flow} map @{closing}"
    idle, opening, over = (seconds(each) for each in (service.layer4.idle_s, _OPENING_S, _CLOSING_S))
    go_on = f"update @{flows} {{ {flow} timeout {idle} : meta mark }} goto way-{name}"
    way = (f"meta mark vmap @ways-{name}", f"delete @{flows} {{ {flow} : meta mark }}", RESET)
    return (
        Chain(f"way-{name}", way),
        Chain(f"cut-{name}", (f"delete @{flows} {{ {flow} : meta mark }}", RESET)),
        Chain(
            f"open-{name}",
            (
                f"update @{flows} {{ {flow} timeout {opening} : meta mark }} goto way-{name}",
                f"counter name full-{name} {RESET}",
            ),
        ),
        *_picks(service, pool, flow),
        Chain(
            f"first-{name}",
            # Sent again, since its answer was lost: it must find its first node, unless that is gone.
            (f"{known} meta mark @holds-{name} goto open-{name}", f"goto pick-{name}"),
        ),
        Chain(
            f"end-{name}",
            (
                f"delete @{flows} {{ {flow} : meta mark }}",
                f"update @{closing} {{ {flow} timeout {over} : meta mark }}",
                f"goto way-{name}",
            ),
        ),
        Chain(
            f"last-{name}",
            (f"{known} goto end-{name}", f"{ending} goto end-{name}", *_unknown(service, pool, f"goto end-{name}")),
        ),
        Chain(
            f"from-{name}",
            (
                f"{FIRST_PACKET} goto first-{name}",
                f"{LAST_PACKETS} goto last-{name}",
                f"{known} {go_on}",
                f"{ending} goto end-{name}",
                *_unknown(service, pool, f"goto open-{name}"),
            ),
        ),
    )


def _picks(service: Service, pool: Pool, flow: str) -> tuple[Chain, ...]:
    """Return the chains that find a node for a new flow: the client's own while it takes work, else the next slot's."""
    name, then = service.name, f"open-{service.name}"
    flows, closing = tracked(service), by_address("closing", service)
    found: list[Chain] = []
    pick = [
        *strangers(service),
        f"delete @{closing} {{ {flow} : meta mark }}",  # of an earlier flow, same ports
        f"delete @{flows} {{ {flow} : meta mark }}",  # of a node that is gone: `update` leaves the mark as it was
    ]
    if remembers(service):
        kept, ttl = persisted(service), seconds(service.persistence.ttl_s)
        keep = f"update @{kept} {{ {client(service)} timeout {ttl} : meta mark }}"
        found.append(Chain(f"keep-{name}", (keep, f"goto {then}")))
        then = f"keep-{name}"
        pick += [
            f"meta mark set {client(service)} map @{kept} meta mark @takes-{name} goto {then}",
            f"delete @{kept} {{ {client(service)} : meta mark }}",
        ]
    pick += [f"counter name picks-{name} meta mark set {choice(service, pool)} goto {then}", RESET]
    return (*found, Chain(f"pick-{name}", tuple(pick)))


def _unknown(service: Service, pool: Pool, then: str) -> tuple[str, ...]:
    """Return the rules for a flow that is not known here: a balancer that was asked before may have known it."""
    rules = []
    if remembers(service):
        rules.append(f"meta mark set {client(service)} map @{persisted(service)} {then}")
    if pool.kind.pins:
        rules.append(f"meta mark set {choice(service, pool)} {then}")
    return (*(strangers(service) if rules else ()), *rules, f"counter name lost-{service.name} {RESET}")
