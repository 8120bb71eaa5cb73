"""A node as policies see it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a pool offers a policy to choose among."""

    name: str
    weight: float
    connections: int
    work: float = 0.0
