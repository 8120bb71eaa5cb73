"""What a relay hears from its driver and what it tells it: the seam between protocol and transport.

A relay answers one event with commands and touches nothing; the driver carries them out, in order.
"""

from dataclasses import dataclass

from equipoise.state.events import MessageCount

Data = bytes | memoryview


@dataclass(frozen=True, slots=True)
class FromClient:
    """Bytes came from the client; a view is valid until the commands have been carried out."""

    data: Data


@dataclass(frozen=True, slots=True)
class FromNode:
    """Bytes came from the node."""

    data: Data


@dataclass(frozen=True, slots=True)
class ClientClosed:
    """The client's connection is gone."""


@dataclass(frozen=True, slots=True)
class NodeClosed:
    """The node's connection is gone."""


@dataclass(frozen=True, slots=True)
class NodePicked:
    """This node has a place for us; `alternatives` others could still be asked after it."""

    name: str
    alternatives: int


@dataclass(frozen=True, slots=True)
class NoNode:
    """No node takes this work: all are down, drained or tried, or (`limit`) all are full."""

    limit: bool
    reason: str


@dataclass(frozen=True, slots=True)
class NodeOpened:
    """The connection to the picked node stands."""


@dataclass(frozen=True, slots=True)
class NodeFailed:
    """The connection to the picked node could not be made."""

    reason: str


@dataclass(frozen=True, slots=True)
class TimerExpired:
    """The timer that was started last has run out."""


@dataclass(frozen=True, slots=True)
class WriteStalled:
    """A peer has not taken a byte of what waits for it during the stall timeout."""

    client: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """End after the current message: the node was disabled."""

    reason: str


@dataclass(frozen=True, slots=True)
class Abort:
    """End now, politely: the drain's time is over."""

    reason: str


Event = (
    FromClient
    | FromNode
    | ClientClosed
    | NodeClosed
    | NodePicked
    | NoNode
    | NodeOpened
    | NodeFailed
    | TimerExpired
    | WriteStalled
    | Finish
    | Abort
)


@dataclass(frozen=True, slots=True)
class ToClient:
    """Send to the client."""

    data: Data


@dataclass(frozen=True, slots=True)
class ToNode:
    """Send to the node."""

    data: Data


@dataclass(frozen=True, slots=True)
class PickNode:
    """Give back the node picked before, if any, and find one that is not in `tried`."""

    calling_ae: str
    tried: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OpenNode:
    """Connect to the picked node."""


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Start the one timer, in place of what it was set to before."""

    seconds: float


@dataclass(frozen=True, slots=True)
class CloseNode:
    """Close the node's connection once what was sent has left; `linger`: let it close first, for a moment."""

    linger: bool = False


@dataclass(frozen=True, slots=True)
class CloseClient:
    """Close the client's connection once what was sent has left."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The conversation is over and the node is free; what remains is only to see the connections closed.

    `node` and what follows are as in `state.events.AssociationEnded`.
    """

    calling_ae: str
    called_ae: str
    node: str | None
    tried: tuple[str, ...]
    ended: str
    reason: str
    setup_ms: float | None
    messages: tuple[MessageCount, ...]


Command = ToClient | ToNode | PickNode | OpenNode | StartTimer | CloseNode | CloseClient | Ended
