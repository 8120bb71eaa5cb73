"""An HL7 service inside a gateway: its senders, its connections to receivers, and the messages between them."""

import asyncio
import datetime
from collections.abc import Mapping
from dataclasses import replace

import msgspec

from equipoise.engines.gateway.arrival import Arrival
from equipoise.engines.gateway.calling import CallError
from equipoise.engines.gateway.conditions import is_within, networks_of
from equipoise.engines.gateway.hl7.dispatch import Dispatch
from equipoise.engines.gateway.hl7.exchange import Awaits, Exchange, awaits, printable
from equipoise.engines.gateway.hl7.large import Large
from equipoise.engines.gateway.hl7.link import Link
from equipoise.engines.gateway.hl7.sender import SenderConnection
from equipoise.engines.gateway.messages import ServiceCounters, ServiceTask
from equipoise.engines.gateway.passive import FailureKind
from equipoise.engines.gateway.pool import Picked, Pool
from equipoise.engines.gateway.security import Security
from equipoise.engines.gateway.service import Service, Surroundings
from equipoise.plan.states import NodeState
from equipoise.policy.catalogue import policies
from equipoise.proto.hl7 import reject
from equipoise.proto.mllp import NAK, Frame, FrameReader, Framing
from equipoise.state.events import Hl7Count, ReceiverFailed, SenderEnded

_SWEEP_S = 0.1  # how exact time limits are
_PATIENCE_S = 30.0  # for TLS and the PROXY header, before the first message


