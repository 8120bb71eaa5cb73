"""The rules of one service in `l4_nat`: connection tracking changes addresses on the way to the node, and back.

The first packet of a connection gets a mark, which stays with the connection and names its node; all else follows from
it.  The kernel's connection tracking remembers and ends connections.  Source: docs/adr/0012-layer-4.md.
"""

from collections.abc import Sequence

from equipoise.engines.layer4.artifact import Chain, Keyed, Member, Pool
from equipoise.engines.layer4.marks import MASK, PREFIX
from equipoise.engines.layer4.render_parts import (
    FIRST_PACKET,
    LAST_PACKETS,
    RESET,
    Part,
    choice,
    client,
    family,
    objects,
    persisted,
    remembers,
    seconds,
    strangers,
)
from equipoise.plan.model import Node, Service

__all__ = ["base_chains", "family", "seats", "service", "targets"]

_OPENING_S = 120.0  # as long as connection tracking waits for an answer (nf_conntrack_tcp_timeout_syn_sent)
_SEATED_S = 8100.0  # TCP's keepalive speaks after 2 h 11 min


def service(service: Service, pool: Pool) -> Part:
    """Return what a service adds to the table of address translation."""
    name = service.name
    return Part(
        keyed=(*objects(service, "ct mark"), Keyed("set", f"able-{name}", "typeof ct mark;"), *_seats(pool)),
        counters=(
            f"lost-{name}",
            *(f"{way}-{name}/{node.name}" for node in service.nodes for way in ("in", "out")),
        ),
        restarted=(f"picks-{name}",),
        chains=(
            *(
                chain
                for node, member in zip(service.nodes, pool.members, strict=True)
                for chain in _node(service, node, member)
            ),
            _lost(service, pool),
            Chain(f"from-{name}", _new(service, pool)),
        ),
    )


def _new(service: Service, pool: Pool) -> tuple[str, ...]:
    """Return the rules for the first packet of a connection; a node at its limit returns it, and the next is tried."""
    name, admit = service.name, f"ct mark vmap @ways-{service.name}"
    rules = [*strangers(service), f"{FIRST_PACKET.replace('==', '!=')} goto lost-{name}"]
    if remembers(service):
        kept = persisted(service)
        rules += [
            f"ct mark set {client(service)} map @{kept} ct mark @takes-{name} {admit}",
            f"delete @{kept} {{ {client(service)} : ct mark }}",  # `update` would leave the mark as it was
        ]
    rules.append(f"counter name picks-{name} ct mark set {choice(service, pool)} {admit}")
    if any(member.seats for member in pool.members):  # where that one had no seat left: any other, backups last
        in_order = sorted(pool.members, key=lambda member: member.backup)
        rules += [f"ct mark set {member.mark:#x} ct mark @able-{name} {admit}" for member in in_order]
    return (*rules, RESET)


def seats(service: Service, node: Node) -> str:
    """Return the name of the set that has a place for each connection of a node with a limit.

    The limit is the set's size, and a part of its name, since a set that exists keeps its size.
    """
    return f"seats-{node.max_connections}-{service.name}/{node.name}" if node.max_connections else ""


def _seats(pool: Pool) -> tuple[Keyed, ...]:
    return tuple(
        Keyed("set", member.seats, f"typeof ct id; size {member.max_connections}; flags dynamic,timeout;")
        for member in pool.members
        if member.seats
    )


def _node(service: Service, node: Node, member: Member) -> tuple[Chain, ...]:
    """Return the chains that admit a connection to a node, and that count what passes.

    A connection takes a seat with its first packet and keeps it while it speaks; a node that has none left returns it.
    `ct count` would do with less, but goes on counting a connection that went to another node.
    """
    name, admit, seat = f"{service.name}/{node.name}", [], f"@{member.seats}"
    if remembers(service):
        ttl = seconds(service.persistence.ttl_s)
        admit.append(f"update @{persisted(service)} {{ {client(service)} timeout {ttl} : ct mark }}")
    admit.append("accept")
    if not member.seats:
        return (Chain(f"to-{name}", tuple(admit)), *(_count(way, name) for way in ("in", "out")))
    take = f"update {seat} {{ ct id timeout {seconds(_OPENING_S)} }} goto sit-{name}"
    leave = f"{LAST_PACKETS} delete {seat} {{ ct id }}"
    stay = f"ct state established ct id {seat} update {seat} {{ ct id timeout {seconds(_SEATED_S)} }}"
    return (
        Chain(f"sit-{name}", tuple(admit)),
        Chain(f"to-{name}", (take, "return")),
        *(_count(way, name, leave, stay) for way in ("in", "out")),
    )


