"""TLS in HAProxy's words, towards clients and towards nodes, and the files of certificates that it takes.

By the rules of `base/tls.py`, which the gateway and the checks go by: BCP 195 (RFC 8996 and RFC 9325).  One thing
differs: HAProxy wants the root of a chain among its authorities, an intermediate one alone is not enough.
Leaves out whether the files are any good.
"""

from collections.abc import Iterator

from equipoise.config.fields import numeric, split_port
from equipoise.engines.haproxy.artifact import SYSTEM_CA_VARIABLE, Bundle, Line
from equipoise.engines.haproxy.render_values import at, below_directory, inside
from equipoise.plan.model import Node, NodeTls, Service, Tls

CERTIFICATES = "certs"  # below HAProxy's directory
_SYSTEM = f'"${{{SYSTEM_CA_VARIABLE}-@system-ca}}"'
# RFC 9325 section 4.2, as in base/tls.py: towards clients ECDHE alone, towards nodes DHE too.
_CLIENT_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!PSK:@SECLEVEL=2"
_NODE_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL:!PSK:@SECLEVEL=2"


def default_lines() -> Iterator[Line]:
    """Yield what holds for all TLS of this HAProxy."""
    # Its keys for tickets live as long as the process, and RFC 9325 section 3.4 wants them changed weekly: sessions
    # are resumed from its cache instead.
    yield inside("ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets")
    yield inside(f"ssl-default-bind-ciphers {_CLIENT_CIPHERS}")
    yield inside("ssl-default-server-options ssl-min-ver TLSv1.2")
    yield inside(f"ssl-default-server-ciphers {_NODE_CIPHERS}")


def speaks_tls(service: Service, port: int) -> bool:
    """Return whether clients speak TLS at this port."""
    return service.tls is not None and (not service.tls.ports or port in service.tls.ports)


def bundles(service: Service) -> Iterator[Bundle]:
    """Yield the files that this service needs; their names change with what is in them."""
    if (tls := service.tls) is not None:
        yield _bundle(service, "0", tls.fingerprint, (tls.cert, tls.key), ("tls", "cert"))
        for place, more in enumerate(tls.more_certificates):
            keys = ("tls", "more_certificates", str(place), "cert")
            yield _bundle(service, str(place + 1), tls.fingerprint, (more.cert, more.key), keys)
        if tls.client_ca is not None:
            yield _bundle(service, "client-ca", tls.fingerprint, (tls.client_ca,), ("tls", "client_ca"))
    if (node_tls := service.node_tls) is not None:
        if node_tls.cert is not None:
            yield _bundle(service, "node", node_tls.fingerprint, (node_tls.cert, node_tls.key), ("node_tls", "cert"))
        if node_tls.ca is not None:
            yield _bundle(service, "node-ca", node_tls.fingerprint, (node_tls.ca,), ("node_tls", "ca"))


def _bundle(
    service: Service, role: str, fingerprint: str, parts: tuple[str | None, ...], keys: tuple[str, ...]
) -> Bundle:
    named = tuple(part for part in parts if part is not None)
    return Bundle(f"{CERTIFICATES}/{_file(service, role, fingerprint)}", named, at(service, *keys))


def _file(service: Service, role: str, fingerprint: str) -> str:
    return f"{service.name}-{role}-{fingerprint}.pem"


def _authorities(service: Service, role: str, fingerprint: str) -> str:
    # Whole, without a `ca-base`: HAProxy 2.6.12 would put that before `@system-ca` too.
    return below_directory(f"{CERTIFICATES}/{_file(service, role, fingerprint)}")


def bind_words(service: Service, tls: Tls) -> str:
    """Return what stands behind an address where clients speak TLS."""
    # Without `strict-sni` a client that names no host, or none that is known, is shown the first certificate.
    files = [_file(service, str(number), tls.fingerprint) for number in range(1 + len(tls.more_certificates))]
    words = ["ssl", *(f"crt {name}" for name in files), f"ssl-min-ver TLSv{tls.min_version}"]
    if service.reads_http:
        words.append("alpn h2,http/1.1")  # what `tcp` carries within TLS is not ours to name
    if tls.client_ca is not None:
        words.append(f"ca-file {_authorities(service, 'client-ca', tls.fingerprint)} verify required")
    return " ".join(words)


def node_words(service: Service, tls: NodeTls) -> str:
    """Return what all nodes have in common; a name to compare is the node's own (`name_words`)."""
    words = ["ssl", f"ssl-min-ver TLSv{tls.min_version}"]
    # HAProxy's own check shakes hands too, at whichever port: a node whose certificate is refused takes no work.
    words.append("check-ssl")
    if service.reads_http:
        words.append("alpn http/1.1")  # its pool of idle connections is for one request at a time
    if tls.verify == "none":
        words.append("verify none")
    else:
        authorities = _SYSTEM if tls.ca is None else _authorities(service, "node-ca", tls.fingerprint)
        words.append(f"verify required ca-file {authorities}")
    if tls.cert is not None:
        words.append(f"crt {_file(service, 'node', tls.fingerprint)}")
    return " ".join(words)


def name_words(tls: NodeTls, node: Node) -> str:
    """Return what names a node within TLS, or nothing.

    With `authority` no name is sent, because HAProxy would compare it.  An address is no name to send (RFC 6066
    section 3).
    """
    name = (tls.server_name or split_port(node.address)[0]).removesuffix(".")
    sent = "" if numeric(name) or tls.verify == "authority" else f" sni str({name}) check-sni {name}"
    return f"{sent} verifyhost {name}" if tls.verify == "name" else sent
