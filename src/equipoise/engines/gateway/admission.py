"""Who may associate, and with whose nodes: decided from the A-ASSOCIATE-RQ and the source address alone.

A request that a route leads elsewhere must be let in twice: by the service that the client came to, and by the one
whose pool it is to have.
Source: DICOM PS3.8 section 9.3.4 (rejects), section 9.3.2 (protocol version: test bit 0 alone; titles).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from equipoise.engines.gateway.conditions import Network, fits, is_within, networks_of
from equipoise.engines.gateway.messages import ServiceTask
from equipoise.engines.gateway.routing import NoRoute, Routes
from equipoise.plan.model import Dicom
from equipoise.proto.dicom.association import AssociateRequest
from equipoise.proto.dicom.pdu import (
    REJECT_CALLED_AE,
    REJECT_CALLING_AE,
    REJECT_NO_REASON,
    REJECT_VERSION,
    Reject,
)


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request may have a node.

    Attributes:
        pool: Of which service.
        settings: That service's.
        slow_response_s: From when on that service counts a response against a node.
    """

    pool: str
    settings: Dicom
    slow_response_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The request is rejected before a node is asked; `ended` and `reason` are what the event says."""

    reject: Reject
    ended: str
    reason: str


@dataclass(frozen=True, slots=True)
class Gate:
    """What one service asks of those who come, and how it treats them."""

    settings: Dicom
    networks: tuple[Network, ...]
    admitted: Admitted

    @classmethod
    def of(cls, task: ServiceTask) -> "Gate":
        """Return the gate of this service."""
        networks = () if task.proxy_protocol.accept else task.allow_from  # else that is who brings the clients
        admitted = Admitted(task.name, task.dicom, task.passive_health.slow_response_s)
        return cls(task.dicom, networks_of(networks), admitted)

    def refusal(self, request: AssociateRequest, source_ip: str) -> tuple[Reject, str] | None:
        """Return the reject that this request gets, and why; or None where it may go on."""
        if not is_within(source_ip, self.networks):
            return REJECT_NO_REASON, f"source {source_ip} is not in allow_from"
        if not request.protocol_version & 1:
            return REJECT_VERSION, f"protocol version 0x{request.protocol_version:04X} lacks bit 0, version 1"
        if not request.called_ae:
            return REJECT_CALLED_AE, "the called AE is empty; it has 1 to 16 characters that are not spaces"
        if not fits(request.called_ae, self.settings.called_ae_allow):
            return REJECT_CALLED_AE, f"called AE {request.called_ae!r} is not in dicom.called_ae_allow"
        if not request.calling_ae:
            return REJECT_CALLING_AE, "the calling AE is empty; it has 1 to 16 characters that are not spaces"
        if not fits(request.calling_ae, self.settings.calling_ae_allow):
            return REJECT_CALLING_AE, f"calling AE {request.calling_ae!r} is not in dicom.calling_ae_allow"
        return None


@dataclass(frozen=True, slots=True)
class Door:
    """What stands between a client and the pools.

    Attributes:
        service: The service that the client came to.
        gate: That service's own.
        targets: Of the other services that its routes name.
    """

    service: str
    gate: Gate
    routes: Routes
    targets: Mapping[str, Gate]

    @classmethod
    def of(cls, task: ServiceTask, others: Mapping[str, ServiceTask]) -> "Door":
        """Return the door of a service.

        Args:
            task: The service.
            others: By name, the services that its routes name; the service itself need not be there.
        """
        routes = Routes.of(task.name, task.routes, has_nodes=bool(task.nodes))
        names = {route.to for route in task.routes if route.to in others} - {task.name}
        return cls(task.name, Gate.of(task), routes, {name: Gate.of(others[name]) for name in sorted(names)})

    @property
    def settings(self) -> Dicom:
        """What holds until a pool has been chosen."""
        return self.gate.settings

    def admit(self, request: AssociateRequest, source_ip: str) -> Admitted | Refused:
        """Return whose pool this request is for, or why it is for none."""
        if (refused := self.gate.refusal(request, source_ip)) is not None:
            return Refused(refused[0], "refused", refused[1])
        pool = self.routes.pool_for(request, source_ip)
        if isinstance(pool, NoRoute):
            return Refused(REJECT_NO_REASON, "refused", pool.reason)
        if pool == self.service:
            return self.gate.admitted
        target = self.targets.get(pool)
        if target is None:  # it is being taken out, and who asks for its node will hear so
            return replace(self.gate.admitted, pool=pool)
        if (refused := target.refusal(request, source_ip)) is not None:
            return Refused(refused[0], "refused", f"route to {pool}: {refused[1]}")
        return target.admitted
