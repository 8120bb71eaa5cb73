"""A message at its node: its bytes, the answer, and what follows when the receiver fails.

- Not a byte written: it goes on, by a fresh connection and then to the next node.
- Written and not acknowledged: nobody knows.  It is sent again only where receivers are said to deduplicate; else the
  sender's connection is closed, and the sender decides.
- Nothing is ever acknowledged here.

Source: DESIGN, "What the relays promise"; HL7 version 2.5.1, section 2.9.
"""

from contextlib import suppress
from typing import Protocol

from equipoise.engines.gateway.hl7 import connections
from equipoise.engines.gateway.hl7.connections import Connections, part
from equipoise.engines.gateway.hl7.counting import Counting
from equipoise.engines.gateway.hl7.exchange import (
    Answer,
    Awaits,
    Exchange,
    Sender,
    Stage,
    awaits,
    judge,
    may_bring_more,
)
from equipoise.engines.gateway.hl7.link import Link
from equipoise.engines.gateway.hl7.reports import Listener, Reports
from equipoise.engines.gateway.hl7.stream import Sent
from equipoise.engines.gateway.messages import ServiceTask
from equipoise.engines.gateway.passive import FailureKind
from equipoise.engines.gateway.pool import Picked, Pool
from equipoise.proto.hl7 import NotHl7Error, read_acknowledgement, read_header
from equipoise.proto.mllp import ACK, NAK, Frame

_PROGRESS_BYTES = 16 * 1024  # of a long answer, within stall_timeout
_MOST_OWED = 256  # answers that a sender may yet acknowledge


class Network(connections.Network, Listener, Protocol):
    """What a delivery needs of its service."""

    def blame(self, exchange: Exchange, node: str, kind: FailureKind, reason: str) -> None:
        """Hold a failure against a node."""


class Desk(Protocol):
    """Where messages come from and go back to: see `dispatch.py`."""

    def next_node(self, exchange: Exchange, node: str) -> None:
        """Take a message back that is to go to another node than this one."""

    def ended(self, exchange: Exchange, code: str) -> None:
        """Hear that a message is done with; `code` is what is counted."""

    def close_sender(self, exchange: Exchange, ended: str, reason: str) -> None:
        """Hear that nobody knows what became of a message, so that its sender must decide."""


