"""Which message goes to which node, and when: keys, queues, holding.  What happens there is its delivery.

A message is here from the moment it is whole until its sender has its answer, or is closed without one.  Time is looked
at by `sweep`, several times a second, rather than by a timer for each message.
"""

from collections import deque
from typing import Protocol

from equipoise.engines.gateway.hl7.delivery import Delivery, Network
from equipoise.engines.gateway.hl7.exchange import Exchange, Sender, Stage
from equipoise.engines.gateway.hl7.spread import LOOK_EVERY_S, Spread
from equipoise.engines.gateway.hl7.turns import Turns
from equipoise.engines.gateway.messages import ServiceTask
from equipoise.engines.gateway.pool import Full, Nobody, Picked, Pool
from equipoise.policy.base import Client
from equipoise.proto.hl7 import Header, read_patients
from equipoise.proto.mllp import Frame

AGAIN_S = 0.5  # how often a message that no node could take is offered again
SILENCE_S = 0.25  # behind a frame that lacks its last byte: then it is whole


class Host(Network, Protocol):
    """What a dispatch needs of its service."""

    def rejection(self, exchange: Exchange, reason: str) -> Frame | None:
        """Return the answer that says a message was not taken; None where its sender is closed instead."""


class Dispatch:
    """The messages of one service."""

    def __init__(self, host: Host, task: ServiceTask, pool: Pool) -> None:
        self._host = host
        self._live: dict[Exchange, None] = {}
        self._waiting: dict[Exchange, None] = {}  # for a node, oldest first
        self._turns = Turns()
        self._spread = Spread()
        self._to_serve: dict[str | None, None] = {}
        self._ready: deque[Exchange] = deque()  # whose turn it is
        self._serving = self._beginning = False
        self.delivery = Delivery(host, self, task, pool)
        self._take(task, pool)

    def configure(self, task: ServiceTask, pool: Pool) -> None:
        """Take a new task; messages under way go on by it."""
        self.delivery.configure(task, pool)
        self._take(task, pool)
        self.serve()

    def _take(self, task: ServiceTask, pool: Pool) -> None:
        self._task, self._settings, self._pool = task, task.hl7, pool
        self._stays = task.hl7.key in ("sender", "patient")
        self._by_connection = task.hl7.key == "connection"

    @property
    def in_flight(self) -> int:
        """Messages that have a node."""
        return sum(exchange.stage not in (Stage.TURN, Stage.NODE) for exchange in self._live)

    @property
    def held(self) -> int:
        """Messages that wait for a node that takes work."""
        return sum(exchange.held for exchange in self._waiting)

    @property
    def waiting(self) -> int:
        """Messages that wait, for whatever reason."""
        return sum(exchange.stage in (Stage.TURN, Stage.NODE) for exchange in self._live)

    # A message comes

    def begin(self, sender: Sender, frame: Frame, header: Header) -> Exchange:
        """Take a message that is whole.  Raises: PeerError where it cannot be told whom it is about."""
        now_s = self._host.now()
        patients = self._patients(frame, header) if self._stays else ()
        client = self._client(sender, header, patients) if self._stays else sender.client
        exchange = Exchange(sender, frame, header, client, now_s)
        self._live[exchange] = None
        if not patients or self._turns.join(exchange, patients):
            self._place(exchange, now_s)
        else:
            exchange.stage = Stage.TURN
            exchange.deadline_s = now_s + self._settings.ack_timeout_s + self._task.queue_wait_s
        return exchange

    def _patients(self, frame: Frame, header: Header) -> tuple[bytes, ...]:
        """Return the patients that a message has to take turns for."""
        if self._settings.key != "patient" or header.is_batch:
            return ()
        found = read_patients(frame.chunks)
        return tuple(dict.fromkeys(found.current + found.merged))

    def _client(self, sender: Sender, header: Header, patients: tuple[bytes, ...]) -> Client:
        """Return what a node is picked by: what stays together stands where the pool looks for a client."""
        if self._settings.key == "sender":
            return Client(sender.client.source_ip, _text(b"|".join(header.sending)))
        return Client(_text(patients[0]) if patients else sender.name, "")

    def sender_gone(self, sender: Sender, exchange: Exchange | None) -> None:
        """Hear that a sender has left: what no receiver has seen is dropped, what one has goes on to its answer."""
        self._spread.forget(sender)
        if exchange is None or exchange.stage in (Stage.WRITING, Stage.ANSWER, Stage.OVER):
            return
        if exchange.stage is Stage.CONFIRMATION:
            self.delivery.unconfirmed(exchange)
        else:
            self.delivery.connections.forget(exchange)
            self.ended(exchange, "closed")

    # It gets a node

    def serve(self, node: str | None = None) -> None:
        """Give every waiting message a node that can have one; `node` says where room has come, None anywhere.

        Giving may end a message, which frees a place and brings us here again: that is noted and not nested.
        """
        self._to_serve[node] = None
        if self._serving:
            return
        self._serving = True
        try:
            while self._to_serve:
                self._serve_once(self._to_serve.popitem()[0])
        finally:
            self._serving = False

    def _serve_once(self, node: str | None) -> None:
        now_s = self._host.now()
        for exchange in list(self._waiting):
            if exchange not in self._waiting:
                continue  # it ended while an earlier one was served
            if node is not None and (exchange.held or exchange.wanted not in (None, node)):
                continue
            self._place(exchange, now_s)
            if exchange in self._waiting and not self._may_others_go(exchange):
                return

    def _may_others_go(self, exchange: Exchange) -> bool:
        """Say whether others may find a node where this one does not: else every node is full."""
        return self._by_connection or exchange.wanted is not None or bool(exchange.tried) or exchange.held

    def _place(self, exchange: Exchange, now_s: float) -> None:
        outcome = self._pick(exchange, now_s)
        if isinstance(outcome, Picked):
            self._waiting.pop(exchange, None)
            exchange.picked, exchange.held = outcome, False
            self.delivery.carry(exchange, outcome)
        elif exchange.rejection is not None and isinstance(outcome, Nobody):
            self.delivery.answer(exchange, exchange.rejection, exchange.rejection_code)
        else:
            self._wait(exchange, outcome, now_s)

    def _pick(self, exchange: Exchange, now_s: float) -> Picked | Full | Nobody:
        if not self._by_connection:
            return self._pool.pick(exchange.client, exchange.tried, now_s, stays=self._stays)
        sender = exchange.sender
        if now_s - sender.looked_s >= LOOK_EVERY_S:
            self._spread.look(sender, self._pool, now_s)
        if sender.home is not None and sender.home not in exchange.tried:
            taken = self._pool.take(sender.home)
            if taken is not None:
                return taken
        outcome = self._pool.pick(exchange.client, exchange.tried, now_s)
        if isinstance(outcome, Picked) and not sender.is_gone:
            self._spread.settle(sender, outcome.node.name)
        return outcome

    def _wait(self, exchange: Exchange, why: Full | Nobody, now_s: float) -> None:
        """Let a message wait: for room `queue_wait` in all, for a node that takes work `hold` in all."""
        exchange.stage, exchange.held = Stage.NODE, isinstance(why, Nobody)
        exchange.why = why.reason
        exchange.wanted = why.node if isinstance(why, Full) else None
        if exchange.held:
            exchange.held_until_s = exchange.held_until_s or now_s + self._settings.hold_s
            exchange.deadline_s = exchange.held_until_s
        else:
            exchange.room_until_s = exchange.room_until_s or now_s + self._task.queue_wait_s
            exchange.deadline_s = exchange.room_until_s
        self._waiting[exchange] = None
        if now_s >= exchange.deadline_s:
            self._give_up(exchange)

    def next_node(self, exchange: Exchange, node: str) -> None:
        """Take a message back that is to go to another node than this one."""
        exchange.tried += (node,)
        exchange.stage, exchange.committed = Stage.NODE, False
        self._release(exchange)
        if exchange.stage is not Stage.OVER:
            self._place(exchange, self._host.now())

    def _release(self, exchange: Exchange) -> None:
        if exchange.picked is not None:
            picked, exchange.picked = exchange.picked, None
            self._pool.release(picked)
            if self._waiting:
                self.serve(picked.node.name)

    # It ends

    def ended(self, exchange: Exchange, code: str) -> None:
        """Forget a message, and let its sender go on; `code` is what is counted."""
        self._forget(exchange, code)
        exchange.sender.finished(exchange.header.kind, code)

    def close_sender(self, exchange: Exchange, ended: str, reason: str) -> None:
        """Forget a message, and close its sender's connection, so that it decides."""
        self._forget(exchange, "closed")
        exchange.sender.close(ended, reason)

    def _give_up(self, exchange: Exchange) -> None:
        """End a message that no node has taken in time."""
        if exchange.rejection is not None:
            self.delivery.answer(exchange, exchange.rejection, exchange.rejection_code)
            return
        if exchange.stage is Stage.TURN:
            ended, reason = "full", "it waited too long for earlier messages of the same patient"
        elif exchange.held:
            ended, reason = "no_node", f"held for {self._settings.hold_s:g} s: {exchange.why}"
        else:
            ended, reason = "full", f"waited for {self._task.queue_wait_s:g} s: {exchange.why}"
        frame = self._host.rejection(exchange, reason)
        if frame is None:
            self.close_sender(exchange, ended, f"{exchange.said}: {reason}")
        else:
            exchange.sender.answer(frame)
            self.ended(exchange, ended)

    def _forget(self, exchange: Exchange, code: str) -> None:
        exchange.stage = Stage.OVER
        self._live.pop(exchange, None)
        self._waiting.pop(exchange, None)
        self.delivery.counting.ended(exchange.header.kind, code)
        self._release(exchange)
        if self._turns.is_taken:
            self._ready.extend(self._turns.leave(exchange))
            self._begin_ready()

    def _begin_ready(self) -> None:
        """Go on with messages whose turn it is; one may end at once, and bring the next, which is not nested."""
        if self._beginning:
            return
        self._beginning = True
        try:
            while self._ready:
                exchange = self._ready.popleft()
                if exchange.stage is Stage.TURN:
                    exchange.stage = Stage.NODE
                    self._place(exchange, self._host.now())
        finally:
            self._beginning = False

    # Time passes

    def sweep(self) -> None:
        """End what has taken too long."""
        now_s = self._host.now()
        for exchange in list(self._live):
            link = exchange.link
            if exchange.stage is Stage.OVER:
                continue
            if link is not None and link.may_have_answered and now_s - link.heard_s >= SILENCE_S:
                link.finish_answer()
            elif now_s >= exchange.deadline_s:
                self._too_late(exchange, now_s)
            elif exchange.held and now_s - exchange.offered_s >= AGAIN_S:
                exchange.tried, exchange.offered_s = (), now_s
                self._place(exchange, now_s)
        self.delivery.sweep(now_s)

    def _too_late(self, exchange: Exchange, now_s: float) -> None:
        if exchange.stage in (Stage.TURN, Stage.NODE):
            self._give_up(exchange)
        else:
            self.delivery.too_late(exchange, now_s)


def _text(key: bytes) -> str:
    return key.decode("latin-1")
