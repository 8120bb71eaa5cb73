"""Node states: what checks and operators say of each node, beside the plan and far quicker than it.

The state shown is disabled > drain > down or up (`StateName`'s order).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

StateName = Literal["disabled", "drain", "down", "up"]


@dataclass(frozen=True, slots=True)
class Override:
    """What an operator wants of a node; one that wants nothing is not kept."""

    drain: bool = False
    disabled: bool = False
    weight: int | None = None


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node, now.

    Attributes:
        weight: The effective one: the operator's, else the plan's.
        reachable: False where the node is down because its check could not even connect.
    """

    state: StateName
    weight: int
    reachable: bool = True

    @property
    def takes_work(self) -> bool:
        """Whether new work may go there."""
        return self.state == "up" and self.weight > 0


NodeStates = Mapping[str, NodeState]  # by "SERVICE/NODE"


def node_key(service: str, node: str) -> str:
    """Return the name of a node as operators write it."""
    return f"{service}/{node}"


def shown_state(override: Override | None, *, up: bool) -> StateName:
    """Return the state that people see: an operator's word comes before a check's."""
    if override is not None and override.disabled:
        return "disabled"
    if override is not None and override.drain:
        return "drain"
    return "up" if up else "down"
