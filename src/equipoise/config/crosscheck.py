"""Rules between keys, on a site whose keys are right one by one.

Leaves out what needs the machine or the network: whether an address is here, a name resolves, a port may be opened.
Each finding has the path of the value that is easiest to change.
"""

from collections.abc import Collection, Iterator

from equipoise.base.units import format_duration
from equipoise.config.base import CheckParams
from equipoise.config.dicom import Route
from equipoise.config.fields import IpAddress, numeric, split_port
from equipoise.config.models import Listener, Service, Site
from equipoise.config.suited import Finding, unsuited
from equipoise.config.suited_cluster import unsuited_cluster
from equipoise.config.suited_hl7 import unsuited_hl7
from equipoise.config.suited_layer4 import unsuited_layer4, unsuited_network
from equipoise.config.words import nearest

# Checks of one node never overlap: a timeout longer than the interval delays the next one, ten times make it a fiction.
MOST_INTERVALS_IN_TIMEOUT = 10
SHORTEST_INTERVAL_S = 0.1  # a node must not be worn out by its checks
LONGEST_INTERVAL_S = 3600.0


def findings(site: Site, written: Collection[str] = ()) -> Iterator[Finding]:
    """Yield every rule between keys that the site breaks.

    Args:
        site: What is checked.
        written: Names of services that the document has beside these; they are wrong in themselves.
    """
    yield from _ports_used_twice(site)
    yield from _routes(site, written)
    yield from _mixed_ports(site)
    yield from _loops(site)
    yield from unsuited_network(site)
    yield from unsuited_cluster(site)
    for name, service in site.services.items():
        for finding in _service(service):
            yield Finding(("services", name, *finding.path), finding.message)


def _service(service: Service) -> Iterator[Finding]:
    yield from unsuited_layer4(service)
    yield from _needless_ports(service)
    yield from _portless(service)
    yield from _pool(service)
    yield from _health(service)
    yield from _families(service)
    if not service.in_kernel:  # which reads nothing: its keys of layer 7 are refused as they are
        yield from unsuited(service)
        yield from unsuited_hl7(service)
        yield from _tls(service)
        yield from _setup(service)


def _ports_used_twice(site: Site) -> Iterator[Finding]:
    taken: dict[int, list[tuple[str, Listener]]] = {}
    for name, service in site.services.items():
        for listener in service.listeners:
            others = taken.setdefault(listener.port, [])
            clash = next(((owner, other) for owner, other in others if _same_place(listener.host, other.host)), None)
            others.append((name, listener))
            if clash is not None:
                owner, other = clash
                whose = "this service already" if owner == name else f"service {owner!r}"
                yield Finding(
                    ("services", name, "listen", listener.entry),
                    f"port {listener.port} of {listener.host} is taken by {whose}, which listens on {other.host}:"
                    f" give one of them another address or port",
                )


def _same_place(one: str, other: str) -> bool:
    """Say whether two addresses share sockets; `::` takes IPv6 alone, so it leaves room for IPv4."""
    if one == other:
        return True
    first, second = numeric(one), numeric(other)
    if first is None or second is None or first.version != second.version:
        return False
    return first.is_unspecified or second.is_unspecified


def _needless_ports(service: Service) -> Iterator[Finding]:
    if "ports" in service.model_fields_set and not service.listen:
        yield Finding(("ports",), "has no effect: the service has no address; take it out, or add listen")
    elif "ports" in service.model_fields_set and all(split_port(text)[1] for text in service.listen):
        yield Finding(("ports",), "has no effect: every address of listen names its port; take one of the two out")


def _portless(service: Service) -> Iterator[Finding]:
    for entry, text in enumerate(service.listen):
        if split_port(text)[1] is None and not service.default_ports:
            said = f"{text!r} names no port, and {service.protocol} has no usual one; write ports, or ADDRESS:PORT"
            yield Finding(("listen", entry), said)


def _pool(service: Service) -> Iterator[Finding]:
    if not service.nodes and not service.routes and not service.in_kernel:
        yield Finding(("nodes",), "has no node and no routes, so it can serve nobody; add a node")
    elif service.nodes and all(node.backup for node in service.nodes.values()):
        yield Finding(("nodes",), "all nodes are backups, so nothing is backed up; leave backup out for at least one")


