"""What is to be checked, by a plan."""

from equipoise.health.question import Question
from equipoise.health.runner import Target
from equipoise.plan.model import Plan


def targets(plan: Plan) -> list[Target]:
    """Return what is to be checked; a node without a port of its own is checked at the service's first."""
    return [
        Target(
            service=service.name,
            node=node.name,
            question=Question.of(service, node),
            rise=service.health.rise,
            fall=service.health.fall,
        )
        for service in plan.services
        for node in service.nodes
    ]
