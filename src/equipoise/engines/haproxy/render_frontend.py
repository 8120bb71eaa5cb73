"""The section `frontend` of a service: where clients come in, who is let in, and how long they may take.

Leaves out what happens to requests (`render_http.py`) and where they go (`render_backend.py`).
Source: HAProxy configuration manual 2.6, sections 4.2 and 5.1.
"""

from collections.abc import Iterator

from equipoise.engines.haproxy.artifact import Line
from equipoise.engines.haproxy.render_http import request_lines
from equipoise.engines.haproxy.render_pages import page_lines
from equipoise.engines.haproxy.render_tls import bind_words, speaks_tls
from equipoise.engines.haproxy.render_values import at, duration, family_line, inside, networks, within
from equipoise.plan.model import Endpoint, Service

# A peer of plain TCP that said it has nothing more to say may still wait for a long answer, but not half a day.
HALF_CLOSED_S = 300.0


def frontend(service: Service) -> Iterator[Line]:
    """Yield the section."""
    yield Line("")
    yield Line(f"frontend {service.name}", at(service))
    yield inside(f"mode {'http' if service.reads_http else 'tcp'}", at(service, "protocol"))
    for endpoint in service.listen:
        yield _bind(service, endpoint)
    if service.max_connections is not None:
        yield inside("# More wait in the kernel's queue.")
        yield inside(f"maxconn {service.max_connections}", at(service, "max_connections"))
    yield from _timeouts(service)
    if service.allow_from or service.reads_http:
        yield family_line()
    yield from _admission(service)
    if service.reads_http:
        yield from page_lines(service)
        yield from request_lines(service)
    yield inside(f"default_backend {service.name}")


def per_source(service: Service) -> Iterator[Line]:
    """Yield the table that counts connections by client, which is apart so that it is never carried over a reload."""
    if service.max_per_source is not None:
        path = at(service, "max_per_source")
        yield Line("")
        yield Line(f"backend {_counts(service)}", path)
        # An entry in use is never thrown out, and one that is not needs no remembering.
        yield inside("stick-table type ipv6 size 100k expire 1m store conn_cur", path)


def _counts(service: Service) -> str:
    return f"per-source:{service.name}"  # no service is called so: ':' is in no name


def _bind(service: Service, endpoint: Endpoint) -> Line:
    words = [f"bind {endpoint}", "transparent"]  # IP_FREEBIND: the address may be the other balancer's now
    if ":" in endpoint.host:
        words.append("v6only")  # `::` leaves room for a service on 0.0.0.0
    if service.proxy_protocol.accept:
        words.append("accept-proxy")
    if service.tls is None or not speaks_tls(service, endpoint.port):
        return inside(" ".join(words), at(service, "listen"))
    return inside(" ".join([*words, bind_words(service, service.tls)]), at(service, "tls"))


def _timeouts(service: Service) -> Iterator[Line]:
    given = service.timeouts
    if service.reads_http:
        yield inside(f"timeout http-request {duration(given.request_s)}", at(service, "timeouts", "request"))
        yield inside(f"timeout http-keep-alive {duration(given.idle_s)}", at(service, "timeouts", "idle"))
        yield inside(f"timeout client {duration(given.stall_s)}", at(service, "timeouts", "stall"))
        # A client may write just when an idle connection is closed for a reload, and not dare to ask again.
        yield inside("option idle-close-on-response")
        yield inside("option http-ignore-probes  # browsers connect ahead of need: no 408 for those that say nothing")
    else:
        yield inside(f"timeout client {duration(given.idle_s)}", at(service, "timeouts", "idle"))
        half_closed = duration(min(HALF_CLOSED_S, given.idle_s))
        yield inside(f"timeout client-fin {half_closed}", at(service, "timeouts", "idle"))


def _admission(service: Service) -> Iterator[Line]:
    """Yield who is turned away before a byte is read, TLS included."""
    if service.allow_from:
        path = at(service, "allow_from")
        yield from networks("allowed", service.allow_from, path)
        # Before the header of the PROXY protocol: this is the balancer that sends it.
        yield inside(f"tcp-request connection reject unless {within('allowed', service.allow_from)}", path)
    if service.max_per_source is not None:
        path = at(service, "max_per_source")
        # Behind another balancer the client is known once its header has been read.
        when = "session" if service.proxy_protocol.accept else "connection"
        yield inside(f"tcp-request {when} track-sc0 src table {_counts(service)}", path)
        yield inside(f"tcp-request {when} reject if {{ sc0_conn_cur gt {service.max_per_source} }}", path)
