"""What happens to each request of HTTP before a node is picked: who is asked for, who asks, and whether by TLS.

Forwarding headers are taken out and written anew, because servers build links from them (the RetrieveURL of DICOMweb,
what a viewer is told to load): what a client claims there must not reach them.  Proxies named in `trust_forwarded` are
believed.  Bodies are never read.

Source: RFC 7239 (Forwarded), RFC 9112 section 3.2 (Host), RFC 6797 (HSTS), RFC 9110 section 15.4.9 (308); HAProxy
configuration manual 2.6, section 4.2.
"""

from collections.abc import Iterator

from equipoise.engines.haproxy.artifact import Line
from equipoise.engines.haproxy.render_tls import speaks_tls
from equipoise.engines.haproxy.render_values import at, inside, networks, whole_seconds, within
from equipoise.plan.model import Service

# No host has these, and in Forwarded it stands without quotation marks.  No regular expression: under systemd's
# MemoryDenyWriteExecute HAProxy cannot compile one, and each request would pay for it.
_ODD = """-m sub '"' '\\' '(' ')' ',' ';' '<' '=' '>' '@' '/' '?' ' '"""
_LONGEST_HOST = 261  # a name of 255 characters (RFC 1035 section 2.3.4) and a port
# What servers take for the truth about a client.  Of `forwarded` every kind: CGI reads X_Forwarded_For alike.
_CLAIMS = ("forwarded -m sub", "x-real-ip")
_BELIEVED = "{ var(txn.believed) -m bool }"
_MOST_PROXIES = 4  # trusted ones behind each other, whose entries in X-Forwarded-For are passed over


def request_lines(service: Service) -> Iterator[Line]:
    """Yield the rules, in the order in which they are carried out; `family_line` stands before them."""
    path = at(service, "http")
    yield inside("# HAProxy lets NUL in a value pass, and to some servers the text ends there (RFC 9110 section 5.5).")
    yield inside("http-request deny deny_status 400 if { req.hdrs,url_enc -m sub %00 }", path)
    yield from _no_tunnel(path)
    yield inside("# A Host with such signs is no host; HTTP/1.0 may come without one, and is told where it came to.")
    yield from _host_of_none(service)
    yield inside(f"http-request deny deny_status 400 if {{ req.fhdr(host) {_ODD} }}", path)
    yield inside(f"http-request deny deny_status 400 if {{ req.fhdr(host),length gt {_LONGEST_HOST} }}", path)
    yield from _redirect(service)
    yield from _believe(service)
    yield from _tell(service)
    if service.http.hsts_s is not None:
        age_s = whole_seconds(service.http.hsts_s)
        header = f'Strict-Transport-Security "max-age={age_s}"'
        # RFC 6797 section 7.2: never in a plain answer.  `after`: in HAProxy's own answers too.
        yield inside(f"http-after-response set-header {header} if {{ ssl_fc }}", at(service, "http", "hsts"))


def _no_tunnel(path: tuple[str, ...]) -> Iterator[Line]:
    """Yield what keeps a client from speaking to a node past these rules."""
    yield inside("# What is said after CONNECT, or after an upgrade but to a WebSocket, would be read by nobody here.")
    yield inside("http-request deny deny_status 405 if METH_CONNECT", path)
    yield inside("http-request del-header Upgrade unless { req.fhdr(upgrade) -m str -i websocket }", path)
    yield inside("# Servers differ in how they read such a body, and in which headers a proxy is to drop.")
    yield inside("http-request deny deny_status 400 if HTTP_1.0 { req.hdr_cnt(transfer-encoding) gt 0 }", path)
    yield inside("http-request deny deny_status 400 if { req.fhdr(connection) -m sub -i forwarded real-ip }", path)


def _host_of_none(service: Service) -> Iterator[Line]:
    missing = "!{ req.fhdr(host),length gt 0 }"
    if _may_be_ipv6(service):
        brackets = f"{missing} {{ dst -m sub : }}"
        yield inside(f'http-request set-header Host "[%[dst]]:%[dst_port]" if {brackets}', at(service, "http"))
    yield inside(f"http-request set-header Host %[dst]:%[dst_port] if {missing}", at(service, "http"))


def _redirect(service: Service) -> Iterator[Line]:
    if not service.http.redirect_to_https or service.tls is None:
        return
    path = at(service, "http", "redirect_to_https")
    port = next(listener.port for listener in service.listen if speaks_tls(service, listener.port))
    shown = "" if port == 443 else f":{port}"
    yield inside("# The same request, within TLS: 308 keeps its method.", path)
    location = f"https://%[req.fhdr(host),host_only]{shown}%[pathq]"
    yield inside(f"http-request redirect code 308 location {location} if !{{ ssl_fc }}", path)


