"""What a plan means to gateways: which process has which services.  Pure."""

import hashlib
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

    Each service goes to the worker that its name prefers (rendezvous hashing) among those with room, so that adding or
    removing one service moves few others.
    """
    services = [service for service in plan.services if service.engine == "gateway"]
    room = -(-len(services) // plan.gateway_workers) if services else 0
    workers: list[list[ServiceTask]] = [[] for _ in range(plan.gateway_workers)]
    for service in sorted(services, key=lambda each: each.name):
        preferred = sorted(range(plan.gateway_workers), key=lambda worker: _preference(service.name, worker))
        worker = next(number for number in preferred if len(workers[number]) < room)
        workers[worker].append(_task(service))
    return Artifact(plan.digest, tuple(tuple(tasks) for tasks in workers))


def _preference(service: str, worker: int) -> bytes:
    return hashlib.sha256(f"{service}|{worker}".encode()).digest()


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
    )