class Delivery:
    """The messages of one service that have a node; to its connections it is `connections.Carrier`."""

    def __init__(self, network: Network, desk: Desk, task: ServiceTask, pool: Pool) -> None:
        self._network, self._desk = network, desk
        self._succeeded: dict[str, int] = {}  # messages that went well at a node, since the last sweep
        self.connections = Connections(network, self, task, pool)
        self.counting = Counting()
        self._reports = Reports(network, self.counting)
        self.configure(task, pool)

    def configure(self, task: ServiceTask, pool: Pool) -> None:
        """Take a new task; messages under way go on by it."""
        self._settings, self._pool = task.hl7, pool
        self.connections.configure(task, pool)

    # It goes there

    def carry(self, exchange: Exchange, picked: Picked) -> None:
        """Send a message to its node."""
        self.connections.carry(exchange, picked)

    def refused(self, exchange: Exchange, node: str, reason: str, *, ours: bool) -> None:
        """Offer a message to the next node: this one has seen nothing of it."""
        self._reports.failed(node, "refused", reason, "next")
        if not ours:
            self._network.blame(exchange, node, FailureKind.REFUSED, reason)
        self._desk.next_node(exchange, node)

    def write(self, exchange: Exchange, link: Link) -> bool:
        """Send a message; say whether anything of it may have left."""
        sent = link.send(exchange.frame)
        if sent is Sent.NOTHING:
            return False
        link.exchange, exchange.link = exchange, link
        if sent is Sent.ALL:
            self._written(exchange)
        else:
            exchange.stage = Stage.WRITING
            link.progress = link.unsent_bytes
            exchange.deadline_s = self._network.now() + self._settings.stall_timeout_s
        return True

    def all_sent(self, link: Link) -> None:
        """Hear that what was to be sent has left."""
        exchange = link.exchange
        if exchange is not None and exchange.stage is Stage.WRITING and not link.unsent_bytes:
            self._written(exchange)

    def _written(self, exchange: Exchange) -> None:
        exchange.stage = Stage.ANSWER
        exchange.deadline_s = self._network.now() + self._settings.ack_timeout_s
        awaited = awaits(exchange.header)
        if awaited is Awaits.ANSWER:
            return
        if awaited is Awaits.PERHAPS:
            exchange.sender.look_again()
        elif self._settings.mllp_release == 1:
            self._await_no_longer(exchange)

    def hurry(self, exchange: Exchange) -> None:
        """Hear that the sender goes on to its next message: an answer that may never come is not awaited further."""
        if exchange.stage is Stage.ANSWER and self._may_end_without(exchange):
            self._await_no_longer(exchange)

    def _may_end_without(self, exchange: Exchange) -> bool:
        """Say whether no answer is owed any more; within release 2 the message's own commitment always is."""
        is_committed = self._settings.mllp_release == 1 or exchange.committed
        return is_committed and awaits(exchange.header) is Awaits.PERHAPS

    def _await_no_longer(self, exchange: Exchange) -> None:
        if exchange.link is not None and may_bring_more(exchange.header, ""):
            exchange.link.expect(exchange.header.control_id, exchange.sender)
        self._finish(exchange, "none")

    # It is answered

    def received(self, link: Link, frame: Frame) -> None:
        """Take what a receiver says."""
        exchange = link.exchange
        answer = None if exchange is None else self._judged(exchange, link, frame)
        if exchange is None or answer is None or exchange.stage not in (Stage.WRITING, Stage.ANSWER):
            self._received_other(link, frame)
        elif exchange.stage is Stage.WRITING:
            self._answered_early(exchange, link, frame, answer)
        elif not answer.is_last:
            self._committed(exchange, frame)
        elif answer.is_rejection and self._settings.try_next and not exchange.sender.is_gone:
            exchange.rejection, exchange.rejection_code = frame, answer.code
            self.counting.resent += 1
            self._free(exchange)
            self._desk.next_node(exchange, link.node)
        else:
            self._answered(exchange, frame, answer.code)

    def _judged(self, exchange: Exchange, link: Link, frame: Frame) -> Answer | None:
        """Return what an answer means; a batch takes any, but for those that earlier messages may still get."""
        if exchange.header.is_batch and link.expects and _acknowledged(frame) in link.expects:
            return None
        return judge(exchange, frame, self._settings.mllp_release)

    def _committed(self, exchange: Exchange, frame: Frame) -> None:
        """Pass on, once, that the message's block is committed; its answer follows."""
        exchange.committed = True
        if not exchange.is_commitment_told:
            exchange.is_commitment_told = True
            exchange.sender.answer(frame)

    def answer(self, exchange: Exchange, frame: Frame, code: str) -> None:
        """Pass an answer on that was kept back: no other node has taken the message."""
        exchange.sender.answer(frame)
        self._finish(exchange, code)

    def _answered(self, exchange: Exchange, frame: Frame, code: str) -> None:
        """Pass the answer on; the message is done, unless the sender has to commit the answer (MLLP release 2)."""
        now_s = self._network.now()
        self.counting.took(now_s - exchange.since_s)
        exchange.sender.answer(frame)
        link = exchange.link
        if link is not None:
            self._succeeded[link.node] = self._succeeded.get(link.node, 0) + 1
            if may_bring_more(exchange.header, code):
                link.expect(exchange.header.control_id, exchange.sender)
        if self._settings.mllp_release == 2 and not _is_commitment(frame) and not exchange.sender.is_gone:
            exchange.stage, exchange.code = Stage.CONFIRMATION, code
            exchange.deadline_s = now_s + self._settings.ack_timeout_s
            exchange.sender.look_again()
        else:
            self._finish(exchange, code)

    def _answered_early(self, exchange: Exchange, link: Link, frame: Frame, answer: Answer) -> None:
        """Pass on what a receiver says that does not want the rest of a message; its connection is of no more use."""
        if not answer.is_negative:
            self.broken(link, "early", f"acknowledged {exchange.said} before it had all of it")
            return
        part(link)
        self._drop(link, "early", f"answered {answer.code} before it had all of {exchange.said}", None)
        exchange.sender.answer(frame)
        self._finish(exchange, answer.code)

    def confirmed(self, exchange: Exchange, frame: Frame) -> None:
        """Pass on the sender's block that commits the answer (MLLP release 2)."""
        if exchange.stage is Stage.CONFIRMATION and exchange.link is not None:
            exchange.link.send_aside(frame)
            self._finish(exchange, exchange.code)

    def unconfirmed(self, exchange: Exchange) -> None:
        """Hear that the sender does not commit its answer; the receiver would wait for that."""
        link = exchange.link
        if link is not None:
            part(link)
            link.close()
        self._desk.ended(exchange, exchange.code)

    def _received_other(self, link: Link, frame: Frame) -> None:
        """Pass on a later answer to an earlier message; anything else ends the connection."""
        acknowledged = _acknowledged(frame)
        sender = link.expects.pop(acknowledged, None) if acknowledged is not None else None
        exchange = link.exchange
        if sender is not None:
            self._owe(sender, link, frame)
            sender.answer(frame)
        elif exchange is None:
            self._drop(link, "unasked", "said something when no message was under way", None)
        elif acknowledged is None:
            self.broken(link, "malformed", f"answered {exchange.said} with something that acknowledges nothing")
        else:
            self.broken(link, "unmatched", f"acknowledged another message than {exchange.said}")

    def _owe(self, sender: Sender, link: Link, frame: Frame) -> None:
        """Remember where a sender's own acknowledgement of an answer goes; not all senders send one."""
        with suppress(NotHl7Error):
            sender.owes[read_header(frame.head).control_id] = link.send_aside
        if len(sender.owes) > _MOST_OWED:
            del sender.owes[next(iter(sender.owes))]

    # A receiver fails

    def broken(self, link: Link, why: str, reason: str) -> None:
        """End a connection whose receiver cannot be relied on any more; of its message nobody knows."""
        exchange = part(link)
        if exchange is None or exchange.stage is Stage.CONFIRMATION:  # then its sender has the answer
            self._drop(link, why, reason, None)
            if exchange is not None:
                self._desk.ended(exchange, exchange.code)
        elif exchange.stage is Stage.CONNECTION:
            link.close()
            self.refused(exchange, link.node, "said something before it was asked", ours=False)
        else:
            self._unacknowledged(exchange, link, why, reason)

    def _unacknowledged(self, exchange: Exchange, link: Link, why: str, reason: str) -> None:
        goes_on = self._settings.receivers_deduplicate and not exchange.sender.is_gone
        self._drop(link, why, reason, "next" if goes_on else "closed")
        kind = FailureKind.SLOW if why == "timeout" else FailureKind.ABORTED
        self._network.blame(exchange, link.node, kind, reason)
        if goes_on:
            self.counting.resent += 1
            self._desk.next_node(exchange, link.node)
        else:
            said = f"{link.node} {reason}, so nobody here knows whether it has taken {exchange.said}"
            self._desk.close_sender(exchange, "unacknowledged", said)

    def lost(self, link: Link, reason: str) -> None:
        """Hear that a connection is gone."""
        exchange = link.exchange
        if exchange is not None and exchange.stage is Stage.CONNECTION:
            part(link)
            self.refused(exchange, link.node, reason, ours=False)
        elif exchange is not None:
            what = "in the middle of its answer" if link.answer_bytes else "without an answer"
            self.broken(link, "lost", f"ended the connection {what} ({reason})")
        self.connections.gone(link)

    def settled(self, link: Link) -> None:
        """Hear that a connection, whose message was answered, has nothing more to say, or part of something."""
        if not link.answer_bytes or link.expects:
            self.connections.keep(link)
        elif link.is_open:
            self._drop(link, "unasked", "went on behind its answer", None)

    def _drop(self, link: Link, why: str, reason: str, then: str | None) -> None:
        link.close()
        self._reports.failed(link.node, why, reason, then)

    # It ends

    def _finish(self, exchange: Exchange, code: str) -> None:
        self._free(exchange)
        self._desk.ended(exchange, code)

    def _free(self, exchange: Exchange) -> None:
        """Keep a message's connection for the next one, when the receiver has said all that it says now."""
        link = exchange.link
        if link is None:
            return
        exchange.link = link.exchange = None
        if not link.is_speaking:
            self.connections.keep(link)

    # Time passes

    def sweep(self, now_s: float) -> None:
        """Close connections that were not used for long, and tell the pool what went well."""
        succeeded, self._succeeded = self._succeeded, {}
        for node, count in succeeded.items():
            self._pool.succeeded(node, now_s, count)
        self.connections.sweep(now_s)

    def too_late(self, exchange: Exchange, now_s: float) -> None:
        """End a stage that has taken too long, unless something was done in it."""
        link = exchange.link
        if exchange.stage is Stage.CONNECTION:
            self.connections.too_late(exchange)
        elif link is None:
            return
        elif exchange.stage is Stage.WRITING:
            self._look_at_progress(exchange, link, now_s)
        elif exchange.stage is Stage.ANSWER:
            self._answer_too_late(exchange, link, now_s)
        elif exchange.stage is Stage.CONFIRMATION:
            self.unconfirmed(exchange)

    def _look_at_progress(self, exchange: Exchange, link: Link, now_s: float) -> None:
        """Go on with a receiver that has taken something since the last look."""
        if link.unsent_bytes < link.progress:
            link.progress = link.unsent_bytes
            exchange.deadline_s = now_s + self._settings.stall_timeout_s
        else:
            self.broken(link, "stalled", f"took nothing of {exchange.said} for {self._settings.stall_timeout_s:g} s")

    def _answer_too_late(self, exchange: Exchange, link: Link, now_s: float) -> None:
        if link.answer_bytes >= link.answer_seen_bytes + _PROGRESS_BYTES:
            link.answer_seen_bytes = link.answer_bytes
            exchange.deadline_s = now_s + self._settings.stall_timeout_s
        elif self._may_end_without(exchange):
            self._await_no_longer(exchange)
        else:
            said = "did not go on with its long answer" if link.answer_seen_bytes else "did not acknowledge in time"
            self.broken(link, "timeout", f"{said} (ack_timeout {self._settings.ack_timeout_s:g} s)")


def _is_commitment(frame: Frame) -> bool:
    return frame.size == 1 and frame.head in (ACK, NAK)


def _acknowledged(frame: Frame) -> bytes | None:
    """Return the control ID that a frame acknowledges."""
    acknowledgement = read_acknowledgement(frame.head)
    return None if acknowledgement is None else acknowledgement.control_id
