"""What supervisor and gateway, and a gateway and its successor, say to each other: JSON lines over a Unix socket.

`VERSION` goes up when a message changes its meaning.  A supervisor that finds a gateway with another version says so
and leaves it alone: it serves on.  Fields may be added with a default without a new version.
"""

import msgspec

from equipoise.plan.model import (
    Dicom,
    Endpoint,
    Hl7,
    Node,
    NodeTls,
    PassiveHealth,
    Persistence,
    ProxyProtocol,
    Route,
    Tls,
)
from equipoise.plan.states import NodeState

VERSION = 1


class ServiceTask(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway needs to know of one service."""

    name: str
    listen: tuple[Endpoint, ...]
    balance: str
    persistence: Persistence
    nodes: tuple[Node, ...]
    allow_from: tuple[str, ...]
    max_connections: int | None
    queue_wait_s: float
    source_address: str | None
    dicom: Dicom
    protocol: str = "dicom"
    hl7: Hl7 = Hl7()
    max_per_source: int | None = None
    slow_start_s: float = 0.0
    passive_health: PassiveHealth = PassiveHealth()
    routes: tuple[Route, ...] = ()
    tls: Tls | None = None
    node_tls: NodeTls | None = None
    proxy_protocol: ProxyProtocol = ProxyProtocol()


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """A supervisor begins."""

    version: int


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    """A gateway says who it is; the sockets that `sockets` names come with it, in that order.

    `shares` says that it knows Share, Recall and Kept: another message than those it knows ends a connection.
    """

    version: int
    software: str
    pid: int
    worker: int
    retiring: bool
    services: tuple[ServiceTask, ...] = ()
    sockets: tuple[Endpoint, ...] = ()
    states: dict[str, NodeState] = {}
    shares: bool = False


class Serve(msgspec.Struct, frozen=True, kw_only=True, tag="serve"):
    """Serve exactly these services.  The sockets that `sockets` names come with it, in that order.

    Attributes:
        at_s: When the states were so, on the machine's monotonic clock: older ones do not overwrite newer ones.
        successors: Service name to the socket path of the gateway that has it from now on.
        retire: End when nothing is open any more.
        learned: By service, what its calling AEs are expected to move: see `policy.prediction`.
    """

    services: tuple[ServiceTask, ...]
    states: dict[str, NodeState]
    at_s: float
    sockets: tuple[Endpoint, ...] = ()
    successors: dict[str, str] = {}
    retire: bool = False
    learned: dict[str, dict[str, float]] = {}


class SetNodes(msgspec.Struct, frozen=True, kw_only=True, tag="set_nodes"):
    """Take nodes in or out, by "SERVICE/NODE"; `at_s` as in Serve."""

    states: dict[str, NodeState]
    at_s: float


class Observe(msgspec.Struct, frozen=True, kw_only=True, tag="observe"):
    """Tell the counters."""


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """Accept no more, abort what is still open after `drain_s` seconds, end."""

    drain_s: float


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """It was done; `problem` says what was not."""

    problem: str | None = None


class NodeCounters(msgspec.Struct, frozen=True, kw_only=True):
    """As in `pool.Counters`; `rested` says why a node gets no new work for a while, or is None."""

    connections: int
    associations: int
    bytes_in: int
    bytes_out: int
    rested: str | None = None


class MessageCounters(msgspec.Struct, frozen=True, kw_only=True):
    """HL7 messages of one service since the gateway started: as in `engines.base.Messages`."""

    by_type: dict[str, dict[str, int]] = {}
    in_flight: int = 0
    held: int = 0
    resent: int = 0
    receivers_closed: dict[str, int] = {}
    latency_ms: tuple[int, ...] = ()
    latency_sum_ms: float = 0.0


class ServiceCounters(msgspec.Struct, frozen=True, kw_only=True):
    """One service in one gateway; `clients` are the connections that callers hold, `waiting` those in its queue.

    `problem` says what it lacks to serve as it was told, or is None; `messages` are those of HL7.
    """

    clients: int
    waiting: int
    nodes: dict[str, NodeCounters]
    problem: str | None = None
    messages: MessageCounters | None = None


class Observation(msgspec.Struct, frozen=True, kw_only=True, tag="observation"):
    """The answer to Observe."""

    services: dict[str, ServiceCounters]


class Happened(msgspec.Struct, frozen=True, kw_only=True, tag="happened"):
    """Events, oldest first, as the journal writes them."""

    events: tuple[msgspec.Raw, ...]


class Learned(msgspec.Struct, frozen=True, kw_only=True, tag="learned"):
    """What is newly expected of a service's calling AEs, in bytes an association."""

    service: str
    means: dict[str, float]


KeptClient = tuple[str, str, float]  # key, node, seconds left; 0 where the client keeps that node no more


class Share(msgspec.Struct, frozen=True, kw_only=True, tag="share"):
    """Tell from now on which nodes clients keep, as it is learned; or no more."""

    on: bool = True


class Recall(msgspec.Struct, frozen=True, kw_only=True, tag="recall"):
    """Tell which nodes a service's clients keep, so many at most, the youngest first."""

    service: str
    most: int


class Kept(msgspec.Struct, frozen=True, kw_only=True, tag="kept"):
    """Which nodes clients keep, by service.

    From a gateway: what it learned, or its answer to Recall.  From a supervisor: what another machine knows, to be
    merged, answered by Done.
    """

    tables: dict[str, tuple[KeptClient, ...]]


class Soft(msgspec.Struct, frozen=True, kw_only=True, tag="soft"):
    """What a gateway that drains still holds of a service, for its successor.

    Attributes:
        open: Node name to open associations.
        persistence: All that it knows, once.
    """

    gateway: str
    service: str
    open: dict[str, int]
    persistence: tuple[KeptClient, ...] = ()


Body = (
    Hello
    | Welcome
    | Serve
    | SetNodes
    | Observe
    | Stop
    | Done
    | Observation
    | Happened
    | Learned
    | Share
    | Recall
    | Kept
    | Soft
)


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One line.  A question has a number that its answer repeats; 0 expects none.  `fds` sockets come with it."""

    body: Body
    number: int = 0
    answers: int = 0
    fds: int = 0


def encode(message: Message) -> bytes:
    """Return the line, its newline included."""
    return msgspec.json.encode(message) + b"\n"


_DECODER = msgspec.json.Decoder(Message)


def decode(line: bytes | bytearray | memoryview) -> Message:
    """Read a line.  Raises: msgspec.MsgspecError (it is from another version of ourselves)."""
    return _DECODER.decode(line)
