"""The section `backend` of a service: how a node is picked, kept, tried again and checked, and the nodes.

Leaves out states and weights of nodes, which stand behind their lines (`states.py`).
Source: HAProxy configuration manual 2.6, sections 4.2 and 5.2; RFC 9110 section 9.2.2 (idempotent methods); IHE ITI
TF-2 appendix V (actions of XDS.b).
"""

import hashlib
import zlib
from collections.abc import Iterator
from itertools import count

from equipoise.engines.haproxy.artifact import Line, Pool, ServerLine
from equipoise.engines.haproxy.render_frontend import HALF_CLOSED_S
from equipoise.engines.haproxy.render_pages import page_lines
from equipoise.engines.haproxy.render_peers import SECTION
from equipoise.engines.haproxy.render_tls import name_words, node_words
from equipoise.engines.haproxy.render_values import INDENT, at, duration, inside
from equipoise.plan.model import Endpoint, Node, Service
from equipoise.plan.states import node_key

_BALANCE = {
    "round_robin": "roundrobin",
    "least_connections": "leastconn",
    "source_hash": "source",
    "first_up": "first",  # by id, and ids follow the order of the nodes
}
# While a returning node grew, it would move clients of a hash to and fro, and another balancer would not know.
_GROWING = ("round_robin", "least_connections")
_SENT = {"v1": " send-proxy check-send-proxy", "v2": " send-proxy-v2 check-send-proxy"}
_SAFE = "{ method GET HEAD OPTIONS }"
_POSTED = "{ method POST } only_asks !stores"
# ITI-18 and ITI-43 only ask.  ITI-41 and ITI-42 never: a document that arrived twice is an error (duplicate unique ID).
_ASKING = ("urn:ihe:iti:2007:RegistryStoredQuery", "urn:ihe:iti:2007:RetrieveDocumentSet")
_STORING = "RegisterDocumentSet"  # of both, wherever it stands: a request that says so is not asked twice
_COOKIE_DIGITS = 12
_MOST_IDS = 1 << 30  # an id is a positive number of 32 bits with a sign
# Our own check may be quicker, or much slower; HAProxy's is there for when nobody else looks.
_SHORTEST_CHECK_S, _LONGEST_CHECK_S = 1.0, 10.0


def backend(service: Service, *, is_shared: bool = False) -> Iterator[Line | ServerLine]:
    """Yield the section.  Without a node it answers 503, or closes.

    Args:
        service: The service.
        is_shared: Whether the other machine of a pair is told which node a client keeps.
    """
    yield Line("")
    yield Line(f"backend {service.name}", at(service))
    yield inside(f"mode {'http' if service.reads_http else 'tcp'}", at(service, "protocol"))
    yield inside(f"balance {_BALANCE[service.balance]}", at(service, "balance"))
    if service.balance == "source_hash":
        # By the nodes' ids and weights alone, so that two balancers with one document agree.
        yield inside("hash-type consistent", at(service, "balance"))
    if any(node.backup for node in service.nodes):
        yield inside("option allbackups  # all of them share the work, not the first one alone")
    yield from _timeouts(service)
    yield from _persistence(service, is_shared=is_shared)
    if service.reads_http:
        yield from _requests(service)
    if service.source_address is not None:
        yield inside(f"source {service.source_address}", at(service, "source_address"))
    yield from _servers(service, is_shared=is_shared)


def remembers(service: Service) -> bool:
    """Return whether a stick table holds which node a client keeps."""
    kept = service.persistence
    return kept.by == "source_ip" or (kept.by == "cookie" and kept.fallback == "source_ip")


def pool(service: Service, *, is_shared: bool = False) -> Pool:
    """Return what must be known to take its nodes in and out; `is_shared` as above."""
    return Pool(
        service=service.name,
        nodes=_ids(service, is_shared=is_shared),
        table=service.name if remembers(service) else None,
        cut=service.on_down == "cut",
        reads_http=service.reads_http,
    )


def _ids(service: Service, *, is_shared: bool) -> dict[str, int]:
    """Return the id of each node: by its place, which `first` goes by.

    With a hash, which goes by ids too, it follows from the name: who leaves or comes moves no client of the others.  So
    it does where another machine is told of ids: its document may be another one for a moment.
    """
    names = [node.name for node in _standing(service)]
    if service.balance == "first_up" or (service.balance != "source_hash" and not is_shared):
        return {name: number for number, name in enumerate(names, start=1)}
    ids: dict[str, int] = {}
    for name in sorted(names):
        wanted = zlib.crc32(name.encode()) % _MOST_IDS
        ids[name] = next(number for number in count(wanted + 1) if number not in ids.values())
    return {name: ids[name] for name in names}


def _standing(service: Service) -> tuple[Node, ...]:
    return tuple(node for node in service.nodes if node.host is not None)


