"""Rules of the key `cluster` beside the others: which of two machines this is, and which addresses can be on either.

Leaves out what only the machine knows, as whether its interface is there: the engine asks.
"""

from collections.abc import Iterator

from equipoise.config.cluster import Cluster
from equipoise.config.fields import numeric, split_port
from equipoise.config.models import Site
from equipoise.config.suited import Finding
from equipoise.config.suited_layer4 import is_manageable


def unsuited_cluster(site: Site) -> Iterator[Finding]:
    """Yield what is wrong with the key `cluster`."""
    if site.cluster is None:
        return
    yield from _machines(site.cluster)
    yield from _moving(site, site.cluster)
    for key in ("on_secondary", "more_addresses"):
        yield from _listed(site, site.cluster, key)


def _machines(cluster: Cluster) -> Iterator[Finding]:
    if cluster.peer is not None and cluster.role is None:
        said = (
            f"missing: the document names the peer {cluster.peer!r}, and not which of the two this machine is; write "
            "`role: primary` on one and `role: secondary` on the other, or leave both out and run `equipoise cluster "
            "join`"
        )
        yield Finding(("cluster", "role"), said)
    if cluster.peer is not None and cluster.peer == cluster.address:
        said = f"{cluster.peer!r} is this machine's own address too; write that of the other machine"
        yield Finding(("cluster", "peer"), said)
    own, peer = numeric(cluster.address or ""), numeric(cluster.peer or "")
    if own is not None and peer is not None and own.version != peer.version:
        said = (
            f"{cluster.address!r} is IPv{own.version} and the peer {cluster.peer!r} IPv{peer.version}, so neither "
            "could hear the other; write both of one family"
        )
        yield Finding(("cluster", "address"), said)
    if cluster.interface == "lo":
        said = "'lo' is loopback, where no other machine is heard; name the one that has a cable to the peer"
        yield Finding(("cluster", "interface"), said)


def _moving(site: Site, cluster: Cluster) -> Iterator[Finding]:
    """Yield where no address could be on either machine, or none of them is at home on the primary."""
    listened = _listened(site) - {cluster.peer, cluster.address}
    if not listened and not cluster.more_addresses:
        said = (
            "no address can move from machine to machine: no service listens on one that may be on either (0.0.0.0, "
            "'::', loopback and the machines' own addresses cannot); write a virtual address in listen, or take "
            "cluster out"
        )
        yield Finding(("cluster",), said)
    elif not (listened | set(cluster.more_addresses)) - set(cluster.on_secondary):
        said = (
            "names every address there is, which leaves the primary without work; leave out those that the primary "
            "is to have, or leave out on_secondary and swap the two roles"
        )
        yield Finding(("cluster", "on_secondary"), said)


def _listed(site: Site, cluster: Cluster, key: str) -> Iterator[Finding]:
    """Yield addresses of a list that cannot be in it."""
    listed: tuple[str, ...] = getattr(cluster, key)
    for entry, text in enumerate(listed):
        if (said := _unlistable(site, cluster, key, text)) is not None:
            yield Finding(("cluster", key, entry), f"{text!r} {said}")
        elif text in listed[:entry]:
            yield Finding(("cluster", key, entry), f"{text!r} is there twice; take one of them out")


def _unlistable(site: Site, cluster: Cluster, key: str, text: str) -> str | None:
    address = numeric(text)
    if address is not None and address.is_loopback:
        return "is loopback, which every machine has for itself; take it out"
    if text in (cluster.peer, cluster.address):
        return "is one machine's own address, which cannot be on the other; take it out"
    if key == "more_addresses":
        if text in cluster.on_secondary:
            return "is in on_secondary too, and can be at home on one machine alone; take it out of one of the two"
        if text in _listened(site):
            return "moves already, since a service listens on it; take it out"
        if text in {
            split_port(node.address)[0] for service in site.services.values() for node in service.nodes.values()
        }:
            return "is the address of a node, which would lose it to this balancer; take it out"
    elif text not in _listened(site) and text not in cluster.more_addresses:
        return "is an address that no service listens on; write it in the listen of a service, or take it out"
    return None


def _listened(site: Site) -> set[str]:
    hosts = {listener.host for service in site.services.values() for listener in service.listeners}
    return {str(numeric(host)) for host in hosts if is_manageable(host)}
