"""What a relay hears from its driver and what it tells it: the seam between protocol and transport.

A relay answers one event with commands and touches nothing; the driver carries them out, in order.
They are structs of msgspec, not dataclasses: some twenty are made for each association, and making one of these takes a
fifth of the time.
"""

import msgspec

from equipoise.state.events import MessageCount

Data = bytes | memoryview


class FromClient(msgspec.Struct, frozen=True, gc=False):
    """Bytes came from the client; a view is valid until the commands have been carried out."""

    data: Data


class FromNode(msgspec.Struct, frozen=True, gc=False):
    """Bytes came from the node."""

    data: Data


class ClientClosed(msgspec.Struct, frozen=True, gc=False):
    """The client's connection is gone."""


class NodeClosed(msgspec.Struct, frozen=True, gc=False):
    """The node's connection is gone; `reason` is what TLS says of it, since a node may refuse us late."""

    reason: str | None = None


class NodePicked(msgspec.Struct, frozen=True, gc=False):
    """This node has a place for us; `alternatives` others could still be asked after it."""

    name: str
    alternatives: int


class NoNode(msgspec.Struct, frozen=True, gc=False):
    """No node takes this work: all are down, drained or tried, or (`limit`) all are full."""

    limit: bool
    reason: str


class NodeOpened(msgspec.Struct, frozen=True, gc=False):
    """The connection to the picked node stands."""


class NodeFailed(msgspec.Struct, frozen=True, gc=False):
    """The connection to the picked node could not be made; `ours`: for a reason of this machine, not the node's."""

    reason: str
    ours: bool = False


class TimerExpired(msgspec.Struct, frozen=True, gc=False):
    """The timer that was started last has run out."""


class WriteStalled(msgspec.Struct, frozen=True, gc=False):
    """A peer has not taken a byte of what waits for it during the stall timeout."""

    client: bool


class Finish(msgspec.Struct, frozen=True, gc=False):
    """End after the current message: the node was disabled."""

    reason: str


class Abort(msgspec.Struct, frozen=True, gc=False):
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


class ToClient(msgspec.Struct, frozen=True, gc=False):
    """Send to the client."""

    data: Data


class ToNode(msgspec.Struct, frozen=True, gc=False):
    """Send to the node."""

    data: Data


class PickNode(msgspec.Struct, frozen=True, gc=False):
    """Give back the node picked before, if any, and find one of this pool that is not in `tried`."""

    pool: str
    calling_ae: str
    tried: tuple[str, ...]


class Blame(msgspec.Struct, frozen=True, gc=False):
    """The node picked last failed in a way that counts against it; at most once for each node picked.

    Attributes:
        kind: refused, busy, aborted, status or slow.
    """

    kind: str
    reason: str


class OpenNode(msgspec.Struct, frozen=True, gc=False):
    """Connect to the picked node."""


class StartTimer(msgspec.Struct, frozen=True, gc=False):
    """Start the one timer, in place of what it was set to before."""

    seconds: float


class CloseNode(msgspec.Struct, frozen=True, gc=False):
    """Close the node's connection once what was sent has left; `linger`: let it close first, for a moment."""

    linger: bool = False


class CloseClient(msgspec.Struct, frozen=True, gc=False):
    """Close the client's connection once what was sent has left."""


class Ended(msgspec.Struct, frozen=True, gc=False):
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


Command = ToClient | ToNode | PickNode | Blame | OpenNode | StartTimer | CloseNode | CloseClient | Ended
