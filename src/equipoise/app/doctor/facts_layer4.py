"""What the doctor looks at for services that the kernel carries, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from equipoise.plan.inputs import Way
from equipoise.plan.model import Endpoint

Knock = Literal["listens", "refuses", "silent"]


@dataclass(frozen=True, slots=True)
class DirectNode:
    """A node of a service with `mode: l4_dr`.

    Attributes:
        host: Its numeric address; None while its name does not resolve.
        way: How it is reached; None where it is not.
        called_from: The address of this machine that its checks come from; empty where that is not known.
        macs: The hardware addresses of who answers for `host`: one, as it should be; None where nobody was asked.
        knocks: What became of a connection to each address of the service, sent to this very node; empty where it
            could not be tried.
    """

    service: str
    node: str
    host: str | None
    way: Way | None
    called_from: str = ""
    macs: tuple[str, ...] | None = None
    knocks: tuple[tuple[Endpoint, Knock], ...] = ()

    @property
    def key(self) -> str:
        """Its name as operators write it."""
        return f"{self.service}/{self.node}"


@dataclass(frozen=True, slots=True)
class Claim:
    """Which other machines answer ARP, or neighbour solicitations, for a virtual address."""

    address: str
    macs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layer4Facts:
    """What services in the kernel find on this machine, and around it.

    Attributes:
        whose: Whose rights they are, for people.
        may_change: Whether these suffice to change packet rules (CAP_NET_ADMIN).
        may_ask: Whether the doctor itself may send packets of any kind (CAP_NET_RAW).
        refused: Why the rules could not be loaded, and the way out; empty where they could, None where it was not
            tried.
        absent: Virtual addresses that are not on this machine and that the balancer does not bring up itself.
        forwarding: By IP version, whether packets are passed on; None where it is not known.
        redirecting: Interfaces that tell senders of a shorter way (send_redirects).
        strict: Interfaces that drop what they would not answer by themselves (rp_filter 1).
        ways: How each address of services and nodes is reached.
        claims: Of virtual addresses of direct routing, as far as it could be asked.
    """

    whose: str
    may_change: bool
    may_ask: bool
    refused: str | None
    absent: tuple[str, ...]
    forwarding: Mapping[int, bool | None]
    redirecting: frozenset[str]
    strict: tuple[str, ...]
    ways: Mapping[str, Way | None]
    nodes: tuple[DirectNode, ...]
    claims: tuple[Claim, ...]
