"""Rules of services that the kernel carries, packet by packet: what the modes `l4_dr` and `l4_nat` can do and cannot.

Leaves out what holds in every mode (`crosscheck.py`); the rules of what is read of a protocol (`suited.py`,
`suited_hl7.py`) do not apply, since nothing is read.  A key that would have no effect is refused.

Source: with direct routing (DR) a packet reaches the node with the port and address that the client wrote; one service
is one set of nftables maps, whose keys are of one IP family (nft(8), "ipv4_addr", "ipv6_addr").
"""

from collections.abc import Iterator, Mapping
from ipaddress import ip_network

from equipoise.config.fields import IpAddress, numeric, split_port
from equipoise.config.models import Node, Service, Site
from equipoise.config.suited import Finding

_NOT_READ = "the kernel passes packets on and reads nothing of what is said"
_NOT_HELD = "the kernel makes nobody wait and counts no connections of a service or a client"
_L7_KEYS: Mapping[str, str] = {
    "tls": "TLS goes through to the nodes, which have the certificates",
    "node_tls": "TLS goes through from the client as it is",
    "proxy_protocol": "connections go through, and nothing can be put before what the client says",
    "routes": _NOT_READ,
    "passive_health": _NOT_READ,
    "http": _NOT_READ,
    "dicom": _NOT_READ,
    "hl7": _NOT_READ,
    "queue_wait": _NOT_HELD,
    "max_connections": _NOT_HELD,
    "max_per_source": _NOT_HELD,
}


def unsuited_layer4(service: Service) -> Iterator[Finding]:
    """Yield every key of a service that is wrong beside its mode; of `l7_snat`, those of layer 4 alone."""
    yield from _masquerade(service)
    if not service.in_kernel:
        return
    yield from _of_layer7(service)
    yield from _timeouts(service)
    yield from _picked(service)
    yield from _kept(service)
    yield from _source(service)
    yield from _reached(service)
    yield from _one_family(service)
    if service.mode == "l4_dr":
        yield from _direct(service)


def unsuited_network(site: Site) -> Iterator[Finding]:
    """Yield what is wrong with the key `network`, and node names that two services need in two families."""
    yield from _addresses(site)
    yield from _interface(site)
    yield from _names_of_both_families(site)


def _masquerade(service: Service) -> Iterator[Finding]:
    if service.mode == "l4_nat" or "masquerade" not in service.model_fields_set:
        return
    if service.mode == "l4_dr":
        said = "has no effect in l4_dr, where nodes answer clients directly; take it out, or write `mode: l4_nat`"
    else:
        said = "has no effect in l7_snat, where nodes see this machine's address anyway; take it out"
    yield Finding(("masquerade",), said)


def _of_layer7(service: Service) -> Iterator[Finding]:
    for key, why in _L7_KEYS.items():
        if key in service.model_fields_set:
            said = f"has no effect in {service.mode}: {why}; take it out, or write `mode: l7_snat`"
            yield Finding((key,), said)


def _timeouts(service: Service) -> Iterator[Finding]:
    for key in sorted(service.timeouts.model_fields_set):
        if key != "idle":
            said = f"has no effect in {service.mode}: {_NOT_READ}; take it out, or write `mode: l7_snat`"
            yield Finding(("timeouts", key), said)
        elif service.mode == "l4_nat":
            said = (
                "has no effect in l4_nat: the kernel's connection tracking has a time of its own (the sysctl "
                "net.netfilter.nf_conntrack_tcp_timeout_established); take it out"
            )
            yield Finding(("timeouts", key), said)


def _picked(service: Service) -> Iterator[Finding]:
    if service.balance == "least_work":
        said = f"'least_work' weighs what DICOM associations move, unseen in {service.mode}; write least_connections"
        yield Finding(("balance",), said)


def _kept(service: Service) -> Iterator[Finding]:
    kept, by = service.persistence, service.known_by
    if by in ("cookie", "calling_ae"):
        said = f"{by!r} cannot be read in {service.mode}: {_NOT_READ}; use source_ip, or write `mode: l7_snat`"
        yield Finding(("persistence", "by"), said)
        return
    for key in ("fallback", "cookie", "same_site"):
        if key in kept.model_fields_set:
            said = f"has no effect in {service.mode}, where clients are known by {by}; take it out"
            yield Finding(("persistence", key), said)


def _source(service: Service) -> Iterator[Finding]:
    if service.source_address is None:
        return
    if service.mode == "l4_dr":
        said = (
            f"{service.source_address!r} has no effect in l4_dr: nodes see the client's own address; take it out, or "
            "write it as health.source_address for the checks"
        )
        yield Finding(("source_address",), said)
    elif not service.masquerade:
        said = (
            f"{service.source_address!r} has no effect in l4_nat without masquerade: nodes see the client's own "
            "address; add `masquerade: true`, or take it out"
        )
        yield Finding(("source_address",), said)


def _reached(service: Service) -> Iterator[Finding]:
    if not service.nodes:
        said = f"has no node, so there is nobody to pass packets to in {service.mode}; add a node"
        yield Finding(("nodes",), said)
    if not service.listen:
        said = f"missing: in {service.mode} clients come to an address, and no route leads here; add one"
        yield Finding(("listen",), said)
    for entry, text in enumerate(service.listen):
        address = numeric(split_port(text)[0])
        if address is not None and address.is_unspecified:
            said = (
                f"{text!r} means every address, and {service.mode} takes over whatever comes to its ports there, meant "
                "for it or not; write the addresses that clients call"
            )
            yield Finding(("listen", entry), said)
        if address is not None and address.is_loopback:
            said = (
                f"{text!r} is loopback, and {service.mode} carries only what comes in from a network; write an address "
                "that clients call, or `mode: l7_snat`"
            )
            yield Finding(("listen", entry), said)


