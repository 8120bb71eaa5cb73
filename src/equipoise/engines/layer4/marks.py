"""The number by which the kernel knows a node: in tables of flows, and as the mark of a translated connection.

It follows from the node's name alone, so that the flows in the kernel stay with their node whatever else changes,
across supervisors, and on the other machine of a pair.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b

from equipoise.plan.model import Plan
from equipoise.plan.states import node_key

PREFIX = 0x45000000  # tells our marks from those of other programs
MASK = 0xFF000000
_LAST = 0x00FFFFFF


def marks(plan: Plan, table: str) -> Mapping[str, int]:
    """Return the mark of every node that the kernel carries traffic to, by "SERVICE/NODE".

    Instances on one machine have tables of different names, and so different marks for nodes of the same name.
    """
    carried = [service for service in plan.services if service.engine == "layer4"]
    return marks_of((node_key(service.name, node.name) for service in carried for node in service.nodes), table)


def marks_of(keys: Iterable[str], table: str) -> Mapping[str, int]:
    """Return a mark for each key, no two alike: of two that would be, the later by name has the next free one."""
    taken: dict[int, str] = {}
    for key in sorted(keys):
        number = int.from_bytes(blake2b(f"{table} {key}".encode(), digest_size=3).digest(), "big")
        while number in taken:
            number = (number + 1) & _LAST
        taken[number] = key
    return {key: PREFIX | number for number, key in taken.items()}