def _timeouts(service: Service) -> Iterator[Line]:
    given = service.timeouts
    yield inside(f"timeout connect {duration(given.connect_s)}", at(service, "timeouts", "connect"))
    yield inside(f"timeout queue {duration(service.queue_wait_s)}", at(service, "queue_wait"))
    yield inside(f"timeout check {duration(service.health.timeout)}", at(service, "health", "timeout"))
    if service.reads_http:
        yield inside(f"timeout server {duration(given.response_s)}", at(service, "timeouts", "response"))
        yield inside(f"timeout tunnel {duration(given.tunnel_s)}", at(service, "timeouts", "tunnel"))
    else:
        yield inside(f"timeout server {duration(given.idle_s)}", at(service, "timeouts", "idle"))
        half_closed = duration(min(HALF_CLOSED_S, given.idle_s))
        yield inside(f"timeout server-fin {half_closed}", at(service, "timeouts", "idle"))


def _persistence(service: Service, *, is_shared: bool) -> Iterator[Line]:
    kept, path = service.persistence, at(service, "persistence")
    if kept.by == "cookie":
        words = [f"cookie {kept.cookie} insert indirect nocache httponly"]
        if service.always_secure:
            words.append("secure")
        words += [f'attr "SameSite={kept.same_site.capitalize()}"', f"maxidle {max(1, round(kept.ttl_s))}"]
        yield inside("# A cookie names the node; one that names none which is there is passed over.", path)
        yield inside(" ".join(words), path)
    if remembers(service):
        told = f" peers {SECTION}" if is_shared else ""
        yield inside(f"stick-table type ipv6 size 100k expire {duration(kept.ttl_s)}{told}", path)
        client = f"src,ipmask({kept.mask},{kept.mask6})"
        if kept.by != "cookie":
            yield inside(f"stick on {client}", path)
            return
        yield inside("# Who comes without a cookie is known by the address. Who has one writes nothing there: it may")
        yield inside("# name a node that is being drained, where nobody else from that address is to be led.")
        # Looked at here, since the cookie is taken out of the request before the rules of the table are read.
        yield inside(f"http-request set-var(txn.kept) bool(true) if {{ req.cook({kept.cookie}) -m found }}", path)
        yield inside(f"stick match {client}", path)
        yield inside(f"stick store-request {client} unless {{ var(txn.kept) -m bool }}", path)


def _requests(service: Service) -> Iterator[Line]:
    yield from page_lines(service)
    yield inside("http-reuse safe  # a client's first request never meets a node's closing door")
    yield inside("# A connection that a node never took is tried again for all; an answer that never began only for")
    yield inside("# what may be asked twice. Nothing is ever stored twice.")
    yield inside("retry-on conn-failure empty-response")
    if service.protocol == "xds":
        acl = f"acl only_asks req.fhdr(content-type) -m sub {' '.join(_ASKING)}"
        yield inside(acl, at(service, "protocol"))
        yield inside(f"acl stores req.fhdr(content-type) -m sub {_STORING}", at(service, "protocol"))
        # Only what has come whole can be sent again; a question is small, and in step with its headers.
        wait = f"http-request wait-for-body time {duration(service.timeouts.request_s)} if {_POSTED}"
        yield inside(wait, at(service, "timeouts", "request"))
    safe = f"{_SAFE} or {_POSTED}" if service.protocol == "xds" else _SAFE
    yield inside(f"http-request disable-l7-retry unless {safe}", at(service, "protocol"))


def _servers(service: Service, *, is_shared: bool) -> Iterator[Line | ServerLine]:
    standing, ids = _standing(service), _ids(service, is_shared=is_shared)
    if standing:
        yield inside("# HAProxy's own check, a connect: a dead node leaves even when nobody else looks.")
        yield inside(_common(service), at(service, "health"))
    if standing and service.node_tls is not None:
        yield inside(f"default-server {node_words(service, service.node_tls)}", at(service, "node_tls"))
    for node in service.nodes:
        if node.host is None:
            path = at(service, "nodes", node.name, "address")
            yield inside(f"# {node.name} is left out: {node.address} has no address in the network.", path)
        else:
            yield _server(service, node, node.host, ids[node.name])


def _common(service: Service) -> str:
    health = service.health
    every = duration(min(max(_SHORTEST_CHECK_S, health.interval), _LONGEST_CHECK_S))
    words = f"default-server check inter {every} rise {health.rise} fall {health.fall}"
    if service.slow_start_s and service.balance in _GROWING:
        words += f" slowstart {duration(service.slow_start_s)}"
    return words + _SENT.get(service.proxy_protocol.send, "")


def _server(service: Service, node: Node, host: str, number: int) -> ServerLine:
    key = node_key(service.name, node.name)
    text = f"{INDENT}server {node.name} {_address(host, node.port)} id {number}"
    if node.port is None:
        # Traffic goes to the port that the client came to; the check needs one of its own.
        text += f" check port {service.health.port or service.listen[0].port}"
    if service.persistence.by == "cookie":
        text += f" cookie {_cookie(key)}"
    if node.max_connections is not None:
        text += f" maxconn {node.max_connections}"
    if node.backup:
        text += " backup"
    if service.node_tls is not None:
        text += name_words(service.node_tls, node)
    return ServerLine(text, at(service, "nodes", node.name, "address"), key, node.weight)


def _address(host: str, port: int | None) -> str:
    if port is not None:
        return str(Endpoint(host, port))
    return f"[{host}]" if ":" in host else host


def _cookie(key: str) -> str:
    """Return what stands for a node: the same on every balancer, and it tells a client nothing."""
    return hashlib.sha256(key.encode()).hexdigest()[:_COOKIE_DIGITS]