def _one_family(service: Service) -> Iterator[Finding]:
    found = _family(service)
    for entry, text in enumerate(service.listen):
        address = numeric(split_port(text)[0])
        if found is not None and address is not None and address.version != found.version:
            said = (
                f"{text!r} is IPv{address.version}, and {str(found)!r} before it IPv{found.version}: in {service.mode} "
                "a service is of one family; make a second service for the other, with the nodes' addresses of that one"
            )
            yield Finding(("listen", entry), said)
    for name, node in service.nodes.items():
        address = numeric(split_port(node.address)[0])
        if found is not None and address is not None and address.version != found.version:
            said = (
                f"{node.address!r} is IPv{address.version}, and clients come to {str(found)!r}, IPv{found.version}: in "
                f"{service.mode} packets keep their family; write the node's IPv{found.version} address, or "
                "`mode: l7_snat`"
            )
            yield Finding(("nodes", name, "address"), said)
        if address is not None and address.is_loopback:
            said = (
                f"{node.address!r} is loopback, and {service.mode} sends clients' packets to other machines; write the "
                "server's own address, or `mode: l7_snat`"
            )
            yield Finding(("nodes", name, "address"), said)
    for entry, text in enumerate(service.allow_from):
        version = ip_network(text).version
        if found is not None and version != found.version:
            said = (
                f"{text!r} is IPv{version}, and clients come to {str(found)!r}, IPv{found.version}, so it lets nobody "
                "in; take it out"
            )
            yield Finding(("allow_from", entry), said)


def _family(service: Service) -> IpAddress | None:
    """Return the address whose family the service is of: the first one that clients come to."""
    return numeric(split_port(service.listen[0])[0]) if service.listen else None


def _direct(service: Service) -> Iterator[Finding]:
    """Yield what direct routing cannot do for the nodes."""
    taken: dict[str, str] = {}
    for name, node in service.nodes.items():
        host = split_port(node.address)[0].lower()
        yield from _direct_node(service, name, node)
        if host in taken:
            said = (
                f"{node.address!r} is the address of node {taken[host]!r} too: in l4_dr a node is a machine, whatever "
                "its port; take one of the two out and give the other the weight of both, or write `mode: l4_nat`"
            )
            yield Finding(("nodes", name, "address"), said)
        taken.setdefault(host, name)


def _direct_node(service: Service, name: str, node: Node) -> Iterator[Finding]:
    _, port = split_port(node.address)
    ports = sorted({listener.port for listener in service.listeners})
    if port is not None and ports and ports != [port]:
        said = (
            f"{node.address!r} names the port {port}, and clients come to {', '.join(map(str, ports))}: l4_dr leaves "
            f"ports as they are; write the address alone, or {port} as the only one of ports, or `mode: l4_nat`, which "
            "translates ports"
        )
        yield Finding(("nodes", name, "address"), said)
    if node.max_connections is not None:
        said = (
            f"{node.max_connections} cannot be held in l4_dr, where the ends of connections do not pass here; take it "
            "out, or write `mode: l4_nat` or `mode: l7_snat`"
        )
        yield Finding(("nodes", name, "max_connections"), said)


def _addresses(site: Site) -> Iterator[Finding]:
    listeners = (listener for service in site.services.values() for listener in service.listeners)
    if site.network.manage_addresses and not any(is_manageable(listener.host) for listener in listeners):
        said = (
            "'true' leaves nothing to do: no service listens on an address that can be put on an interface (0.0.0.0, "
            "'::' and loopback addresses cannot); write the address that clients call in listen, or take this out"
        )
        yield Finding(("network", "manage_addresses"), said)


def is_manageable(host: str) -> bool:
    """Return whether an address in `listen` can be brought up by a balancer: not all of them, and not loopback."""
    address = numeric(host)
    return address is not None and not address.is_unspecified and not address.is_loopback


def _interface(site: Site) -> Iterator[Finding]:
    direct = any(service.mode == "l4_dr" for service in site.services.values())
    heeded = site.network.manage_addresses or site.cluster is not None or direct
    if site.network.interface and not heeded:
        said = (
            "has no effect: manage_addresses is off, there is no cluster, and no service has `mode: l4_dr`; take it "
            "out, or add one of them"
        )
        yield Finding(("network", "interface"), said)
    if "lo" in site.network.interface:
        yield Finding(("network", "interface"), "'lo' is loopback, where no client comes in; name one that has a cable")


def _names_of_both_families(site: Site) -> Iterator[Finding]:
    """Yield host names of nodes that stand in an IPv4 and an IPv6 service: a name is looked up once, for all."""
    owners: dict[str, tuple[str, int]] = {}
    for name, service in site.services.items():
        family = _family(service) if service.in_kernel else None
        for node_name, node in service.nodes.items() if family is not None else ():
            host = split_port(node.address)[0]
            owner, version = owners.setdefault(host, (name, family.version if family else 0))
            if numeric(host) is None and family is not None and version != family.version:
                said = (
                    f"{node.address!r} stands for one address, and service {owner!r} needs an IPv{version} one, this "
                    f"service an IPv{family.version} one; write the IP address in one of the two"
                )
                yield Finding(("services", name, "nodes", node_name, "address"), said)
