"""What a way to pick a node is.  Pure: the same picks in the same order give the same nodes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks: what persistence and hashing go by."""

    source_ip: str
    calling_ae: str


class Candidate(Protocol):
    """A node that may take this work now."""

    @property
    def name(self) -> str:
        """The node's name."""

    @property
    def weight(self) -> float:
        """More than 0; twice the weight, twice the work.  Slow start makes it less for a while."""

    @property
    def connections(self) -> int:
        """Open now, those on their way included."""

    @property
    def work(self) -> float:
        """Bytes that would be waited for if this node were picked, by the new association and by those that are open.

        Known only to policies of a kind that `weighs_work`.
        """


class Policy(Protocol):
    """One service's way to pick; it may remember what it picked before."""

    def pick(self, candidates: Sequence[Candidate], client: Client) -> str:
        """Return the name of one of `candidates`, of which there is at least one, in the configuration's order."""


@dataclass(frozen=True, slots=True)
class PolicyKind:
    """A policy as the configuration finds it.

    Attributes:
        name: What `balance` says.
        weighs_work: Whether it asks for `Candidate.work`, which costs a little to know.
        counts: Whether it asks for `Candidate.connections`.
        ramps: Whether a node that returns starts slowly.
        pins: Whether a client's node follows from the client and the nodes alone, so that it can be waited for.
    """

    name: str
    make: Callable[[], Policy]
    weighs_work: bool = False
    counts: bool = False
    ramps: bool = True
    pins: bool = False
