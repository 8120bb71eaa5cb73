"""Policy `source_hash`: a client's address decides, by weighted rendezvous hashing, without a table.

Every node gets a score from the client's address, its own name and its weight; the best is picked. So a client has the
same node on every balancer with the same nodes and weights, and after a restart. When a node leaves, only its own
clients move, spread over the others by weight, and they return when it does; when a weight grows, clients move to that
node alone. Slow start does not apply: while weights ramp, balancers would not agree. Senders behind one address (a
router, NAT) all have one node.

Source: D. G. Thaler, C. V. Ravishankar, IEEE/ACM Transactions on Networking 6(1), 1998 (rendezvous); the logarithmic
method for weights: J. Resch, "New Hashing Algorithms for Data Storage", SNIA 2015.
"""

from collections.abc import Sequence
from hashlib import blake2b
from math import log

from equipoise.policy.base import Candidate, Client, PolicyKind


def score(key: str, node: str, weight: float) -> float:
    """Return how strongly `node` bids for `key`: the same on every machine and in every version.

    With u even between 0 and 1, -ln u / weight is the time of a Poisson process's first event; of several such
    processes each is first as often as its rate, the weight, says.  Larger is better here, so this is the inverse.
    """
    digest = blake2b(f"{key}\0{node}".encode(), digest_size=8).digest()
    # 52 bits and a half: a double holds it exactly, and u is never 0 nor 1.
    u = ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52
    return -weight / log(u)


class SourceHash:
    """Remembers nothing."""

    def pick(self, candidates: Sequence[Candidate], client: Client) -> str:
        """Return the node with the best score; the order of the configuration plays no part."""
        key = client.source_ip
        return max((score(key, node.name, node.weight), node.name) for node in candidates)[1]


POLICY = PolicyKind(name="source_hash", make=SourceHash, ramps=False, pins=True)
