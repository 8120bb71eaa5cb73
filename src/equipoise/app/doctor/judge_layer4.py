"""Judge what services in the kernel find on this machine and around it: plan and facts in, findings out.  Pure."""

from collections.abc import Iterator

from equipoise.app.doctor.facts import Conntrack
from equipoise.app.doctor.facts_layer4 import Claim, DirectNode, Layer4Facts
from equipoise.app.doctor.findings import Finding, fine, problem, warning
from equipoise.plan.model import Plan, Service

_ITEM = "layer 4"
_NODES = "direct routing"
_PREPARE = "`equipoise layer4 prepare-node` says what it needs; run that on it"
# The kernel's own default on a machine with 1 GiB: each connection takes an entry, for 2 minutes after its end too.
_FEW_ENTRIES = 65536
_ENTRIES_A_CONNECTION = 4  # open, and those that have just ended


def judge_layer4(plan: Plan, facts: Layer4Facts, table: Conntrack | None) -> Iterator[Finding]:
    """Yield what is to be said of the services that the kernel carries; `table` is None where it is not loaded."""
    services = [service for service in plan.services if service.engine == "layer4"]
    translated = [service for service in services if service.mode == "l4_nat"]
    yield from _rules(facts)
    if facts.absent:
        do = "bring it up (`ip address add`), or set network.manage_addresses; on a stand-by machine all is well"
        yield warning("addresses", f"not on this machine: {', '.join(facts.absent)}", do)
    if translated:
        yield from _passing_on(translated, facts)
        yield from _redirects(translated, facts)
        yield from _entries(translated, table)
    virtual = {endpoint.host for service in services for endpoint in service.listen}
    for node in facts.nodes:
        yield from _way(node)
        if node.called_from in virtual:
            yield _calls_itself(node)
    yield from _asked(facts)


def _rules(facts: Layer4Facts) -> Iterator[Finding]:
    if not facts.may_change:
        do = "add packaging/equipoise.service.d/layer4.conf to the systemd unit, or start as root"
        yield problem("rights", f"{facts.whose} lacks CAP_NET_ADMIN, the right to change packet rules", do)
    if facts.refused is None:
        yield fine(
            _ITEM, "whether the kernel takes the rules was not tried: that needs CAP_NET_ADMIN here; ask as root"
        )
    elif facts.refused:
        seen, _, do = facts.refused.partition("; ")
        kernel = "it needs nf_tables with the netdev ingress hook, fwd and nat; load them, or use another kernel"
        yield problem(_ITEM, seen, kernel if "does not take" in seen else do)
    else:
        yield fine(_ITEM, "nft is here, and the kernel takes the rules")


def _passing_on(services: list[Service], facts: Layer4Facts) -> Iterator[Finding]:
    settings = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
    for version in sorted({6 if ":" in endpoint.host else 4 for service in services for endpoint in service.listen}):
        name = settings[version]
        of_it = [service.name for service in services if _version(service) == version]
        if facts.forwarding.get(version) is False:
            seen = f"{name} is off, so that nothing reaches the nodes of {', '.join(of_it)}"
            yield problem(_ITEM, seen, f"`sysctl -w {name}=1`, and the same in a file in /etc/sysctl.d")
        elif facts.forwarding.get(version):
            yield fine(_ITEM, f"{name} is on")
    if facts.strict:
        seen = (
            f"rp_filter is strict on {', '.join(facts.strict)}: clients whose way back is by another interface are lost"
        )
        yield fine(_ITEM, seen)


def _version(service: Service) -> int:
    return 6 if any(":" in endpoint.host for endpoint in service.listen) else 4


def _redirects(services: list[Service], facts: Layer4Facts) -> Iterator[Finding]:
    """Yield interfaces where nodes would be told to answer past this machine, which alone can translate back."""
    for service in services:
        if service.layer4.masquerade or _version(service) != 4:
            continue
        doors = {way.interface for each in service.listen if (way := facts.ways.get(each.host)) is not None}
        behind = {way.interface for node in service.nodes if (way := facts.ways.get(node.host or "")) is not None}
        for interface in sorted(doors & behind & facts.redirecting):
            seen = f"{service.name}: clients and nodes are both on {interface}, and send_redirects is on"
            do = (
                f"`sysctl -w net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.{interface}.send_redirects=0`, or nodes "
                "learn to answer clients directly, which these do not understand; or set masquerade"
            )
            yield warning(_ITEM, seen, do)


