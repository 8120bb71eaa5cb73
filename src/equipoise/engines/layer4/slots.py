"""Whom the next flows go to: picks made ahead by the same policies that the gateway uses.  Pure.

The kernel takes slots in turn (`numgen inc`), or by a hash of the client's address, and knows nothing of balancing.
So as many picks as there are slots are made here as if that many flows came now and none ended: for `least_connections`
that is exact until flows end, and soon after they do the slots are written anew.  For `source_hash` a slot stands for
the clients whose hash it is, and its node is found as that of a client: by rendezvous.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from equipoise.plan.model import Service
from equipoise.policy.base import Client, PolicyKind
from equipoise.policy.catalogue import policies

_LEAST = 840  # a multiple of 1 to 8, so that as many equal nodes have equal shares
_LEAST_FOLLOWING = 240  # where slots are written anew twice a second, most of more would never be reached


@dataclass(slots=True)
class Share:
    """A node that may take work: a `policy.base.Candidate`."""

    name: str
    weight: float
    connections: int = 0
    work: float = 0.0


def slot_count(service: Service) -> int:
    """Return how many slots a service has: a multiple of its nodes.

    Where clients are hashed to slots their number stays: another one would move nearly every client.
    """
    kind = policies()[service.balance]
    if not service.nodes or kind.pins:
        return _LEAST
    least = _LEAST_FOLLOWING if kind.counts else _LEAST
    return -(-least // len(service.nodes)) * len(service.nodes)


def filled(kind: PolicyKind, shares: Sequence[Share], count: int, first: int = 0) -> tuple[str, ...]:
    """Return the node of each slot; nothing where no node takes work.

    Args:
        kind: How a node is picked.
        shares: The nodes that may take work, in the configuration's order, with the connections that they have.
        count: How many slots.
        first: The slot that the next flow takes.  It matters to what counts connections; turns that follow from
            weights alone are in the same slots whenever they are written, so that writing them deals nobody twice.
    """
    if not shares:
        return ()
    policy = kind.make()
    begins = first % len(shares) if kind.counts else 0  # among equals: else the first node had every short connection
    nodes = [Share(share.name, share.weight, share.connections) for share in (*shares[begins:], *shares[:begins])]
    by_name = {node.name: node for node in nodes}
    slots = [""] * count
    for turn in range(count):
        slot = (first + turn) % count if kind.counts else turn
        name = policy.pick(nodes, Client(source_ip=str(slot), calling_ae=""))
        by_name[name].connections += 1
        slots[slot] = name
    return tuple(slots)
