"""Judge what a site asks of a machine: plan and facts in, findings out.  Pure."""

from collections import defaultdict
from collections.abc import Iterator

from equipoise.app.doctor.facts import FileLimit, Haproxy, Kernel, Listener, Lookup, Machine, Source, Surroundings
from equipoise.app.doctor.findings import Finding, fine, problem, warning
from equipoise.config.fields import numeric, split_port
from equipoise.engines.gateway.render import render
from equipoise.engines.gateway.room import room_for
from equipoise.plan.model import Plan, Service

_BIND_LOW_PORTS = 10  # CAP_NET_BIND_SERVICE of linux/capability.h
_ASSUMED_ASSOCIATIONS = 1000  # where the site sets no limit
_SLOW_LOOKUP_S = 0.5


def judge_site(plan: Plan, machine: Machine, found: Surroundings) -> Iterator[Finding]:
    """Yield what is to be said of this site on this machine."""
    yield from _listeners(found.listeners, machine)
    yield from _addresses(found.listeners, {address.host for address in plan.vips})
    yield from _taken_on_the_way(found.listeners, machine.kernel)
    moving = {address.host for address in plan.vips if plan.cluster is not None}
    for source in found.sources:
        if source.address not in moving:  # those that go to and fro are spoken of with the pair
            yield _source(source)
    if found.haproxy is not None:
        yield _haproxy(found.haproxy)
    yield from _files(plan, machine.files)
    yield from _ports_to_nodes(plan, machine.kernel)
    yield from _names(found.lookups)
    yield from _same_nodes(plan, found.lookups)


def _listeners(listeners: tuple[Listener, ...], machine: Machine) -> Iterator[Finding]:
    held = [listener for listener in listeners if listener.held]
    if held:
        yield fine("ports", f"{_listed(held)}: held by the running balancer")
    low = [listener for listener in listeners if _lacks_right(listener, machine)]
    if low:
        yield _rights(low, machine)
    for listener in listeners:
        if listener.refused is not None and listener not in low:
            seen, _, do = listener.refused.partition("; ")
            yield problem("ports", seen, do or "correct it, or choose another port")
    free = [each for each in listeners if not each.held and each.refused is None]
    if free:
        yield fine("ports", f"{_listed(free)}: free")


def _lacks_right(listener: Listener, machine: Machine) -> bool:
    low = listener.endpoint.port < machine.kernel.first_free_port
    return not listener.held and low and not machine.capabilities >> _BIND_LOW_PORTS & 1


def _rights(low: list[Listener], machine: Machine) -> Finding:
    seen = f"{_listed(low)}: {machine.user} lacks CAP_NET_BIND_SERVICE, the right to ports below "
    do = "the systemd unit in packaging/ grants it; else start as root, or choose higher ports"
    return warning("rights", f"{seen}{machine.kernel.first_free_port}", do)


def _addresses(listeners: tuple[Listener, ...], managed: set[str]) -> Iterator[Finding]:
    """Yield addresses that are not here; those that the balancer brings up itself need not be."""
    absent = sorted({each.endpoint.host for each in listeners if not each.local} - managed)
    if absent:
        do = "bring it up (`ip address add`); its services wait for it.  On a stand-by machine this is as it should be"
        yield warning("addresses", f"not on this machine: {', '.join(absent)}", do)
    elif listeners:
        yield fine("addresses", "all on this machine, or brought up by it" if managed else "all on this machine")


def _taken_on_the_way(listeners: tuple[Listener, ...], kernel: Kernel) -> Iterator[Finding]:
    """Yield ports that any outgoing connection may have taken when the balancer starts."""
    if kernel.local_ports is None:
        return
    first, last = kernel.local_ports
    ports = sorted({listener.endpoint.port for listener in listeners})
    open_to_all = [
        port for port in ports if first <= port <= last and not any(a <= port <= b for a, b in kernel.reserved_ports)
    ]
    if open_to_all:
        said = ",".join(map(str, open_to_all))
        do = f"add {said} to net.ipv4.ip_local_reserved_ports (`sysctl`), or choose a port outside of them"
        yield warning("ports", f"{said}: within {first} to {last}, from which outgoing connections take theirs", do)


def _source(source: Source) -> Finding:
    if source.local:
        return fine("source address", f"{source.address} is on this machine")
    do = f"bring it up, or correct {source.where}: until then no node can be called from it"
    return problem("source address", f"{source.address} is not on this machine", do)


def _haproxy(haproxy: Haproxy) -> Finding:
    if haproxy.missing:
        return problem("haproxy", haproxy.missing, haproxy.advice)
    return fine("haproxy", f"{haproxy.version}, {haproxy.path}")