def _entries(services: list[Service], table: Conntrack | None) -> Iterator[Finding]:
    if table is None:
        return
    known = sum(node.max_connections or 0 for service in services for node in service.nodes)
    wanted = max(_FEW_ENTRIES, known * _ENTRIES_A_CONNECTION)
    if table.maximum < wanted:
        do = f"set net.netfilter.nf_conntrack_max to {wanted} or more: once it is full new connections are lost"
        yield warning("conntrack", f"room for {table.maximum} connections, which services with l4_nat share", do)


# Nodes of direct routing


def _way(node: DirectNode) -> Iterator[Finding]:
    if node.host is None:
        return  # its name does not resolve, which is said elsewhere
    if node.way is None:
        yield problem(_NODES, f"{node.key}: there is no way to {node.host}", "correct its address, or the routes here")
    elif node.way.router is not None:
        seen = f"{node.key}, {node.host}, is behind the router {node.way.router}"
        do = "direct routing reaches nodes of this machine's own segments alone; move it there, or use mode l4_nat"
        yield problem(_NODES, seen, do)


def _calls_itself(node: DirectNode) -> Finding:
    seen = f"{node.key} is checked from {node.called_from}, a virtual address: one that has it too answers to itself"
    do = (
        f"set health.source_address; of IPv6, `ip address change {node.called_from}/128 dev NAME preferred_lft 0` does "
        "it as well, and so does network.manage_addresses"
    )
    return problem(_NODES, seen, do)


def _asked(facts: Layer4Facts) -> Iterator[Finding]:
    if not facts.nodes:
        return
    if not facts.may_ask:
        yield fine(_NODES, "the nodes were not asked: that needs CAP_NET_RAW; ask as root")
        return
    before = [finding for claim in facts.claims for finding in _claimed(claim, facts.nodes)]
    for node in facts.nodes:
        before += _present(node)
        before += _knocks(node)
    yield from before
    well = [node.key for node in facts.nodes if node.knocks and all(how == "listens" for _, how in node.knocks)]
    if well:
        yield fine(_NODES, f"{', '.join(well)}: take packets for the virtual address, and listen")


def _claimed(claim: Claim, nodes: tuple[DirectNode, ...]) -> Iterator[Finding]:
    for mac in claim.macs:
        owners = [node.key for node in nodes if mac in (node.macs or ())]
        if owners:
            seen = f"{' and '.join(owners)} ({mac}) answers the segment for {claim.address}, past this balancer"
            yield problem(_NODES, seen, _PREPARE)
        else:
            seen = f"another machine, {mac}, answers the segment for {claim.address}"
            do = "an address belongs to one balancer at a time; find the machine by its hardware address"
            yield problem("addresses", seen, do)


def _present(node: DirectNode) -> Iterator[Finding]:
    if node.macs is None:
        return
    if not node.macs:
        do = "is it switched on, and its cable plugged in?"
        yield warning(_NODES, f"{node.key}: nobody on the segment answers for {node.host}", do)
    elif len(node.macs) > 1:
        seen = f"{node.key}: {' and '.join(node.macs)} both answer for {node.host}"
        yield problem(_NODES, seen, "two machines have the node's address; give one of them another")


def _knocks(node: DirectNode) -> Iterator[Finding]:
    silent = [str(target) for target, how in node.knocks if how == "silent"]
    refusing = [str(target) for target, how in node.knocks if how == "refuses"]
    if silent:
        seen = f"{node.key} does not answer packets for {', '.join(silent)}: it has no such address, or a firewall"
        yield problem(_NODES, seen, f"{_PREPARE}; its firewall must let them in")
    if refusing:
        do = "have its program listen on all addresses, or on this one too, at the very port of the service"
        yield warning(_NODES, f"{node.key} takes packets for {', '.join(refusing)}, and nothing listens there", do)
