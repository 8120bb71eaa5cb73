"""The part of a plan that can be served although files of TLS cannot be used (ADR 0007).

A gateway reads its files itself and does without; HAProxy takes its configuration whole or not at all.  So a service
whose files cannot be used goes on as HAProxy has it, or is left out, and the others are served.
"""

from collections.abc import Collection
from dataclasses import replace

from equipoise.plan.model import NodeTls, Plan, Service, Tls


def able(plan: Plan, spoiled: Collection[str], running: Plan | None) -> Plan:
    """Return what HAProxy can be given.

    Args:
        plan: What is wanted.
        spoiled: The services whose files cannot be used.
        running: What HAProxy has, copies of the files included; None where it has nothing yet.
    """
    services = (_able(service, running) if service.name in spoiled else service for service in plan.services)
    return replace(plan, services=tuple(service for service in services if service is not None))


def _able(service: Service, running: Plan | None) -> Service | None:
    if service.engine != "haproxy":
        return service
    before = running.service(service.name) if running is not None else None
    if before is None or _named(before) != _named(service):
        return None
    return replace(service, tls=before.tls, node_tls=before.node_tls)


def _named(service: Service) -> tuple[Tls | None, NodeTls | None]:
    """Return the settings of TLS without what the files held."""
    tls, node_tls = service.tls, service.node_tls
    return (tls and replace(tls, fingerprint=""), node_tls and replace(node_tls, fingerprint=""))
