"""The section `peers`: what the stick tables of the two machines of a pair remember, each tells the other at once.

Entries go by a node's name and number, with the milliseconds left, so neither clocks nor processes need agree.  A name
has precedence, but what was written through the runtime socket has none: numbers follow from names, so that they mean
the same while documents differ (with `first_up` they are places).  An entry that is taken out of a table is not told:
each supervisor clears what leads to a node that drains at its own HAProxy, now and again, since the other one may just
have told of it.  Counts of open connections (`per_source`) are each machine's own; cookies name nodes alike on both.

A new worker is taught by the old one in the same way: it comes to this machine's own place, with its own certificate,
which is why that one is trusted too.  `stick_tables.py` carries over what is missing after that.
Source: HAProxy configuration manual 2.6, section 3.5; tried with 2.6.12 and 2.8.25, also with one of each.
"""

from collections.abc import Iterator

from equipoise.engines.haproxy.artifact import Bundle, Line
from equipoise.engines.haproxy.render_tls import CERTIFICATES
from equipoise.engines.haproxy.render_values import below_directory, inside
from equipoise.plan.model import Cluster, Endpoint, Secured

SECTION = "pair"
_PATH = ("cluster",)


class Peers:
    """The two HAProxies of a pair whose certificates are known."""

    def __init__(self, cluster: Cluster, secured: Secured) -> None:
        self._cluster = cluster
        self._own = f"{SECTION}-own-{secured.fingerprint}.pem"
        self._known = f"{SECTION}-known-{secured.fingerprint}.pem"
        self._secured = secured

    @property
    def place(self) -> Endpoint:
        """Where this machine's HAProxy hears its peer."""
        return Endpoint(self._cluster.address, self._cluster.port + 1)

    def bundles(self) -> tuple[Bundle, ...]:
        """Return the files that the section names."""
        own, peer = self._secured.own, self._secured.peer
        # From `own` HAProxy takes the certificate alone where it looks for authorities.
        return (
            Bundle(f"{CERTIFICATES}/{self._own}", (own,), _PATH),
            Bundle(f"{CERTIFICATES}/{self._known}", (peer, own), _PATH),
        )

    def name_line(self) -> Line:
        """Return what says in `global` which of the two this is; by default it would be the name of the machine."""
        return inside(f"localpeer {self._cluster.role}", _PATH)

    def section(self) -> Iterator[Line]:
        """Yield the section.  A machine that is not the peer, or has another certificate, gets no byte."""
        cluster = self._cluster
        tls = f"ssl crt {self._own} ca-file {below_directory(f'{CERTIFICATES}/{self._known}')} verify required"
        here = f"{self.place} transparent" + (" v6only" if ":" in cluster.address else "")
        there = Endpoint(cluster.peer, cluster.port + 1)
        yield Line("")
        yield Line(f"peers {SECTION}", _PATH)
        yield inside("# What the stick tables of one remember the other knows as well.", _PATH)
        yield inside(f"bind {here} {tls}", (*_PATH, "port"))
        yield inside(f"default-server {tls}", _PATH)
        yield inside(f"server {cluster.role}", _PATH)
        yield inside(f"server {cluster.peer_role} {there}", (*_PATH, "peer"))


def peers_of(cluster: Cluster | None) -> Peers | None:
    """Return the two; None for a machine alone, and before the two have joined."""
    if cluster is None or cluster.secured is None:
        return None
    return Peers(cluster, cluster.secured)