def _routes(site: Site, written: Collection[str]) -> Iterator[Finding]:
    targets = {route.to for service in site.services.values() for route in service.routes}
    for name, service in site.services.items():
        if service.in_kernel:  # it has no use for routes, and none leads to it
            continue
        for number, route in enumerate(service.routes):
            if route.to in written and route.to not in site.services:
                continue
            for key, message in _route(site, service, route):
                yield Finding(("services", name, "routes", number, *key), message)
        if not service.listen and name not in targets and not written:
            message = "missing: nobody can reach this service; add an address, or a route of another service to it"
            yield Finding(("services", name, "listen"), message)


def _route(site: Site, service: Service, route: Route) -> Iterator[tuple[tuple[str, ...], str]]:
    target = site.services.get(route.to)
    if target is None:
        yield ("to",), f"there is no service {route.to!r}; {nearest(route.to, site.services)}"
    elif target.protocol != service.protocol:
        yield ("to",), f"the service {route.to!r} speaks {target.protocol}, and this one {service.protocol}"
    elif target.in_kernel:
        message = (
            f"the kernel carries the service {route.to!r} ({target.mode}), packet by packet, and an association that "
            "was read here cannot be handed to it; write `mode: l7_snat` there, or lead to a service of its own with "
            "the same nodes"
        )
        yield ("to",), message
    elif not target.nodes:
        yield ("to",), f"the service {route.to!r} has no nodes; name one that has, since routes do not lead on"
    elif _asks_everybody(target) and not _asks_everybody(service):
        message = (
            f"{route.to!r} lets in only clients with a certificate (tls.client_ca), and this service others too: the "
            "route leads around that; set tls.client_ca here for all ports, or lead to a service without listen"
        )
        yield ("to",), message
    if not (route.called_ae or route.calling_ae or route.service or route.from_):
        yield (), "has no condition; add called_ae, calling_ae, service or from, or leave the route out"


def _tls(service: Service) -> Iterator[Finding]:
    ports = {listener.port for listener in service.listeners}
    for number in service.tls.ports if service.tls else ():
        if number not in ports:
            said = ", ".join(map(str, sorted(ports))) or "none"
            yield Finding(("tls", "ports"), f"{number} is not a port of this service, which has {said}")
    if service.tls and not service.listen:
        yield Finding(("tls",), "has no effect: the service has no address; put it where the clients arrive")
    if service.tls and service.tls.client_names and not service.tls.client_ca:
        yield Finding(("tls", "client_names"), "clients are asked for no certificate; add client_ca")
    yield from _node_tls(service)
    if service.proxy_protocol.accept and not service.allow_from:
        yield Finding(
            ("proxy_protocol", "accept"),
            "anybody could claim to be anyone; write the outer balancer's address into allow_from",
        )


def _node_tls(service: Service) -> Iterator[Finding]:
    tls = service.node_tls
    if tls is None:
        return
    if tls.key and not tls.cert:
        yield Finding(("node_tls", "key"), "belongs to a certificate; add cert, or leave the key out")
    if tls.verify == "authority" and not tls.ca:
        yield Finding(
            ("node_tls", "verify"),
            "'authority' without ca lets in whoever has a certificate of any public authority; add ca, or write name",
        )
    for key in ("ca", "server_name") if tls.verify == "none" else ():
        if getattr(tls, key):
            yield Finding(("node_tls", key), "has no effect with verify: none; take one of the two out")


def _asks_everybody(service: Service) -> bool:
    """Return whether nobody comes in without a certificate."""
    return bool(service.tls and service.tls.client_ca and service.listen and not _plain_ports(service))


def _plain_ports(service: Service) -> set[int]:
    """Return the ports that stay plain beside those that speak TLS."""
    ports, secured = {listener.port for listener in service.listeners}, set(service.tls.ports if service.tls else ())
    return ports - secured if ports & secured else set()


