"""A service's messages without sockets: dispatch and delivery are real, connections and time do as they are told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from equipoise.engines.gateway.arrival import Arrival
from equipoise.engines.gateway.hl7.dispatch import Dispatch
from equipoise.engines.gateway.hl7.exchange import Awaits, Exchange, Stage, awaits
from equipoise.engines.gateway.hl7.link import Link
from equipoise.engines.gateway.hl7.stream import Sent
from equipoise.engines.gateway.messages import ServiceTask
from equipoise.engines.gateway.passive import FailureKind
from equipoise.engines.gateway.pool import Picked, Pool
from equipoise.plan.model import Dicom, Hl7, Node, PassiveHealth, Persistence
from equipoise.plan.states import NodeState, StateName
from equipoise.policy.base import Client
from equipoise.policy.catalogue import policies
from equipoise.proto.hl7 import read_header, reject
from equipoise.proto.mllp import Frame, FrameReader, Framing

PORT = 2575
FRAMING = Framing()
DICOM = Dicom(
    called_ae_allow=(),
    calling_ae_allow=(),
    node_called_ae=None,
    connect_timeout_s=2,
    setup_timeout_s=20,
    artim_s=30,
    idle_timeout_s=3600,
    stall_timeout_s=60,
    max_associate_bytes=1 << 17,
)
SETTINGS = Hl7(hold_s=3, ack_timeout_s=30, connect_timeout_s=2, stall_timeout_s=60, idle_timeout_s=600)
ALWAYS, COMMIT, LATER, NEVER = ("AL", "AL"), ("AL", "NE"), ("NE", "AL"), ("NE", "NE")  # MSH-15, MSH-16


def frame(content: bytes) -> Frame:
    return Frame((content,), len(content))


def message(
    control_id: str = "1",
    mode: tuple[str, str] = ("", ""),
    *,
    patient: str = "",
    merged: str = "",
    by: str = "RIS",
    kind: str = "ADT^A01",
) -> bytes:
    """Return a message; `mode` are MSH-15 and MSH-16."""
    text = f"MSH|^~\\&|{by}|HOSPITAL|||20310304||{kind}|{control_id}|P|2.5.1|||{mode[0]}|{mode[1]}\r"
    text += f"PID|||{patient}\r" if patient else ""
    text += f"MRG|{merged}\r" if merged else ""
    return text.encode()


def batch() -> bytes:
    return b"FHS|^~\\&|RIS|HOSPITAL\rBHS|^~\\&|RIS|HOSPITAL\r" + message("77") + b"BTS|1\rFTS|1\r"


def acknowledgement(control_id: str = "1", code: str = "AA", own_id: str = "R1") -> bytes:
    return f"MSH|^~\\&|PACS|HOSPITAL|||20310304||ACK|{own_id}|P|2.5.1\rMSA|{code}|{control_id}\r".encode()


def node(name: str, limit: int | None = None, *, port: int | None = PORT, backup: bool = False) -> Node:
    return Node(name, name, "192.0.2.9", port, 100, limit, backup)


def task(nodes: tuple[Node, ...], balance: str, *, queue_wait_s: float, limit: int | None, hl7: Hl7) -> ServiceTask:
    return ServiceTask(
        name="adt",
        listen=(),
        balance=balance,
        persistence=Persistence("calling_ae" if hl7.key == "sender" else "none", 1800, 32, 64),
        nodes=nodes,
        allow_from=(),
        max_connections=limit,
        queue_wait_s=queue_wait_s,
        source_address=None,
        dicom=DICOM,
        protocol="hl7",
        hl7=hl7,
        passive_health=PassiveHealth(failures=0),
    )


class FakeLink(Link):
    """A connection that stands, breaks and closes on command; what a receiver says goes through the real reader.

    Attributes:
        sent: What the receiver got whole; `aside` what belongs to earlier messages.
        takes: What becomes of the next message.
        is_closing: Whether our side has let go of it.
        is_over: Whether it is closed on both sides, or was never opened.
        is_seen_dead: Whether a look at it shows that the receiver has closed it.
    """

    def __init__(self, site: "Site", picked: Picked, port: int) -> None:
        reader = FrameReader(FRAMING, site.task.hl7.max_message_bytes)
        super().__init__(site, site.delivery, (picked.node.name, picked.node.port or port), reader, FRAMING)
        self._site = site
        self.host = picked.node.host
        self.sent: list[bytes] = []
        self.aside: list[bytes] = []
        self.takes = Sent.ALL
        self.unsent = 0
        self.is_closing = self.is_over = self.is_seen_dead = self.is_cancelled = False

    @property
    def unsent_bytes(self) -> int:
        return self.unsent

    def send(self, frame: Frame) -> Sent:
        if not self.is_open or self.takes is Sent.NOTHING:
            return Sent.NOTHING
        self.answer_seen_bytes = 0
        self._site.begun.append((self, len(self.sent)))
        self.sent.append(frame.content)
        self.unsent = frame.size if self.takes is Sent.SOME else 0
        return self.takes

    def send_aside(self, frame: Frame) -> None:
        if self.is_open:
            self.aside.append(frame.content)

    def is_usable(self) -> bool:
        return self.is_open and not self.is_seen_dead

    def cancel(self) -> None:
        self.is_cancelled = self.is_over = True

    def close(self) -> None:
        self.is_open, self.is_closing = False, True

    def part(self) -> None:
        self.close()

    # What the receiver does, and the network

    def opens(self) -> "FakeLink":
        self.is_open = True
        self._site.delivery.connections.opened(self)
        return self

    def is_refused(self, *, ours: bool = False) -> None:
        self.is_over = True
        self._site.delivery.connections.not_opened(self, "Connection refused", ours=ours)

    def leaves(self) -> None:
        """Take all that waited to be sent."""
        self.unsent = 0
        self._site.delivery.all_sent(self)

    def says(self, *contents: bytes) -> None:
        """Answer, all in one segment."""
        self.says_bytes(b"".join(map(FRAMING.wrap, contents)))

    def says_bytes(self, data: bytes) -> None:
        for start in range(0, len(data), 32_768):
            piece = data[start : start + 32_768]
            self._site.buffer[: len(piece)] = piece
            self.buffer_updated(len(piece))

    def acknowledges(self, control_id: str = "1", code: str = "AA") -> None:
        self.says(acknowledgement(control_id, code))

    def ends(self) -> None:
        """Be closed on both sides."""
        self.is_open, self.is_over = False, True
        self._site.delivery.lost(self, "closed by the receiver")


class FakeSender:
    """A sender that waits for the answer to each message, as `exchange.Sender`."""

    def __init__(self, site: "Site", name: str, port: int = PORT) -> None:
        self._site = site
        self.name = name
        self.client = Client("192.0.2.1", "")
        self.arrival = Arrival(("192.0.2.1", 1), ("192.0.2.2", port), port)
        self.home: str | None = None
        self.looked_s = site.now_s
        self.is_gone = False
        self.owes: dict[bytes, Callable[[Frame], None]] = {}
        self.answers: list[bytes] = []
        self.done: list[str] = []
        self.closed: str | None = None
        self.exchange: Exchange | None = None

    def answer(self, frame: Frame) -> None:
        if not self.is_gone:
            self.answers.append(frame.content)

    def finished(self, kind: str, answer: str) -> None:
        self.exchange = None
        self.done.append(answer)

    def look_again(self) -> None:
        """It has nothing that waits."""

    def close(self, ended: str, reason: str) -> None:
        self.exchange = None
        if self.closed is None:
            self.closed = ended
            self.why = reason

    # What it does

    def says(self, content: bytes) -> Exchange:
        exchange = self._site.dispatch.begin(self, frame(content), read_header(content))
        self.exchange = None if exchange.stage is Stage.OVER else exchange
        return exchange

    def commits(self, content: bytes = b"\x06") -> None:
        assert self.exchange is not None
        self._site.delivery.confirmed(self.exchange, frame(content))

    def leaves(self) -> None:
        self.is_gone = True
        exchange, self.exchange = self.exchange, None
        self._site.dispatch.sender_gone(self, exchange)


@dataclass(frozen=True)
class Told:
    """What `receiver.failed` said."""

    node: str
    why: str
    then: str | None


@dataclass
class Site:
    """One service; it stands for `dispatch.Host` and `link.Host`."""

    nodes: str | tuple[Node, ...] = "ab"
    key: str = "connection"
    balance: str = "first_up"
    limit: int | None = None
    queue_wait_s: float = 5
    service_limit: int | None = None
    on_no_node: str = "close"
    hl7: Mapping[str, Any] = field(default_factory=dict)
    now_s: float = 1000.0

    def __post_init__(self) -> None:
        if isinstance(self.nodes, str):
            self.nodes = tuple(node(name, self.limit) for name in self.nodes)
        self.now: Callable[[], float] = lambda: self.now_s
        self.buffer = memoryview(bytearray(1 << 20))
        self.links: list[FakeLink] = []
        self.begun: list[tuple[FakeLink, int]] = []  # what was sent, in order: the connection, and its how many-eth
        self.told: list[Told] = []
        self.blamed: list[tuple[str, FailureKind]] = []
        self.ends: list[Exchange] = []
        self._senders = 0
        self.task = self._task(self.nodes)
        self.pool = self._pool(self.task)
        self.dispatch = Dispatch(self, self.task, self.pool)
        self.delivery = self.dispatch.delivery

    def _task(self, nodes: tuple[Node, ...]) -> ServiceTask:
        hl7 = replace(SETTINGS, key=self.key, on_no_node=self.on_no_node, **self.hl7)
        balance = "source_hash" if self.key == "patient" else self.balance
        return task(nodes, balance, queue_wait_s=self.queue_wait_s, limit=self.service_limit, hl7=hl7)

    def _pool(self, task: ServiceTask) -> Pool:
        pool = Pool(policies()[task.balance], task.persistence, task.max_connections, 0, task.passive_health)
        pool.configure(task.nodes, {}, self.now_s)
        return pool

    # What is asked of it

    def open_link(self, exchange: Exchange, picked: Picked) -> FakeLink:
        link = FakeLink(self, picked, exchange.sender.arrival.port)
        self.links.append(link)
        return link

    def blame(self, exchange: Exchange, node: str, kind: FailureKind, reason: str) -> None:
        self.blamed.append((node, kind))

    def receiver_failed(self, node: str, why: str, reason: str, then: str | None) -> None:
        self.told.append(Told(node, why, then))

    def rejection(self, exchange: Exchange, reason: str) -> Frame | None:
        if self.on_no_node != "reject" or exchange.header.is_batch or awaits(exchange.header) is not Awaits.ANSWER:
            return None
        return frame(reject(exchange.frame.head, reason, "20310304050607"))

    def link_gone(self) -> None:
        """Hear that a connection is closed."""

    # What happens

    def sender(self, name: str = "", port: int = PORT) -> FakeSender:
        self._senders += 1
        return FakeSender(self, name or f"192.0.2.1:{self._senders}", port)

    def asking(self, content: bytes | None = None) -> tuple[FakeSender, FakeLink]:
        """Return a sender whose message a receiver has, and the connection that it went by."""
        sender = self.sender()
        sender.says(message() if content is None else content)
        if not self.last.is_open:
            self.last.opens()
        return sender, self.last

    @property
    def last(self) -> FakeLink:
        return self.links[-1]

    @property
    def opening(self) -> list[FakeLink]:
        """Connections that are on their way."""
        return [link for link in self.links if not (link.is_open or link.is_over or link.is_closing)]

    def there(self, name: str) -> int:
        """Return how many connections a node has, those that are being opened or closed included."""
        return sum(link.node == name and not link.is_over for link in self.links)

    def passes(self, seconds: float, step_s: float = 0.1) -> None:
        """Let time pass, looked at as often as the service does."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, self.now_s + step_s)
            self.dispatch.sweep()

    def is_now(self, name: str, state: StateName) -> None:
        """Take a node in or out, as the service does."""
        if self.pool.set_state(name, NodeState(state, 100), self.now_s):
            self.delivery.connections.close_free()
            self.dispatch.serve()

    def configure(self, nodes: tuple[Node, ...]) -> None:
        """Take other nodes, at other addresses."""
        self.task = self._task(nodes)
        self.pool.configure(nodes, {}, self.now_s)
        self.delivery.connections.outdate()
        self.dispatch.configure(self.task, self.pool)
        self.delivery.connections.close_free()

    def settled(self) -> None:
        """Hold that nothing is under way, and that every place was given back."""
        dispatch = self.dispatch
        assert (dispatch.in_flight, dispatch.waiting, dispatch.held) == (0, 0, 0)
        assert self.pool.open == 0
        assert [link for link in self.delivery.connections.links if link.exchange is not None] == []