class Hl7Service(Service):
    """One HL7 service; to senders it is `sender.Host`, to messages `dispatch.Host`, to connections `link.Host`."""

    def __init__(
        self, task: ServiceTask, states: Mapping[str, NodeState], around: Surroundings, security: Security
    ) -> None:
        self._senders: set[SenderConnection] = set()
        self._watched: set[SenderConnection] = set()
        self._sweeping = False
        self._clock = around.clock
        self.is_leaving = False
        self.large = Large()
        super().__init__(task, states, around, security)
        self.dispatch = Dispatch(self, task, self.pool)
        self._prepare(task)

    @property
    def patience_s(self) -> float:
        """How long a client may take before its first message."""
        return _PATIENCE_S

    @property
    def stall_timeout_s(self) -> float:
        """How long a peer may leave something unfinished, or unread."""
        return self.task.hl7.stall_timeout_s

    @property
    def held(self) -> int:
        """Senders' connections held, those that are entering or closing included."""
        return len(self._reception) + len(self._senders)

    @property
    def is_empty(self) -> bool:
        """Whether no sender is here and no message is under way any more."""
        return self.held == 0 and not self.dispatch.in_flight

    # What the process asks of it

    def configure(
        self, task: ServiceTask, states: Mapping[str, NodeState], security: Security, doors: Mapping[str, ServiceTask]
    ) -> None:
        """Take a new task; what is open goes on, and connections to receivers that it changes are used no more."""
        before, secured = self.task, self.security.to_nodes
        super().configure(task, states, security, doors)
        self.is_leaving = False
        if _called(before) != _called(task) or secured is not security.to_nodes:
            self.dispatch.delivery.connections.outdate()
        self._prepare(task)
        self.dispatch.configure(task, self.pool)
        self.dispatch.delivery.connections.close_free()

    def leave(self) -> None:
        """Accept no more; every sender's connection is closed between two messages, so that it connects again."""
        super().leave()
        self.is_leaving = True
        for sender in [sender for sender in self._senders if not sender.is_busy]:
            sender.part()
        self.dispatch.delivery.connections.leave()

    def set_state(self, node: str, state: NodeState) -> None:
        """Take a node in or out, now."""
        if self.pool.set_state(node, state, self.now()):
            self.dispatch.delivery.connections.close_free()
            self.dispatch.serve()

    def abort_all(self, reason: str) -> None:
        """End what is open: what was not acknowledged is the senders' to send again."""
        self._reception.abort_all(reason)
        for sender in list(self._senders):
            sender.close("drained", reason)

    def hear_elsewhere(self, gateway: str, counts: Mapping[str, int]) -> None:
        """Note what another gateway still holds."""
        super().hear_elsewhere(gateway, counts)
        self.dispatch.serve()

    def observe(self) -> ServiceCounters:
        """Return the counters; a node's connections are those that are open to it."""
        links = self.dispatch.delivery.connections.links
        return ServiceCounters(
            clients=len(self._senders),
            waiting=self.dispatch.waiting,
            nodes={
                name: msgspec.structs.replace(self.node_counters(name), connections=links.count(name))
                for name in self.pool.members
            },
            problem=self.security.problem,
            messages=self.dispatch.delivery.counting.shown(self.dispatch.in_flight, self.dispatch.held),
        )

    # What its reception asks of it: see reception.Host

    def begin(self, arrival: Arrival) -> SenderConnection:
        """Return the connection of a sender that is let in."""
        refusal = None
        if not is_within(arrival.client[0], self._networks):
            refusal = f"source {arrival.client[0]} is not in allow_from"
        sender = SenderConnection(self, arrival, self._framing, self.task.hl7.max_message_bytes, refusal)
        self._senders.add(sender)
        self._sweep_soon()
        return sender

    def not_taken(self, ended: str, reason: str, client: str = "unknown") -> None:
        """Tell of a sender that was not let in."""
        self._tell_end(client, ended, reason)

    # What senders ask of it: see sender.Host

    def watch(self, sender: SenderConnection) -> None:
        """Look after a sender that has left something unfinished."""
        self._watched.add(sender)

    def ended(self, sender: SenderConnection, ended: str, reason: str) -> None:
        """Tell how a sender's connection ended."""
        self._tell_end(sender.name, ended, reason, sender)

    def gone(self, sender: SenderConnection) -> None:
        """Forget a sender whose connection is closed."""
        self._senders.discard(sender)
        self._watched.discard(sender)
        self.room.held -= 1
        if sender.uncount is not None:
            sender.uncount()
        self._around.changed(self)

    # What messages ask of it: see delivery.Network and dispatch.Host

    def open_link(self, exchange: Exchange, picked: Picked) -> Link:
        """Begin to connect to a node."""
        node, arrival = picked.node, exchange.sender.arrival
        counters = self.pool.counters(node.name)
        reader = FrameReader(self._framing, self.task.hl7.max_message_bytes)
        at = (node.name, node.port or arrival.port)
        link = Link(self, self.dispatch.delivery, at, reader, self._framing)
        link.opening(self.tasks.spawn("gateway.connect", self._connect(link, picked, arrival)), counters)
        self._around.changed(self)
        return link

    def blame(self, exchange: Exchange, node: str, kind: FailureKind, reason: str) -> None:
        """Hold a failure against a node."""
        self.hold_against(node, exchange.sender.client, kind, reason)

    def receiver_failed(self, node: str, why: str, reason: str, then: str | None) -> None:
        """Tell of a receiver's connection."""
        self._around.emit(ReceiverFailed(service=self.name, node=node, why=why, reason=reason, then=then))

    def rejection(self, exchange: Exchange, reason: str) -> Frame | None:
        """Return the answer that says a message was not taken; None where its sender is closed instead."""
        if self.task.hl7.on_no_node != "reject" or exchange.header.is_batch:
            return None
        if awaits(exchange.header) is not Awaits.ANSWER:
            return None
        if self.task.hl7.mllp_release == 2:
            return Frame((NAK,), len(NAK))
        at = datetime.datetime.fromtimestamp(self._clock.wall(), datetime.UTC).strftime("%Y%m%d%H%M%S+0000")
        content = reject(exchange.frame.head, reason, at)
        return Frame((content,), len(content))

    def link_gone(self) -> None:
        """Hear that a connection to a receiver is closed."""
        self._around.changed(self)

    # Inside

    def new_pool(self, task: ServiceTask) -> Pool:
        """Return an empty pool: what belongs together is known by its key, as policies and persistence know clients."""
        balance, persistence = task.balance, task.persistence
        if task.hl7.key == "patient":
            balance = "source_hash"  # of the patient, who stands where the address does
        elif task.hl7.key == "sender":
            persistence = replace(persistence, by="calling_ae")  # of MSH-3 and MSH-4, which stand where that does
        return Pool(policies()[balance], persistence, task.max_connections, task.slow_start_s, task.passive_health)

    def pooled(self, task: ServiceTask) -> tuple[object, ...]:
        """Return what a pool is made by; the key says what its clients are."""
        return *super().pooled(task), task.hl7.key

    def _prepare(self, task: ServiceTask) -> None:
        self._framing = Framing.of(task.hl7.frame_start, task.hl7.frame_end)
        # Behind proxies allow_from says who they are; the reception looks at that.
        self._networks = networks_of(() if task.proxy_protocol.accept else task.allow_from)

    async def _connect(self, link: Link, picked: Picked, arrival: Arrival) -> None:
        try:
            await self._caller.call(picked.node, arrival, link)
        except CallError as error:
            self.dispatch.delivery.connections.not_opened(link, str(error), ours=error.ours)
            return
        self.dispatch.delivery.connections.opened(link)

    def _tell_end(self, client: str, ended: str, reason: str, sender: SenderConnection | None = None) -> None:
        counts = sender.counts.items() if sender is not None else ()
        self._around.emit(
            SenderEnded(
                service=self.name,
                client=client,
                sender="" if sender is None else _shown(sender.said),
                ended=ended,
                reason=reason,
                duration_s=0.0 if sender is None else round(self.now() - sender.began_s, 6),
                bytes_in=0 if sender is None else sender.bytes_in,
                bytes_out=0 if sender is None else sender.bytes_out,
                messages=tuple(Hl7Count(type=kind, answer=answer, count=count) for (kind, answer), count in counts),
                tls=None if sender is None else sender.arrival.tls,
                certificate=None if sender is None else sender.arrival.certificate,
            )
        )

    def _sweep_soon(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Look at what takes too long; nobody looks while there is neither a sender nor a connection."""
        self._sweeping = False
        if self._senders or self.dispatch.delivery.connections.links or self.dispatch.in_flight:
            self._sweep_soon()
        now_s = self.now()
        self.dispatch.sweep()
        for sender in list(self._watched):
            if not sender.sweep(now_s):
                self._watched.discard(sender)
        if self.is_leaving:
            self._around.changed(self)


def _called(task: ServiceTask) -> tuple[object, ...]:
    """Return what connections to receivers are made by."""
    addresses = tuple((node.name, node.host, node.port) for node in task.nodes)
    return addresses, task.source_address, task.node_tls, task.hl7.frame_start, task.hl7.frame_end


def _shown(sending: tuple[bytes, bytes]) -> str:
    """Return what a sender calls itself, fit to be shown: MSH-3 at MSH-4."""
    return " at ".join(filter(None, (printable(name, 60) for name in sending)))