def _believe(service: Service) -> Iterator[Line]:
    """Yield what takes claims out, but for those of trusted proxies that can be so."""
    trusted = service.http.trust_forwarded
    if not trusted:
        yield inside("# What a client claims about itself is taken out.")
        for claim in _CLAIMS:
            yield inside(f"http-request del-header {claim}", at(service, "http"))
        return
    path = at(service, "http", "trust_forwarded")
    yield inside("# What a client claims about itself is taken out; proxies that are trusted are believed.", path)
    yield from networks("trusted", trusted, path)
    yield inside(f"http-request set-var(txn.believed) bool(true) if {within('trusted', trusted)}", path)
    for claim in _CLAIMS:
        yield inside(f"http-request del-header {claim} unless {_BELIEVED}", path)
    yield inside("# Who asks is the last one in X-Forwarded-For that is not a trusted proxy itself.", path)
    for hop in range(1, _MOST_PROXIES + 1):
        source = f"http-request set-src req.hdr_ip(x-forwarded-for,-{hop})"
        yield inside(f"{source} if {within('trusted', trusted, also=f'{_BELIEVED} ')}", path)
    for header, sound in (
        ("X-Forwarded-Proto", "-m str -i http https"),
        ("X-Forwarded-Port", "-m int 1:65535"),
    ):
        yield inside(f"http-request del-header {header} unless {{ req.fhdr({header.lower()}) {sound} }}", path)
    yield inside(f"http-request del-header X-Forwarded-Host if {{ req.fhdr(x-forwarded-host) {_ODD} }}", path)
    for scheme, port in (("https", 443), ("http", 80)):  # of a proxy that says how it was asked, but not where
        said = f"{{ req.fhdr(x-forwarded-proto) -m str -i {scheme} }} {_absent('X-Forwarded-Port')}"
        yield inside(f"http-request set-header X-Forwarded-Port {port} if {said}", path)


def _tell(service: Service) -> Iterator[Line]:
    """Yield what tells nodes who asked, for which host, and how."""
    path = at(service, "http")
    believes = bool(service.http.trust_forwarded)
    yield inside("# Nodes are told who asked, for which host, and how.")
    yield inside("http-request set-header X-Forwarded-For %[src]", path)
    for header, value in (
        ("X-Forwarded-Proto", _scheme(service)),
        ("X-Forwarded-Host", "%[req.fhdr(host)]"),
        ("X-Forwarded-Port", _port(service)),
    ):
        unless_believed = f" if {_absent(header)}" if believes else ""
        yield inside(f"http-request set-header {header} {value}{unless_believed}", path)
    scheme = "%[req.fhdr(x-forwarded-proto)]" if believes else _scheme(service)
    host = "%[req.fhdr(x-forwarded-host)]" if believes else "%[req.fhdr(host)]"
    forms = (
        [("for=%[src]", "!is_ipv6"), ('for="[%[src]]"', "is_ipv6")] if _may_be_ipv6(service) else [("for=%[src]", "")]
    )
    # Orthanc reads no quotation marks, and a port may not stand without them: then servers go by Host.
    yield inside(f"acl has_port req.fhdr({'x-forwarded-host' if believes else 'host'}) -m sub :", path)
    for client, family in forms:
        told = f"http-request set-header Forwarded '{client};proto={scheme}"
        yield inside(f"{told}' if has_port {family}".rstrip(), path)
        yield inside(f"{told};host={host}' if !has_port {family}".rstrip(), path)


def _scheme(service: Service) -> str:
    """Return how clients come: as a word where all come alike, for that costs nothing."""
    kinds = {speaks_tls(service, endpoint.port) for endpoint in service.listen}
    if len(kinds) > 1:
        return "%[ssl_fc,iif(https,http)]"
    return "https" if True in kinds else "http"


def _port(service: Service) -> str:
    ports = {endpoint.port for endpoint in service.listen}
    return str(ports.pop()) if len(ports) == 1 else "%[dst_port]"


def _may_be_ipv6(service: Service) -> bool:
    """Return whether a client's address can be one of IPv6; others may also tell us of one."""
    told = service.http.trust_forwarded or service.proxy_protocol.accept
    return bool(told) or any(":" in endpoint.host for endpoint in service.listen)


def _absent(header: str) -> str:
    return f"!{{ req.hdr_cnt({header.lower()}) gt 0 }}"