def _count(way: str, name: str, *rules: str) -> Chain:
    return Chain(f"{way}-{name}", (f"counter name {way}-{name}", *rules))


def _lost(service: Service, pool: Pool) -> Chain:
    """Return the chain for a connection whose beginning was not seen here: another balancer may have carried it."""
    name, rules = service.name, []
    if remembers(service):
        rules.append(f"ct mark set {client(service)} map @{persisted(service)} ct mark @holds-{name} accept")
    if pool.kind.pins:
        rules.append(f"ct mark set {choice(service, pool)} accept")
    return Chain(f"lost-{name}", (*rules, f"counter name lost-{name} {RESET}"))


def targets(carried: Sequence[tuple[Service, Pool]]) -> tuple[Keyed, ...]:
    """Return the maps from a mark to what the address is changed to, and who passes how often."""
    known = [
        (service, node, member)
        for service, pool in carried
        for node, member in zip(service.nodes, pool.members, strict=True)
        if node.host is not None
    ]
    found = []
    for protocol in ("ip", "ip6"):
        own = [each for each in known if family(each[0]) == protocol]
        address = "ipv4_addr" if protocol == "ip" else "ipv6_addr"
        with_port = tuple(f"{member.mark:#x} : {node.host} . {node.port}" for _, node, member in own if node.port)
        without = tuple(f"{member.mark:#x} : {node.host}" for _, node, member in own if not node.port)
        sources = tuple(
            f"{member.mark:#x} : {service.source_address}" for service, _, member in own if service.source_address
        )
        found += [
            Keyed("map", f"targets-{protocol}", f"type mark : {address} . inet_service;", with_port),
            Keyed("map", f"hosts-{protocol}", f"type mark : {address};", without),
            Keyed("map", f"sources-{protocol}", f"type mark : {address};", sources),
        ]
    hidden = [member for service, _, member in known if service.layer4.masquerade and not service.source_address]
    counted = [
        f"{member.mark:#x} . {direction} : goto {way}-{service.name}/{node.name}"
        for service, node, member in known
        for direction, way in (("original", "in"), ("reply", "out"))
    ]
    found.append(Keyed("set", "masqueraded", "type mark;", tuple(f"{member.mark:#x}" for member in hidden)))
    found.append(Keyed("map", "counted", "typeof ct mark . ct direction : verdict;", tuple(counted)))
    return tuple(found)


def base_chains(by_service: tuple[str, ...]) -> tuple[Chain, ...]:
    """Return the chains that the kernel calls; `by_service` are the rules that find a packet's service."""
    unseen = f"ct state new ct mark & {MASK:#010x} != {PREFIX:#010x}"  # else it is sent again, and has its node
    return (
        Chain(
            "arrive",
            tuple(f"{unseen} {rule}" for rule in by_service),
            "type filter hook prerouting priority mangle; policy accept;",
        ),
        Chain(
            "change-target",
            tuple(
                f"meta nfproto {nfproto} meta l4proto tcp dnat {protocol} to ct mark map @{found}-{protocol}"
                for protocol, nfproto in (("ip", "ipv4"), ("ip6", "ipv6"))
                for found in ("targets", "hosts")
            ),
            "type nat hook prerouting priority dstnat; policy accept;",
        ),
        Chain(
            "change-source",
            (
                "ct mark @masqueraded masquerade",
                *(
                    f"meta nfproto {nfproto} snat {protocol} to ct mark map @sources-{protocol}"
                    for protocol, nfproto in (("ip", "ipv4"), ("ip6", "ipv6"))
                ),
            ),
            "type nat hook postrouting priority srcnat; policy accept;",
        ),
        Chain(
            "pass",
            ("ct mark . ct direction vmap @counted",),
            "type filter hook forward priority filter; policy accept;",
        ),
    )
