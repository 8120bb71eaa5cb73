"""What can happen to a pair of machines; what an event is: `events.py`."""

from dataclasses import dataclass
from typing import ClassVar

from equipoise.state.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class VipsTaken(Event):
    """This machine has the addresses of a group from now on."""

    kind: ClassVar[str] = "cluster.taken"
    group: str
    addresses: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VipsLeft(Event):
    """This machine has the addresses of a group no more; `state` is `backup`, or `fault` where it cannot take them."""

    kind: ClassVar[str] = "cluster.left_to_peer"
    group: str
    addresses: tuple[str, ...]
    state: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFault(Event):
    """This machine cannot carry traffic, so it takes no addresses; None: it can again."""

    kind: ClassVar[str] = "cluster.fault"
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitBrain(Event):
    """Both machines hold these addresses, or another machine answers for them; empty: no more."""

    kind: ClassVar[str] = "cluster.split"
    addresses: tuple[str, ...]
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConnected(Event):
    """The two machines talk to each other."""

    kind: ClassVar[str] = "cluster.peer_connected"
    peer: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLost(Event):
    """The peer does not answer: documents, overrides and persistence do not reach it."""

    kind: ClassVar[str] = "cluster.peer_lost"
    peer: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairJoined(Event):
    """This machine and another one became a pair."""

    kind: ClassVar[str] = "cluster.joined"
    peer: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLeft(Event):
    """The pair is no more; `by` is `here` or `peer`."""

    kind: ClassVar[str] = "cluster.left"
    peer: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionTaken(Event):
    """The peer's document is in force here."""

    kind: ClassVar[str] = "cluster.revision"
    revision: int
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionRefused(Event):
    """A document could not be made the same on both: the peer did not take ours, or we could not take the peer's."""

    kind: ClassVar[str] = "cluster.revision_refused"
    revision: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionConflict(Event):
    """Both machines were given a document while they could not talk; neither is put in the place of the other."""

    kind: ClassVar[str] = "cluster.conflict"
    ours: int
    theirs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver(Event):
    """An operator had addresses move; `within_ms` is how long nobody had them, as far as this machine can tell."""

    kind: ClassVar[str] = "cluster.handover"
    groups: tuple[str, ...]
    to: str
    within_ms: float