def _mixed_ports(site: Site) -> Iterator[Finding]:
    """Yield nodes that are called at the port that the client came to, where that says how the client speaks."""
    for name, service in site.services.items():
        if not _plain_ports(service):
            continue
        for pool in dict.fromkeys((name, *(route.to for route in service.routes if route.to in site.services))):
            for node_name, node in site.services[pool].nodes.items():
                if split_port(node.address)[1] is None:
                    yield Finding(
                        ("services", pool, "nodes", node_name, "address"),
                        f"{node.address!r} names no port, so it is called at the one that the client came to, and of "
                        f"those of {name!r} some speak TLS and some do not (tls.ports); write ADDRESS:PORT",
                    )


def _loops(site: Site) -> Iterator[Finding]:
    """Yield nodes that are this balancer: through routes, one association could call itself until nothing is left."""
    listeners = [(name, listener) for name, service in site.services.items() for listener in service.listeners]
    for name, service in site.services.items():
        called = _ports_called(site, name)
        for node_name, node in service.nodes.items():
            host, port = split_port(node.address)
            ports = called if port is None else {port}
            owners = [owner for owner, at in listeners if at.port in ports and _calls(host, at.host)]
            if owners:
                message = _loop(node.address, name if name in owners else owners[0], name)
                yield Finding(("services", name, "nodes", node_name, "address"), message)


def _ports_called(site: Site, pool: str) -> set[int]:
    """Return the ports at which a node without a port is called: all that clients of its pool come to."""
    doors = [
        service
        for name, service in site.services.items()
        if name == pool or any(route.to == pool for route in service.routes)
    ]
    return {listener.port for door in doors for listener in door.listeners}


def _loop(address: str, owner: str, name: str) -> str:
    if owner == name:
        return f"{address!r} is where this service itself listens, a loop; write the real server's address"
    return (
        f"{address!r} is where service {owner!r} listens, a loop or a detour; write the real server's address, "
        "or a route to that service"
    )


def _calls(host: str, listener: str) -> bool:
    if host == listener:
        return True
    address, own = numeric(host), numeric(listener)
    if address is None or own is None or not own.is_unspecified:
        return False
    return address.is_loopback and address.version == own.version


def _health(service: Service) -> Iterator[Finding]:
    health: CheckParams = service.health
    for name, node in service.nodes.items():
        portless = split_port(node.address)[1] is None
        if portless and not service.listen and not service.in_kernel and not health.port:
            message = f"{node.address!r} names no port, and this service has none of its own; write ADDRESS:PORT"
            yield Finding(("nodes", name, "address"), message)
    if not SHORTEST_INTERVAL_S <= health.interval <= LONGEST_INTERVAL_S:
        yield Finding(
            ("health", "interval"),
            f"{format_duration(health.interval)} is out of range; write {format_duration(SHORTEST_INTERVAL_S)} to "
            f"{format_duration(LONGEST_INTERVAL_S)}",
        )
    longest_s = MOST_INTERVALS_IN_TIMEOUT * health.interval
    if "timeout" in health.model_fields_set and health.timeout > longest_s:
        yield Finding(
            ("health", "timeout"),
            f"{format_duration(health.timeout)} is more than {MOST_INTERVALS_IN_TIMEOUT} times the interval of "
            f"{format_duration(health.interval)}; write at most {format_duration(longest_s)}, or a longer interval",
        )


def _setup(service: Service) -> Iterator[Finding]:
    dicom = service.dicom
    if "setup_timeout" in dicom.model_fields_set and dicom.setup_timeout < dicom.connect_timeout:
        yield Finding(
            ("dicom", "setup_timeout"),
            f"{format_duration(dicom.setup_timeout)} is shorter than connect_timeout, "
            f"{format_duration(dicom.connect_timeout)}, so no second node is ever tried; make it longer",
        )


def _families(service: Service) -> Iterator[Finding]:
    sources = (
        (("source_address",), service.source_address),
        (("health", "source_address"), service.health.source_address),
    )
    nodes = {name: numeric(split_port(node.address)[0]) for name, node in service.nodes.items()}
    for path, text in sources:
        source = numeric(text) if text else None
        wrong = [name for name, address in nodes.items() if source and address and _differ(source, address)]
        if source and wrong:
            yield Finding(
                path,
                f"{text!r} is IPv{source.version}, the node {wrong[0]!r} is not, so it cannot be called from there; "
                "leave it out or give each family a service of its own",
            )


def _differ(source: IpAddress, address: IpAddress) -> bool:
    return source.version != address.version
