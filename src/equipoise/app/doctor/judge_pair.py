"""Judge what a pair finds on this machine, and of its peer: plan and facts in, findings out.  Pure."""

from collections.abc import Iterator

from equipoise.app.doctor.facts_pair import PairFacts
from equipoise.app.doctor.findings import Finding, fine, problem, warning
from equipoise.plan.model import Cluster, Plan

_ITEM = "pair"
_PEER = "peer"


def judge_pair(plan: Plan, facts: PairFacts) -> Iterator[Finding]:
    """Yield what is to be said of this half of a pair."""
    if plan.cluster is None:
        return
    yield from _programs(facts)
    yield from _rights(facts)
    yield from _network(plan.cluster, facts)
    yield from _addresses(plan.cluster)
    yield from _sources(plan)
    yield from _answers(plan.cluster, facts)
    yield from _tracking(facts)


def judge_unfinished() -> Finding:
    """Return what is to be said where a document has `cluster`, and there is no pair yet."""
    do = "`equipoise cluster join PEER` makes one; or name `peer` and `role` under `cluster`"
    return warning(_ITEM, "the document has `cluster`, and no peer, or no way to it, is known here", do)


def _programs(facts: PairFacts) -> Iterator[Finding]:
    for path, name, what in (
        (facts.keepalived, "keepalived", "moves the addresses"),
        (facts.nft, "nftables", "lets in VRRP from the peer alone"),
    ):
        if path:
            yield fine(_ITEM, f"{path} is here, which {what}")
        else:
            yield problem(_ITEM, f"{name} is not installed, which {what}", f"apt install {name}")
    if facts.strangers:
        seen = f"another keepalived runs, process {', '.join(map(str, facts.strangers))}: not started by Equipoise"
        do = "`systemctl disable --now keepalived`: two of them fight for addresses; Equipoise starts its own"
        yield problem(_ITEM, seen, do)
    elif facts.starts_itself:
        seen = "keepalived's own service is enabled, so a second one starts when the machine does"
        yield warning(_ITEM, seen, "`systemctl disable keepalived`: Equipoise starts its own")


def _rights(facts: PairFacts) -> Iterator[Finding]:
    if facts.lacking:
        do = "add packaging/equipoise.service.d/layer4.conf to the systemd unit, which grants both, or start as root"
        seen = f"{facts.whose} lacks {' and '.join(facts.lacking)}, without which keepalived can move no address"
        yield problem("rights", seen, do)


def _network(cluster: Cluster, facts: PairFacts) -> Iterator[Finding]:
    name = cluster.interface
    match facts.link:
        case "missing":
            do = "correct `cluster.interface`, or give `--interface` to `equipoise cluster join`; `ip link` lists them"
            yield problem(_ITEM, f"there is no interface {name} on this machine", do)
        case "down":
            do = f"plug in its cable, or `ip link set {name} up`: while it is down the peer has the addresses"
            yield problem(_ITEM, f"{name}, where the two hear each other, is down", do)
        case "up":
            yield fine(_ITEM, f"{name}, where the two hear each other, is up")
    if not facts.has_address:
        do = "correct `cluster.address`, or bring it up: this machine talks to its peer from it"
        yield problem(_ITEM, f"{cluster.address} is not an address of this machine", do)


def _addresses(cluster: Cluster) -> Iterator[Finding]:
    for group in cluster.groups:
        hosts = ", ".join(address.host for address in group.addresses)
        yield fine(_ITEM, f"{hosts}: at home on the {group.name}, VRRP router identifier {group.router_id}")


def _sources(plan: Plan) -> Iterator[Finding]:
    """Yield addresses that nodes are called from, and that only one of the two machines has at a time."""
    moving = {address.host for address in plan.vips}
    for service in plan.services:
        for key, source in (
            ("source_address", service.source_address),
            ("health.source_address", service.health.source_address),
        ):
            if source in moving:
                seen = f"services.{service.name}.{key}, {source}, is on one machine of the pair at a time"
                do = (
                    "the other one can check no node, and finds them all down when it takes over; leave it out, and "
                    "have the nodes know both machines"
                )
                yield warning("source address", seen, do)


def _answers(cluster: Cluster, facts: PairFacts) -> Iterator[Finding]:
    where = f"{cluster.peer}:{cluster.port}"
    if cluster.secured is None:
        do = f"`equipoise cluster join {cluster.peer}` here prints what to run there"
        yield warning(_PEER, "the two have not joined: they share addresses, and nothing else", do)
    elif facts.unreachable:
        do = (
            f"see that Equipoise runs there, and that no firewall drops TCP to ports {cluster.port}, {cluster.port + 1}"
        )
        yield problem(_PEER, f"{where}, from {cluster.address}: {facts.unreachable}", do)
    elif facts.unreachable is not None:
        yield fine(_PEER, f"{where} answers; `equipoise cluster status` tells the rest")


def _tracking(facts: PairFacts) -> Iterator[Finding]:
    """Yield how it stands with conntrackd: a wish, since without it connections end as those of `l7_snat` do."""
    start = f"`conntrackd -d -C {facts.tracking_file}` on both, as root"
    match facts.tracking:
        case "ours":
            yield fine(_ITEM, "conntrackd runs with Equipoise's file: connections of l4_nat outlive this machine")
        case "other":
            yield fine(_ITEM, f"conntrackd runs with a file of its own; Equipoise writes one for it: {start}")
        case "stopped":
            yield fine(_ITEM, f"conntrackd does not run; with it connections of l4_nat outlive a machine: {start}")
        case "absent":
            seen = "conntrackd is not installed; with it connections of l4_nat outlive a machine"
            yield fine(_ITEM, f"{seen}: apt install conntrackd, then {start}")
