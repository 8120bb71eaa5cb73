"""Soft state: what engines learn of clients and flows from traffic, and what a peer should know when it takes over.

It is pushed, bounded, and forgotten when its time is over.  Losing it costs persistence, never correctness.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SoftEntry:
    """Where a client, or a flow, belongs.

    Attributes:
        key: What stands for it in the engine's table.
        node: The node's name.
        left_s: How long it will be remembered; 0 where it is over and to be forgotten.  Not a time of day, as clocks of
            two machines differ.
    """

    key: str
    node: str
    left_s: float


FLOWS = "flows"  # the kind of tables that tell of single connections; all others tell of clients

# By "ENGINE/KIND/SERVICE", such as "gateway/persistence/ct" or "layer4/flows/pacs-web".
SoftState = Mapping[str, tuple[SoftEntry, ...]]


def soft_table(engine: str, kind: str, service: str) -> str:
    """Return the name of a table."""
    return f"{engine}/{kind}/{service}"


def is_of_flows(table: str) -> bool:
    """Say whether a table tells of single connections, many of which may belong to one client."""
    return table.split("/")[1:2] == [FLOWS]
