"""Rules between a service's protocol and its other keys: what one protocol can do and another cannot.

Leaves out rules that hold for every protocol (`crosscheck.py`), those within HL7 (`suited_hl7.py`), and services that
the kernel carries, of which nothing is read (`suited_layer4.py`).  A key that would have no effect is refused, because
who wrote it expects one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from equipoise.config.fields import numeric, split_port
from equipoise.config.models import Service

# Keys that only some protocols make something of.
_ONLY_FOR = {"dicom": ("dicom",), "routes": ("dicom",), "passive_health": ("dicom", "hl7"), "hl7": ("hl7",)}


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that is broken, and where."""

    path: tuple[str | int, ...]
    message: str


def unsuited(service: Service) -> Iterator[Finding]:
    """Yield every key of a service that its protocol can make nothing of."""
    yield from _persistence(service)
    yield from _of_others(service)
    if service.protocol == "dicom":
        yield from _on_dicom(service)
        return
    yield from _not_dicom(service)
    if service.protocol == "hl7":
        return
    yield from _tls(service)
    yield from _node_tls(service)
    if not service.reads_http:
        yield from _unread(service)
    else:
        yield from _http(service)


def _spoken(service: Service) -> str:
    return "https that is passed through (it has no tls)" if service.is_passed_through else service.protocol


def _persistence(service: Service) -> Iterator[Finding]:
    kept, by = service.persistence, service.known_by
    if by == "cookie" and service.protocol == "dicom":
        said = "'cookie' is for web browsers, a DICOM association has no cookies; use source_ip or calling_ae"
        yield Finding(("persistence", "by"), said)
    elif by == "cookie" and not service.reads_http:
        said = f"'cookie' cannot be read in {_spoken(service)}; {_instead(service)}"
        yield Finding(("persistence", "by"), said)
    elif by == "calling_ae" and service.protocol != "dicom":
        said = f"'calling_ae' is a title of DICOM, {service.protocol} has none; {_instead(service)}"
        yield Finding(("persistence", "by"), said)
    for key in ("fallback", "cookie", "same_site"):
        if by != "cookie" and key in kept.model_fields_set:
            yield Finding(("persistence", key), f"has no effect without `by: cookie`, and here it is {by}; take it out")
    if by == "cookie" and kept.same_site == "none" and not service.always_secure:
        said = "browsers take `none` only together with TLS; add tls for all ports, or write lax"
        yield Finding(("persistence", "same_site"), said)


def _instead(service: Service) -> str:
    by_address = service.protocol != "hl7" or service.hl7.key == "connection"
    return (
        "use source_ip" if by_address else f"take it out, since `hl7.key: {service.hl7.key}` says what stays together"
    )


def _of_others(service: Service) -> Iterator[Finding]:
    for key, protocols in _ONLY_FOR.items():
        if key in service.model_fields_set and service.protocol not in protocols:
            whose = " and ".join(each.upper() for each in protocols)
            said = f"has no effect: it is for {whose}, and this service speaks {service.protocol}; take it out"
            yield Finding((key,), said)


def _on_dicom(service: Service) -> Iterator[Finding]:
    if "timeouts" in service.model_fields_set:
        yield Finding(("timeouts",), "those of DICOM stand under dicom; write them there")
    if "http" in service.model_fields_set:
        yield Finding(("http",), "has no effect: dicom is not HTTP; take it out")
    if service.on_down == "cut":
        said = "'cut' is for the other protocols; an association on a node that is down ends by itself or goes on"
        yield Finding(("on_down",), said)
    if service.tls and service.tls.more_certificates:
        said = "DICOM clients name no host, so they are all shown cert; take it out, or give each its own service"
        yield Finding(("tls", "more_certificates"), said)


def _not_dicom(service: Service) -> Iterator[Finding]:
    if service.balance == "least_work":
        said = "'least_work' weighs DICOM associations; write least_connections"
        yield Finding(("balance",), said)
    if not service.listen:
        yield Finding(("listen",), "missing: nobody can reach this service; routes lead to dicom alone")


def _tls(service: Service) -> Iterator[Finding]:
    if service.tls is None:
        return
    if service.protocol == "http":
        yield Finding(("tls",), "has no effect: http is plain; write `protocol: https`")
    if service.tls.client_names:
        said = "is for dicom and hl7; here client_ca lets all of its certificates in, so have an authority of your own"
        yield Finding(("tls", "client_names"), said)


def _node_tls(service: Service) -> Iterator[Finding]:
    if service.node_tls is None:
        return
    name = service.node_tls.server_name
    if name is not None and numeric(name) is not None:
        said = f"{name!r} is an address, and HAProxy compares names alone; write a name of the nodes' certificates"
        yield Finding(("node_tls", "server_name"), said)
    if service.is_passed_through:
        said = "has no effect: without tls, https is passed through to the nodes as it is; add tls, or take it out"
        yield Finding(("node_tls",), said)
    elif service.node_tls.verify == "name" and service.node_tls.server_name is None:
        for name, node in service.nodes.items():
            if numeric(split_port(node.address)[0]) is not None:
                said = (
                    f"'name' compares host names, and {node.address!r} (node {name!r}) is an address: write the name "
                    "in its certificate as server_name, or the node's host name as its address, or `verify: authority`"
                )
                yield Finding(("node_tls", "verify"), said)
                return


def _unread(service: Service) -> Iterator[Finding]:
    if "http" in service.model_fields_set:
        yield Finding(("http",), f"has no effect: requests are not read in {_spoken(service)}; take it out")
    for key in ("request", "stall", "response", "tunnel"):
        if key in service.timeouts.model_fields_set:
            said = f"has no effect: requests are not read in {_spoken(service)}; `idle` is the time for all silence"
            yield Finding(("timeouts", key), said)


def _http(service: Service) -> Iterator[Finding]:
    if service.http.hsts is not None and service.tls is None:
        yield Finding(("http", "hsts"), "has no effect: browsers heed it within TLS alone; add tls, or take it out")
    if service.http.redirect_to_https and (service.tls is None or not service.tls.ports):
        said = "there is no plain port to send from and one with TLS to send to; write tls, and tls.ports"
        yield Finding(("http", "redirect_to_https"), said)
