"""What can happen, one class a kind.  The supervisor makes inputs of them, the journal keeps, the snapshot folds them.

An event has no field for a payload, a patient's data or a secret.  Durations carry their unit in the name.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

EXPIRING_DAYS = 30  # time to ask an authority for a new certificate, and to install it in a maintenance window


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of all events: `kind` is dotted, the fields say what, which and why."""

    kind: ClassVar[str]

    def line(self, at: str) -> bytes:
        """Return the event as a line of the journal, without its newline; `at` is RFC 3339."""
        return f'{{"at":"{at}","kind":"{self.kind}",'.encode() + msgspec.json.encode(self)[1:]

    def fields(self) -> dict[str, Any]:
        """Return the event's fields as plain JSON values, `kind` first."""
        return {"kind": self.kind, **msgspec.to_builtins(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorStarted(Event):
    """The supervisor runs; `adopted` gateways were found serving and taken over."""

    kind: ClassVar[str] = "supervisor.started"
    pid: int
    version: str
    adopted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorStopping(Event):
    """The supervisor ends: `drain` stops the engines too, `alone` leaves them serving."""

    kind: ClassVar[str] = "supervisor.stopping"
    how: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanApplied(Event):
    """Every engine serves this plan."""

    kind: ClassVar[str] = "plan.applied"
    plan: str
    engines: tuple[str, ...]
    changes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRefused(Event):
    """A document was refused; the old plan goes on."""

    kind: ClassVar[str] = "plan.refused"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUp(Event):
    """A node passed enough checks and takes work."""

    kind: ClassVar[str] = "node.up"
    service: str
    node: str
    check: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDown(Event):
    """A node left rotation: `failures` checks in a row failed, the last one for `reason`."""

    kind: ClassVar[str] = "node.down"
    service: str
    node: str
    check: str
    failures: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRested(Event):
    """A node gets no new work for `rest_s` seconds: `failures` associations failed there, the last for `reason`.

    Its checks may pass all the while.  The last node that takes work is never rested.
    """

    kind: ClassVar[str] = "node.rested"
    service: str
    node: str
    failures: int
    reason: str
    rest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRefused(Event):
    """The engine's own check of a node fails, so it gets no new work, although ours says that it is up."""

    kind: ClassVar[str] = "node.refused"
    service: str
    node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAccepted(Event):
    """The engine's own check of a node passes again: both checks agree, and it takes work."""

    kind: ClassVar[str] = "node.accepted"
    service: str
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOverride(Event):
    """An operator changed a node: drain, disable, enable, or a weight."""

    kind: ClassVar[str] = "node.override"
    service: str
    node: str
    override: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUnresolved(Event):
    """A node's name has no address; it takes no work until it has one."""

    kind: ClassVar[str] = "node.unresolved"
    service: str
    node: str
    address: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerWaiting(Event):
    """An address of a service is not on this machine; its socket is open and takes callers as soon as it is."""

    kind: ClassVar[str] = "listener.waiting"
    service: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerReady(Event):
    """An address that was awaited is on this machine now."""

    kind: ClassVar[str] = "listener.ready"
    service: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _CertificateEnds(Event):
    service: str
    file: str
    path: str
    names: tuple[str, ...]
    not_after: str
    days_left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateExpiring(_CertificateEnds):
    """A certificate of a service ends within 30 days; said once a day.  `file` is the key that names its file."""

    kind: ClassVar[str] = "certificate.expiring"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateExpired(_CertificateEnds):
    """A certificate of a service is no longer valid: peers that verify it refuse it.  Said once a day."""

    kind: ClassVar[str] = "certificate.expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStarted(Event):
    """A gateway process serves."""

    kind: ClassVar[str] = "gateway.started"
    worker: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayReplaced(Event):
    """A gateway accepts no more and drains; its successor serves on the same sockets."""

    kind: ClassVar[str] = "gateway.replaced"
    worker: int
    old_pid: int
    new_pid: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLost(Event):
    """A gateway ended by itself; callers wait in the backlog while another one starts."""

    kind: ClassVar[str] = "gateway.lost"
    worker: int
    pid: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HaproxyStarted(Event):
    """HAProxy serves; `program` is the file that runs, `pid` its master process."""

    kind: ClassVar[str] = "haproxy.started"
    pid: int
    version: str
    program: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HaproxyReloaded(Event):
    """A new worker of HAProxy serves another configuration; what is open on the old one, `old_pid`, goes on there."""

    kind: ClassVar[str] = "haproxy.reloaded"
    pid: int
    old_pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HaproxyLost(Event):
    """HAProxy ended by itself, or answers no more; callers are refused until it is started again."""

    kind: ClassVar[str] = "haproxy.lost"
    pid: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsDropped(Event):
    """A gateway had no supervisor to tell and forgot its oldest events."""

    kind: ClassVar[str] = "events.dropped"
    pid: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskHindered(Event):
    """Work in the background could not be done, for a reason outside the program: no descriptor, a full disk."""

    kind: ClassVar[str] = "task.hindered"
    task: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailed(Event):
    """A bug: work in the background ended with an exception.  Please report it."""

    kind: ClassVar[str] = "task.failed"
    task: str
    error: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageCount:
    """Messages of one kind in an association.  `status` is hexadecimal; None for requests never answered.

    Response times are from the request's command set to the final response's, in milliseconds.
    """

    command: str
    sop_class: str
    status: str | None
    count: int
    response_ms_mean: float | None
    response_ms_max: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationEnded(Event):
    """One association: who, where to, what passed, how it ended: `ended` is a word to count by, `reason` a sentence.

    `service` is whose pool it went to, `routed_from` the service that a route led on from.  `tls` is the version that
    the client spoke, `certificate` the names in the one that it showed.
    """

    kind: ClassVar[str] = "association.ended"
    service: str
    client: str
    calling_ae: str
    called_ae: str
    node: str | None
    tried: tuple[str, ...]
    ended: str
    reason: str
    duration_s: float
    setup_ms: float | None
    bytes_in: int
    bytes_out: int
    messages: tuple[MessageCount, ...]
    routed_from: str | None = None
    tls: str | None = None
    certificate: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hl7Count:
    """HL7 messages of one type in a sender's connection, by what was answered.

    `answer` is the receiver's code (AA, AE, AR, CA, CE, CR, or `other`); `answered` for a batch without one;
    `committed` or `NAK` (release 2); `none` where no answer was waited for; `closed`, `no_node` or `full` where there
    was none; of senders' own acknowledgements `passed` or `dropped`.  Past 64 types `type` is `other`.
    """

    type: str
    answer: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderEnded(Event):
    """One connection of an HL7 sender: who, what passed, how it ended: `ended` is a word to count by.

    `sender` is what it called itself in its last message (MSH-3 and MSH-4).  Where a message got no answer, `reason`
    names its type and control ID.  `tls` and `certificate` as in `association.ended`.
    """

    kind: ClassVar[str] = "sender.ended"
    service: str
    client: str
    sender: str
    ended: str
    reason: str
    duration_s: float
    bytes_in: int
    bytes_out: int
    messages: tuple[Hl7Count, ...]
    tls: str | None = None
    certificate: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverFailed(Event):
    """A connection to an HL7 receiver was lost or had to be closed: `why` is a word to count by, `reason` a sentence.

    `then` says what became of the message that was under way, where one was: `next` when it went on to another
    receiver, `closed` when its sender's connection was closed, so that it decides.
    """

    kind: ClassVar[str] = "receiver.failed"
    service: str
    node: str
    why: str
    reason: str
    then: str | None = None
