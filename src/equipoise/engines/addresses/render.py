"""What a plan means for the addresses of this machine.  Pure."""

from dataclasses import dataclass
from ipaddress import ip_address

from equipoise.plan.model import ManagedAddress, Plan


@dataclass(frozen=True, slots=True)
class Wanted:
    """An address that is to be here.

    Attributes:
        service: One that listens on it: where the document names it.
        is_direct: Whether a service in mode `l4_dr` listens on it, so that its nodes have it as well.
    """

    address: ManagedAddress
    service: str | None = None
    is_direct: bool = False


@dataclass(frozen=True, slots=True)
class Artifact:
    """All addresses that are to be here, in order."""

    wanted: tuple[Wanted, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.wanted)

    @property
    def addresses(self) -> frozenset[ManagedAddress]:
        """The addresses alone."""
        return frozenset(each.address for each in self.wanted)


def render(plan: Plan) -> Artifact:
    """Say which addresses are to be here; IPv6 in the one way in which the kernel writes it too."""
    return Artifact(tuple(_wanted(plan, address) for address in sorted(set(plan.addresses))))


def _wanted(plan: Plan, address: ManagedAddress) -> Wanted:
    there = [each for each in plan.services if any(place.host == address.host for place in each.listen)]
    return Wanted(
        ManagedAddress(str(ip_address(address.host)), address.interface),
        there[0].name if there else None,
        any(each.mode == "l4_dr" for each in there),
    )
