"""What a plan means to gateways: which process has which services.  Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from equipoise.engines.gateway.messages import ServiceTask
from equipoise.plan.model import Plan, Service


@dataclass(frozen=True, slots=True)
class Artifact:
    """The services of each worker, by the worker's number."""

    digest: str
    workers: tuple[tuple[ServiceTask, ...], ...]


def render(plan: Plan) -> Artifact:
    """Spread the plan's gateway services over its workers; a service belongs to exactly one.

    Services that routes link share a worker, since a route leads to a pool of the same process.  Each such group goes
    to the worker that it prefers (rendezvous hashing) among those with room, the largest first, so that all get about
    as many and adding or removing one service moves few others.  Without any service there is no worker.
    """
    services = {service.name: service for service in plan.services if service.engine == "gateway"}
    if not services:
        return Artifact(plan.digest, ())
    room = -(-len(services) // plan.gateway_workers)
    workers: list[list[str]] = [[] for _ in range(plan.gateway_workers)]
    for group in sorted(_groups(services), key=lambda each: (-len(each), each)):
        preferred = sorted(range(plan.gateway_workers), key=lambda worker: _preference(group, worker))
        roomy = [worker for worker in preferred if len(workers[worker]) + len(group) <= room]
        number = roomy[0] if roomy else min(preferred, key=lambda worker: len(workers[worker]))
        workers[number] += group
    return Artifact(plan.digest, tuple(tuple(_task(services[name]) for name in sorted(names)) for names in workers))


def _groups(services: Mapping[str, Service]) -> list[tuple[str, ...]]:
    """Return the names of services that routes link, in whichever direction and over however many steps."""
    groups = {name: {name} for name in services}
    for name, service in services.items():
        for target in {route.to for route in service.routes} & services.keys():
            joined = groups[name] | groups[target]
            groups.update(dict.fromkeys(joined, joined))
    return sorted({tuple(sorted(group)) for group in groups.values()})


def _preference(group: tuple[str, ...], worker: int) -> bytes:
    """Return how far down the worker is in the group's list: as its most decided service has it."""
    return min(hashlib.sha256(f"{service}|{worker}".encode()).digest() for service in group)


def _task(service: Service) -> ServiceTask:
    return ServiceTask(
        name=service.name,
        listen=service.listen,
        balance=service.balance,
        persistence=service.persistence,
        nodes=service.nodes,
        allow_from=service.allow_from,
        max_connections=service.max_connections,
        queue_wait_s=service.queue_wait_s,
        source_address=service.source_address,
        dicom=service.dicom,
        protocol=service.protocol,
        hl7=service.hl7,
        max_per_source=service.max_per_source,
        slow_start_s=service.slow_start_s,
        passive_health=service.passive_health,
        routes=service.routes,
        tls=service.tls,
        node_tls=service.node_tls,
        proxy_protocol=service.proxy_protocol,
    )
