"""Nodes whose names do not resolve: they take no work until they do, and somebody should know."""

from equipoise.app.inputs import Inputs
from equipoise.plan.model import Plan
from equipoise.state.events import NodeUnresolved


def unresolved_nodes(plan: Plan) -> list[NodeUnresolved]:
    """Return an event for each node whose name does not resolve."""
    return [
        NodeUnresolved(
            service=service.name,
            node=node.name,
            address=node.address,
            reason="the name does not resolve; correct it, add it to DNS or /etc/hosts, or write the IP address",
        )
        for service in plan.services
        for node in service.nodes
        if node.host is None
    ]


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