def _files(plan: Plan, files: FileLimit) -> Iterator[Finding]:
    """Yield gateways with too few files for their services: the limit is that of each process."""
    gateways = _gateways(plan)
    rooms = [room_for(files.hard, sum(len(service.listen) for service in services)) for services in gateways]
    tight = [
        finding
        for services, room in zip(gateways, rooms, strict=True)
        if (finding := _too_few_files(services, room, files, alone=len(gateways) == 1)) is not None
    ]
    yield from tight or [fine("open files", _seen(files, min(rooms, default=room_for(files.hard, 0))))]


def _gateways(plan: Plan) -> list[list[Service]]:
    """Return the services of each gateway that has some."""
    services = {service.name: service for service in plan.services}
    return [[services[task.name] for task in tasks] for tasks in render(plan).workers if tasks]


def _seen(files: FileLimit, room: int) -> str:
    return f"{files.hard} open files for {files.whose}: room for {room} associations in a gateway, of two each"


def _too_few_files(services: list[Service], room: int, files: FileLimit, *, alone: bool) -> Finding | None:
    limits = [_most_associations(service) for service in services]
    known = sum(each for each in limits if each is not None)
    wanted = known + sum(
        max(_ASSUMED_ASSOCIATIONS, _of_its_nodes(service))
        for service, most in zip(services, limits, strict=True)
        if most is None
    )
    if room >= wanted:
        return None
    who = "the site wants" if alone else f"one has {', '.join(service.name for service in services)}, which want"
    what = f"{wanted}" if None not in limits else f"{wanted}, counting {_ASSUMED_ASSOCIATIONS} where it sets no limit"
    do = f"{who} {what}: raise LimitNOFILE of the unit (or `ulimit -Hn`), or lower max_connections"
    return (problem if room < known else warning)("open files", _seen(files, room), do)


def _most_associations(service: Service) -> int | None:
    """Return how many associations a service lets be open at once, or None where it does not say."""
    if service.max_connections is not None:
        return service.max_connections
    return None if any(node.max_connections is None for node in service.nodes) else _of_its_nodes(service)


def _of_its_nodes(service: Service) -> int:
    return sum(node.max_connections for node in service.nodes if node.max_connections is not None)


def _ports_to_nodes(plan: Plan, kernel: Kernel) -> Iterator[Finding]:
    """Yield nodes that may have more associations than there are ports to call them from."""
    if kernel.local_ports is None:
        return
    count = kernel.local_ports[1] - kernel.local_ports[0] + 1
    for service in plan.services:
        for node in service.nodes:
            if node.max_connections is not None and node.max_connections > count:
                seen = f"{service.name}/{node.name} may have {node.max_connections}, and {count} can call it"
                yield warning("outgoing ports", seen, "widen net.ipv4.ip_local_port_range, or lower max_connections")


def _names(lookups: tuple[Lookup, ...]) -> Iterator[Finding]:
    resolved = [lookup for lookup in lookups if lookup.addresses]
    for lookup in lookups:
        if lookup not in resolved:
            do = "correct it, add it to DNS or /etc/hosts, or write the IP address; until then the node takes no work"
            yield problem("names", f"{lookup.name}: {lookup.reason}", do)
        elif len(lookup.addresses) > 1:
            seen = f"{lookup.name} has {len(lookup.addresses)} addresses: {', '.join(lookup.addresses)}"
            do = "a node is one server: only one of them is called; write a node for each server, by its own address"
            yield warning("names", seen, do)
    if not resolved:
        return
    slowest = max(resolved, key=lambda lookup: lookup.took_s or 0.0)
    took_s = slowest.took_s or 0.0
    if took_s > _SLOW_LOOKUP_S:
        do = "look at the resolver (/etc/resolv.conf): one that is slow now is the first to fail; or write IP addresses"
        yield warning("names", f"{slowest.name} took {took_s:.1f} s", do)
    else:
        yield fine("names", f"{len(resolved)} resolve, the slowest in {took_s * 1000:.0f} ms")


def _same_nodes(plan: Plan, lookups: tuple[Lookup, ...]) -> Iterator[Finding]:
    """Yield nodes of one pool that are one and the same server under two names."""
    first_address = {lookup.name: lookup.addresses[0] for lookup in lookups if lookup.addresses}
    for service in plan.services:
        nodes = defaultdict(list)
        for node in service.nodes:
            host, port = split_port(node.address)
            address = host if numeric(host) is not None else first_address.get(host)
            if address is not None:
                nodes[address, port].append(node.name)
        for (address, _), names in nodes.items():
            if len(names) > 1:
                seen = f"{service.name}: {' and '.join(names)} are both {address}"
                yield warning("nodes", seen, "a pool that counts a server twice is smaller than it looks; correct one")


def _listed(listeners: list[Listener]) -> str:
    return ", ".join(str(listener.endpoint) for listener in listeners)
