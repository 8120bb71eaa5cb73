"""Say what a site means: `Site` and facts in, `Plan` out.  Also the plan as JSON, there and back.

Leaves out node states (verdicts, overrides), which never change a plan.  The same site and facts give the same plan and
the same digest, whatever the order of its services; the order of nodes stays, because `first_up` reads it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import msgspec

from equipoise.base.errors import EquipoiseError
from equipoise.config import hl7, models, securing, web
from equipoise.config.base import CheckParams
from equipoise.config.fields import numeric, split_port
from equipoise.config.parts import restored
from equipoise.config.protocols import HALF_A_DAY_S
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import (
    CertificateFile,
    Dicom,
    Endpoint,
    Hl7,
    Http,
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


def names_to_resolve(site: models.Site) -> frozenset[str]:
    """Return the host names of all nodes: what `HostFacts.resolved` is to answer."""
    hosts = (split_port(node.address)[0] for service in site.services.values() for node in service.nodes.values())
    return frozenset(host for host in hosts if numeric(host) is None)


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
    plan = Plan(
        site=site.site,
        services=tuple(_service(name, service, facts) for name, service in sorted(site.services.items())),
        gateway_workers=site.gateway.workers,
        drain_timeout_s=site.drain_timeout,
        digest="",
    )
    return replace(plan, digest=_digest(plan))


def _digest(plan: Plan) -> str:
    content = json.dumps({**to_json(plan), "digest": ""}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()[:_DIGEST_DIGITS]


def _service(name: str, service: models.Service, facts: HostFacts) -> Service:
    check, params = service.check
    return Service(
        name=name,
        protocol=service.protocol,
        mode=service.mode,
        engine=service.traits.engine,
        listen=tuple(Endpoint(listener.host, listener.port) for listener in service.listeners),
        balance=service.picked_by,
        persistence=_persistence(service),
        health=params,
        check=check,
        nodes=tuple(_node(node_name, node, facts) for node_name, node in service.nodes.items()),
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
        on_down=service.on_down,
        timeouts=_timeouts(service),
        http=_http(service.http),
        hl7=_hl7(service.hl7),
    )


def _passive_health(passive: models.PassiveHealth) -> PassiveHealth:
    return PassiveHealth(
        failures=passive.failures,
        within_s=passive.within,
        rest_s=passive.rest,
        slow_response_s=passive.slow_response,
    )


def _route(route: models.Route) -> Route:
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


def _node(name: str, node: models.Node, facts: HostFacts) -> Node:
    host, port = split_port(node.address)
    return Node(
        name=name,
        address=node.address,
        host=host if numeric(host) is not None else facts.resolved.get(host),
        port=port,
        weight=node.weight,
        max_connections=node.max_connections,
        backup=node.backup,
    )


def _persistence(service: models.Service) -> Persistence:
    kept, by = service.persistence, service.known_by
    plain = Persistence(by=by, ttl_s=kept.ttl, mask=kept.mask, mask6=kept.mask6)
    if by != "cookie":
        return plain
    return replace(plain, fallback=kept.fallback, cookie=kept.cookie, same_site=kept.same_site)


def _timeouts(service: models.Service) -> Timeouts:
    given = service.timeouts
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


def _dicom(dicom: models.Dicom) -> Dicom:
    return Dicom(
        called_ae_allow=dicom.called_ae_allow,
        calling_ae_allow=dicom.calling_ae_allow,
        node_called_ae=dicom.node_called_ae,
        connect_timeout_s=dicom.connect_timeout,
        setup_timeout_s=dicom.setup_timeout,
        artim_s=dicom.artim,
        idle_timeout_s=dicom.idle_timeout,
        stall_timeout_s=dicom.stall_timeout,
        max_associate_bytes=dicom.max_associate,
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
