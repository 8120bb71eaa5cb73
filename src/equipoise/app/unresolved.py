"""Nodes whose names do not resolve: they take no work until they do, and somebody should know."""

from equipoise.app.inputs import Inputs
from equipoise.plan.model import Plan, Service
from equipoise.state.events import NodeUnresolved


def unresolved_nodes(plan: Plan) -> list[NodeUnresolved]:
    """Return an event for each node whose name does not resolve."""
    return [
        NodeUnresolved(
            service=service.name,
            node=node.name,
            address=node.address,
            reason=f"the name does not resolve{_to_what(service)}; correct it, add it to DNS or /etc/hosts, or write "
            "the IP address",
        )
        for service in plan.services
        for node in service.nodes
        if node.host is None
    ]


def _to_what(service: Service) -> str:
    """Return which kind of address a name has to have: the kernel carries one family a service."""
    if service.engine != "layer4":
        return ""
    return " to an IPv6 address" if ":" in service.listen[0].host else " to an IPv4 address"


def unresolved(inputs: Inputs, plan: Plan) -> tuple[str, ...]:
    """Return the same as warnings for who applies the document, each at its place."""
    return tuple(
        str(
            inputs.document.problem(
                f"{event.address!r}: {event.reason}; until then the node takes no work",
                "services",
                event.service,
                "nodes",
                event.node,
                "address",
            )
        )
        for event in unresolved_nodes(plan)
    )
