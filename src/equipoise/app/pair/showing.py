"""How things stand with the pair, in the form that `cluster status --json` prints."""

from collections.abc import Iterable
from typing import Any

from equipoise.app.pair.peer import Peer
from equipoise.base.clock import rfc3339
from equipoise.cluster.revisions import History
from equipoise.engines.keepalived.groups import GroupNow
from equipoise.plan.model import Cluster, Service
from equipoise.state.cluster_events import SplitBrain


def nobody(site: str) -> dict[str, Any]:
    """Return the status of a machine that stands alone."""
    empty = dict.fromkeys(
        ("role", "address", "interface", "advert_ms", "fault", "split", "last_failover", "invitation")
    )
    peer = dict.fromkeys(("address", "role", "since", "heard_s", "version", "clock_off_s", "fault", "problem"))
    return {
        "joined": False,
        "configured": False,
        "site": site,
        **empty,
        "peer": {**peer, "connected": False},
        "revision": {"ours": None, "theirs": None, "relation": "unknown"},
        "groups": [],
        "staying": [],
        "lag": {"pending": 0, "behind_s": None, "overrides": "unknown"},
    }


def of_cluster(cluster: Cluster) -> dict[str, Any]:
    """Return what the plan says of the pair."""
    return {
        "joined": cluster.secured is not None,
        "configured": True,
        "role": cluster.role,
        "address": cluster.address,
        "interface": cluster.interface,
        "advert_ms": round(cluster.advert_s * 1000),
    }


def of_peer(cluster: Cluster, peer: Peer, refused: str | None) -> dict[str, Any]:
    """Return what is known of the peer; `refused` is why one of the two does not take the other's document."""
    said, connected = peer.said, peer.is_connected
    return {
        "address": cluster.peer,
        "role": said.role if said is not None else cluster.peer_role,
        "connected": connected,
        "since": rfc3339(peer.connected_at) if connected and peer.connected_at is not None else None,
        "heard_s": round(peer.heard_s, 1) if said is not None else None,
        "version": said.software if said is not None else None,
        "clock_off_s": round(peer.clock_off_s, 1) if peer.clock_off_s is not None else None,
        "fault": said.fault if said is not None and connected else None,
        "problem": peer.problem or (refused if connected else None),
    }


def of_revision(ours: History, peer: Peer) -> dict[str, Any]:
    """Return how the two documents stand to each other."""
    theirs = peer.history.revision.number if peer.history is not None else None
    return {"ours": ours.revision.number, "theirs": theirs, "relation": peer.relation(ours) or "unknown"}


def of_groups(cluster: Cluster, here: tuple[GroupNow, ...], peer: Peer) -> list[dict[str, Any]]:
    """Return who holds which addresses."""
    found = {group.name: group for group in here}
    return [
        {
            "name": group.name,
            "router_id": group.router_id,
            "addresses": [each.host for each in group.addresses],
            **_here(found.get(group.name)),
            "there": there.state if (there := peer.group(group.name)) is not None else None,
            "there_since": rfc3339(peer.since(there)) if there is not None else None,
            "holder": _holder(found.get(group.name), there.state if there is not None else None),
        }
        for group in cluster.groups
    ]


def of_staying(cluster: Cluster, services: Iterable[Service]) -> list[dict[str, Any]]:
    """Return the services that clients find at one machine's own address alone, which moves to no other."""
    hosts = {service.name: {end.host for end in service.listen} for service in services}
    return [
        {"service": name, "addresses": sorted(at)}
        for name, at in hosts.items()
        if at in ({cluster.address}, {cluster.peer})
    ]


def of_split(split: SplitBrain | None) -> dict[str, Any] | None:
    """Return which addresses two machines have."""
    return {"addresses": list(split.addresses), "found": split.found} if split is not None else None


def of_move(group: GroupNow | None) -> dict[str, Any] | None:
    """Return when addresses moved last, whither and why."""
    if group is None:
        return None
    to = "here" if group.state == "master" else "peer"
    return {"at": rfc3339(group.since), "group": group.name, "to": to, "reason": group.reason}


def _here(now: GroupNow | None) -> dict[str, Any]:
    if now is None:
        return {"here": "unknown", "here_since": None, "reason": "keepalived does not run"}
    return {"here": now.state, "here_since": rfc3339(now.since), "reason": now.reason}


def _holder(here: GroupNow | None, there: str | None) -> str:
    holds_here = here is not None and here.state == "master"
    if there is None:
        return "here" if holds_here else "unknown"
    if holds_here and there == "master":
        return "both"
    if holds_here:
        return "here"
    return "peer" if there == "master" else "nobody"
