"""What can happen in the kernel's tables and on this machine's interfaces; what an event is: `events.py`."""

from dataclasses import dataclass
from typing import ClassVar

from equipoise.state.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer4Started(Event):
    """The kernel carries services by our rules; `adopted` says that it did before this supervisor began."""

    kind: ClassVar[str] = "layer4.started"
    services: tuple[str, ...]
    adopted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer4Restored(Event):
    """Our rules were written anew: another program had removed or changed them, or an interface was made anew.

    Flows that went with them are lost.
    """

    kind: ClassVar[str] = "layer4.restored"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowsFull(Event):
    """A service's table of flows had no room; `refused` new connections were reset since the last such event."""

    kind: ClassVar[str] = "layer4.full"
    service: str
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighbourMoved(Event):
    """The hardware address behind a node's address changed, and packets follow it; None: nobody answers for it."""

    kind: ClassVar[str] = "neighbour.moved"
    address: str
    interface: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressAdded(Event):
    """An address was put on an interface of this machine, and its neighbours were told."""

    kind: ClassVar[str] = "address.added"
    address: str
    interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRemoved(Event):
    """An address that we had put there was taken from this machine."""

    kind: ClassVar[str] = "address.removed"
    address: str
    interface: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressConflict(Event):
    """Another machine of the segment answers for an address of ours."""

    kind: ClassVar[str] = "address.conflict"
    address: str
    interface: str
    mac: str
