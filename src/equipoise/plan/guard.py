"""Refuse a plan that takes away too much at once: an empty file or a bad merge must not stop a hospital.

Leaves out whether nodes work; it compares names alone.
"""

from collections.abc import Iterator

from equipoise.base.errors import ConfigError, Problem
from equipoise.plan.model import Plan, Service

_WAY_OUT = "if that is meant, apply it with --force"


def guard(old: Plan | None, new: Plan, force: bool = False) -> Plan:
    """Return `new`.

    Raises: ConfigError where more than half of the services of `old` vanish, a service that stays loses more than half
    of its nodes, or an address is taken from this machine on which a service still listens, unless `force`.
    """
    if old is None or force:
        return new
    if losses := [*_services_lost(old, new), *_nodes_lost(old, new), *_addresses_lost(old, new)]:
        raise ConfigError([Problem("", 0, 0, "", f"{'; '.join(losses)}: {_WAY_OUT}")])
    return new


def refusal(old: Plan | None, new: Plan) -> tuple[str, ...]:
    """Return why `new` would be refused without `force`; nothing where it would not."""
    try:
        guard(old, new)
    except ConfigError as error:
        return (str(error),)
    return ()


def _services_lost(old: Plan, new: Plan) -> Iterator[str]:
    lost = [service.name for service in old.services if new.service(service.name) is None]
    if len(lost) * 2 > len(old.services):
        yield f"{len(lost)} of {len(old.services)} services would vanish ({', '.join(lost)})"


def _nodes_lost(old: Plan, new: Plan) -> Iterator[str]:
    for service in old.services:
        if (after := new.service(service.name)) is not None:
            yield from _pool_lost(service, after)


def _pool_lost(old: Service, new: Service) -> Iterator[str]:
    lost = [node.name for node in old.nodes if new.node(node.name) is None]
    if len(lost) * 2 > len(old.nodes):
        yield f"service {old.name!r} would lose {len(lost)} of its {len(old.nodes)} nodes ({', '.join(lost)})"


def _addresses_lost(old: Plan, new: Plan) -> Iterator[str]:
    needed = {endpoint.host for service in new.services for endpoint in service.listen}
    lost = {address.host for address in old.vips} - {address.host for address in new.vips}
    if still := sorted(needed & lost):
        yield f"{', '.join(still)} would be taken from this machine while services listen there"
