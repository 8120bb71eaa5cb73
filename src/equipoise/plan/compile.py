"""Say what a site means: `Site` and facts in, `Plan` out.  Also the plan as JSON, there and back.

Leaves out node states (verdicts, overrides), which never change a plan.  The same site and facts give the same plan and
the same digest, whatever the order of its services; the order of nodes stays, because `first_up` reads it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import msgspec

from equipoise.base.errors import EquipoiseError
from equipoise.config import dicom, hl7, models, securing, web
from equipoise.config.base import CheckParams
from equipoise.config.fields import numeric, split_port
from equipoise.config.parts import restored
from equipoise.config.protocols import HALF_A_DAY_S
from equipoise.config.suited_layer4 import is_manageable
from equipoise.plan.compile_cluster import cluster_of, floating, merged
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import (
    CertificateFile,
    Dicom,
    Endpoint,
    Hl7,
    Http,
    Layer4,
    ManagedAddress,
    Node,
    NodeTls,
    PassiveHealth,
    Persistence,
    Plan,
    ProxyProtocol,
    Route,
    Service,
    Timeouts,
    Tls,
)

_DIGEST_DIGITS = 12
# Longer than TCP's keepalive, which comes after 2 h (RFC 9293, section 3.8.4) and by default tries for 11 minutes more:
# what is forgotten before that cuts connections that only waited.
_FLOW_IDLE_S = 10800.0


def names_to_resolve(site: models.Site) -> frozenset[str]:
    """Return the host names of all nodes: what `HostFacts.resolved` is to answer."""
    hosts = (split_port(node.address)[0] for service in site.services.values() for node in service.nodes.values())
    return frozenset(host for host in hosts if numeric(host) is None)


def versions_of_names(site: models.Site) -> Mapping[str, int]:
    """Return which IP version the address of a host name has to be of, where that matters: at layer 4."""
    return {
        split_port(node.address)[0]: version
        for _, service in sorted(site.services.items())
        if service.in_kernel and (version := _version(service)) is not None
        for node in service.nodes.values()
        if numeric(split_port(node.address)[0]) is None
    }


def addresses_to_reach(site: models.Site, known: HostFacts) -> frozenset[str]:
    """Return the numeric addresses that `HostFacts.ways` is to answer, once names are resolved."""
    direct = [service for service in site.services.values() if service.mode == "l4_dr"]
    nodes = {_host(node, service, known) for service in direct for node in service.nodes.values()}
    listens = {listener.host for service in direct for listener in service.listeners}
    return frozenset(host for host in (*nodes, *listens, *_managed(site)) if host is not None) | floating(site, known)


def files_to_read(site: models.Site) -> frozenset[str]:
    """Return the paths of all files that the site names: what `HostFacts.files` is to answer."""
    keys = [key for service in site.services.values() for key in (service.tls, service.node_tls) if key is not None]
    return frozenset(path for each in keys for path in files_of(each))


def files_of(tls: securing.Tls | securing.NodeTls) -> tuple[str, ...]:
    """Return the files that these settings name."""
    if isinstance(tls, securing.NodeTls):
        named: tuple[str | None, ...] = (tls.cert, tls.key, tls.ca)
    else:
        more = (path for each in tls.more_certificates for path in (each.cert, each.key))
        named = (tls.cert, tls.key, tls.client_ca, *more)
    return tuple(path for path in named if path is not None)


def compile_plan(site: models.Site, facts: HostFacts) -> Plan:
    """Return the plan of this site."""
    cluster = cluster_of(site, facts)
    plan = Plan(
        site=site.site,
        services=tuple(_service(name, service, site.network, facts) for name, service in sorted(site.services.items())),
        gateway_workers=site.gateway.workers,
        drain_timeout_s=site.drain_timeout,
        digest="",
        # In a pair they are keepalived's; and while there is no peer yet, or no more, another machine may have them.
        addresses=_addresses(site, facts) if merged(site, facts) is None else (),
        cluster=cluster,
    )
    return replace(plan, digest=_digest(plan))


def _addresses(site: models.Site, facts: HostFacts) -> tuple[ManagedAddress, ...]:
    given = site.network.interface[:1]
    placed = {host: given or _interfaces_to((host,), facts) for host in _managed(site)}
    return tuple(sorted(ManagedAddress(host, where[0]) for host, where in placed.items() if where))


def _managed(site: models.Site) -> frozenset[str]:
    """Return the addresses that the site has its balancer bring up, wherever that may be."""
    services = site.services.values() if site.network.manage_addresses else ()
    hosts = (listener.host for service in services for listener in service.listeners)
    return frozenset(host for host in hosts if is_manageable(host))


def _interfaces_to(hosts: Iterable[str], facts: HostFacts) -> tuple[str, ...]:
    ways = (facts.ways.get(host) for host in hosts)
    return tuple(dict.fromkeys(way.interface for way in ways if way is not None))


def _digest(plan: Plan) -> str:
    content = json.dumps({**to_json(plan), "digest": ""}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()[:_DIGEST_DIGITS]


def _service(name: str, service: models.Service, network: models.Network, facts: HostFacts) -> Service:
    check, params = service.check
    return Service(
        name=name,
        protocol=service.protocol,
        mode=service.mode,
        engine=service.engine,
        listen=tuple(Endpoint(listener.host, listener.port) for listener in service.listeners),
        balance=service.picked_by,
        persistence=_persistence(service),
        health=params,
        check=check,
        nodes=tuple(_node(node_name, node, service, facts) for node_name, node in service.nodes.items()),
        allow_from=service.allow_from,
        max_connections=service.max_connections,
        max_per_source=service.max_per_source,
        queue_wait_s=service.queue_wait,
        source_address=service.source_address,
        slow_start_s=service.slow_start,
        passive_health=_passive_health(service.passive_health),
        routes=tuple(_route(route) for route in service.routes),
        tls=_tls(service.tls, facts) if service.tls is not None else None,
        node_tls=_node_tls(service.node_tls, facts) if service.node_tls is not None else None,
        proxy_protocol=ProxyProtocol(send=service.proxy_protocol.send, accept=service.proxy_protocol.accept),
        dicom=_dicom(service.dicom),
        reads_http=service.reads_http,
        always_secure=service.always_secure,
        on_down=service.when_down,
        timeouts=_timeouts(service),
        http=_http(service.http),
        hl7=_hl7(service.hl7),
        layer4=_layer4(service, network, facts),
    )


def _layer4(service: models.Service, network: models.Network, facts: HostFacts) -> Layer4:
    if service.mode != "l4_dr":
        return Layer4(masquerade=service.masquerade)
    hosts = (listener.host for listener in service.listeners)
    return Layer4(
        interfaces=network.interface or _interfaces_to(hosts, facts), idle_s=service.timeouts.idle or _FLOW_IDLE_S
    )


def _passive_health(passive: models.PassiveHealth) -> PassiveHealth:
    return PassiveHealth(
        failures=passive.failures,
        within_s=passive.within,
        rest_s=passive.rest,
        slow_response_s=passive.slow_response,
    )


def _route(route: dicom.Route) -> Route:
    return Route(
        called_ae=route.called_ae,
        calling_ae=route.calling_ae,
        service=route.service,
        source=route.from_,
        to=route.to,
    )


def _tls(tls: securing.Tls, facts: HostFacts) -> Tls:
    return Tls(
        cert=tls.cert,
        key=tls.key,
        client_ca=tls.client_ca,
        min_version=tls.min_version,
        ports=tls.ports,
        client_names=tls.client_names,
        more_certificates=tuple(CertificateFile(each.cert, each.key) for each in tls.more_certificates),
        fingerprint=_fingerprint(tls, facts),
    )


def _node_tls(tls: securing.NodeTls, facts: HostFacts) -> NodeTls:
    return NodeTls(
        ca=tls.ca,
        verify=tls.verify,
        server_name=tls.server_name,
        cert=tls.cert,
        key=tls.key,
        min_version=tls.min_version,
        fingerprint=_fingerprint(tls, facts),
    )


def _fingerprint(tls: securing.Tls | securing.NodeTls, facts: HostFacts) -> str:
    content = "|".join(facts.files.get(path, "") for path in files_of(tls))
    return hashlib.sha256(content.encode()).hexdigest()[:_DIGEST_DIGITS]


def _node(name: str, node: models.Node, service: models.Service, facts: HostFacts) -> Node:
    host = _host(node, service, facts)
    way = facts.ways.get(host) if host is not None and service.mode == "l4_dr" else None
    return Node(
        name=name,
        address=node.address,
        host=host,
        port=split_port(node.address)[1],
        weight=node.weight,
        max_connections=node.max_connections,
        backup=node.backup,
        interface=way.interface if way is not None else None,
        router=way.router if way is not None else None,
    )


def _host(node: models.Node, service: models.Service, facts: HostFacts) -> str | None:
    """Return the numeric address of a node; None where its name has none that the service can use."""
    written = split_port(node.address)[0]
    host = written if numeric(written) is not None else facts.resolved.get(written)
    address = numeric(host) if host is not None else None
    if service.in_kernel and address is not None and address.version != _version(service):
        return None  # packets are passed on as they are, in the family that the client chose
    return host


def _version(service: models.Service) -> int | None:
    """Return the IP version of what a service listens on; at layer 4 there is only one."""
    first = numeric(service.listeners[0].host) if service.listeners else None
    return first.version if first is not None else None


def _persistence(service: models.Service) -> Persistence:
    kept, by = service.persistence, service.known_by
    plain = Persistence(by=by, ttl_s=kept.ttl, mask=kept.mask, mask6=kept.mask6)
    if by != "cookie":
        return plain
    return replace(plain, fallback=kept.fallback, cookie=kept.cookie, same_site=kept.same_site)


def _timeouts(service: models.Service) -> Timeouts:
    given = service.timeouts
    if service.in_kernel:
        return Timeouts()
    usual_s = HALF_A_DAY_S if service.is_passed_through else service.traits.idle_s
    return Timeouts(
        connect_s=given.connect,
        request_s=given.request,
        idle_s=given.idle or usual_s,
        stall_s=given.stall,
        response_s=given.response,
        tunnel_s=given.tunnel,
    )


def _http(http: web.Http) -> Http:
    return Http(
        redirect_to_https=http.redirect_to_https,
        hsts_s=http.hsts,
        trust_forwarded=http.trust_forwarded,
        retry_after_s=http.retry_after,
    )


def _dicom(settings: dicom.Dicom) -> Dicom:
    return Dicom(
        called_ae_allow=settings.called_ae_allow,
        calling_ae_allow=settings.calling_ae_allow,
        node_called_ae=settings.node_called_ae,
        connect_timeout_s=settings.connect_timeout,
        setup_timeout_s=settings.setup_timeout,
        artim_s=settings.artim,
        idle_timeout_s=settings.idle_timeout,
        stall_timeout_s=settings.stall_timeout,
        max_associate_bytes=settings.max_associate,
    )


def _hl7(settings: hl7.Hl7) -> Hl7:
    return Hl7(
        key=settings.key,
        hold_s=settings.hold,
        on_no_node=settings.on_no_node,
        receivers_deduplicate=settings.receivers_deduplicate,
        try_next=settings.try_next,
        max_message_bytes=settings.max_message,
        ack_timeout_s=settings.ack_timeout,
        connect_timeout_s=settings.connect_timeout,
        stall_timeout_s=settings.stall_timeout,
        idle_timeout_s=settings.idle_timeout,
        frame_start=settings.frame_start,
        frame_end=settings.frame_end,
        mllp_release=settings.mllp_release,
    )


def to_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON values, numbers in the units of the plan; `from_json` reads it back."""
    return {field.name: _plain(getattr(plan, field.name)) for field in fields(plan)}


def _plain(value: object) -> Any:
    if isinstance(value, CheckParams):  # not model_dump: it rounds sizes for people
        return {name: _plain(each) for name, each in value}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, set | frozenset):
        return sorted(_plain(each) for each in value)
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return msgspec.to_builtins(value)


def from_json(stored: Any, checks: Mapping[str, type[CheckParams]]) -> Plan:
    """Return the plan that `to_json` wrote.  Raises: EquipoiseError where another version wrote it, or nobody did."""
    try:
        services = [
            {**service, "health": restored(checks[service["check"]], service["health"], checks)}
            for service in stored["services"]
        ]
        return msgspec.convert({**stored, "services": services}, Plan, dec_hook=lambda _, value: value)
    except (msgspec.ValidationError, ValueError, KeyError, TypeError) as error:
        raise EquipoiseError(f"the stored plan cannot be read ({error}); apply the document again") from None
