"""What a plan means to HAProxy.  Pure: the same plan gives the same bytes, on whichever machine.

Nothing is logged of requests, because their addresses name patients: there is no `log` line and no format for one.
No `nbthread`: HAProxy counts the processors itself.  `peers` only with another machine (`render_peers.py`): who loads a
configuration anew carries what the stick tables remember.  HAProxy's parser stays strict, so that requests which two
programs could read differently end here.

Source: HAProxy configuration manual 2.6, section 3; BCP 195.
"""

from collections.abc import Iterator

from equipoise.engines.haproxy.artifact import DIGEST_MARK, WORKER_SOCKET, Artifact, Line, ServerLine
from equipoise.engines.haproxy.render_backend import backend, pool, remembers
from equipoise.engines.haproxy.render_frontend import frontend, per_source
from equipoise.engines.haproxy.render_pages import pages
from equipoise.engines.haproxy.render_peers import Peers, peers_of
from equipoise.engines.haproxy.render_tls import CERTIFICATES, bundles, default_lines
from equipoise.engines.haproxy.render_values import below_directory, inside, quoted
from equipoise.plan.model import Plan, Service

# Who serves the previous configuration may finish what is open, a long viewer session included, but not for ever.
_LONGEST_END = "24h"
# Bodies go from socket to socket through a pipe of this size, uncopied: bench/results/web.md.  Larger buffers instead
# would be copied whole for each request that may be tried again.
_PIPE_BYTES = 262144
# 64 pages each: so many are below the share of pages of a user who is not root (pipe(7)); beyond it HAProxy copies.
_MOST_PIPES = 240
# Room that stays free of a client's headers for ours: a host of 255 characters, twice, a cookie, addresses.
_ROOM_BYTES = 2048
# Some machines allow a thousand million open files, and HAProxy makes room for as many as it may open.
_MOST_FILES = 524288


def render(plan: Plan) -> Artifact:
    """Return what HAProxy is to do; nothing where no service needs it."""
    services = [service for service in plan.services if service.engine == "haproxy"]
    if not services:
        return Artifact()
    peers = peers_of(plan.cluster) if any(remembers(service) for service in services) else None
    of_services = tuple(bundle for service in services for bundle in bundles(service))
    listen = tuple(endpoint for service in services for endpoint in service.listen)
    return Artifact(
        lines=tuple(_lines(plan.site, services, peers)),
        bundles=of_services if peers is None else (*of_services, *peers.bundles()),
        pages=tuple(page for service in services if service.reads_http for page in pages(service)),
        pools=tuple(pool(service, is_shared=peers is not None) for service in services),
        listen=listen if peers is None else (*listen, peers.place),
        drain_timeout_s=plan.drain_timeout_s,
        is_shared=peers is not None,
    )


def _lines(site: str, services: list[Service], peers: Peers | None) -> Iterator[Line | ServerLine]:
    yield from _head()
    yield from _global(site)
    if peers is not None:
        yield peers.name_line()
    yield from _defaults()
    if peers is not None:
        yield from peers.section()
    for service in services:
        yield from frontend(service)
        yield from per_source(service)
        yield from backend(service, is_shared=peers is not None)


def _head() -> Iterator[Line]:
    yield Line("# Made by Equipoise from its site document, and written anew when that changes: change the document.")
    yield Line("# Names here are those of the document. Weights and states of nodes are those of now.")
    yield Line("")


def _global(site: str) -> Iterator[Line]:
    yield Line("global")
    yield inside(f"description {quoted(f'Equipoise, site {site}, {DIGEST_MARK}')}")
    yield inside(f"stats socket {below_directory(WORKER_SOCKET)} mode 600 level admin expose-fd listeners")
    yield inside(f"hard-stop-after {_LONGEST_END}")
    yield inside(f"tune.pipesize {_PIPE_BYTES}")
    yield inside(f"maxpipes {_MOST_PIPES}")
    yield inside(f"tune.maxrewrite {_ROOM_BYTES}")
    yield inside(f"fd-hard-limit {_MOST_FILES}")
    yield inside(f"crt-base {below_directory(CERTIFICATES)}")
    yield inside("# TLS 1.2 and 1.3 by BCP 195 (RFC 9325).")
    yield from default_lines()


def _defaults() -> Iterator[Line]:
    yield Line("")
    yield Line("defaults")
    yield inside("# No log: addresses of requests name patients.")
    yield inside("# A peer that is gone without a word is noticed within two minutes.")
    for side, owner in (("cli", "clitcpka"), ("srv", "srvtcpka")):
        yield inside(f"option {owner}")
        # As the gateway has it: firewalls forget a connection that is silent for longer.
        yield inside(f"{side}tcpka-idle 60s")
        yield inside(f"{side}tcpka-intvl 10s")
        yield inside(f"{side}tcpka-cnt 6")
    yield inside("# Images and uploads are moved without being copied.")
    yield inside("option splice-request")
    yield inside("option splice-response")
    yield inside("# A node that does not take a connection: two more tries, at other nodes.")
    yield inside("retries 2")
    yield inside("option redispatch 1")
