"""A message at its node: a connection for it, its bytes, the answer, and what follows when the receiver fails.

- Not a byte written: it goes on, by a fresh connection and then to the next node.
- Written and not acknowledged: nobody knows.  It is sent again only where receivers are said to deduplicate; else the
  sender's connection is closed, and the sender decides.
- Nothing is ever acknowledged here.

Source: DESIGN, "What the relays promise"; HL7 version 2.5.1, section 2.9.
"""

from typing import Protocol

from equipoise.engines.gateway.hl7.counting import Counting
from equipoise.engines.gateway.hl7.exchange import Answer, Awaits, Exchange, Stage, awaits, judge, may_bring_more
from equipoise.engines.gateway.hl7.link import Link
from equipoise.engines.gateway.hl7.links import Links
from equipoise.engines.gateway.hl7.reports import Listener, Reports
from equipoise.engines.gateway.hl7.stream import Sent
from equipoise.engines.gateway.messages import ServiceTask
from equipoise.engines.gateway.passive import FailureKind
from equipoise.engines.gateway.pool import Picked, Pool
from equipoise.proto.hl7 import NotHl7Error, read_acknowledgement, read_header
from equipoise.proto.mllp import ACK, NAK, Frame

_PROGRESS_BYTES = 16 * 1024  # of a long answer, within stall_timeout


class Network(Listener, Protocol):
    """What a delivery needs of its service."""

    def open_link(self, exchange: Exchange, picked: Picked) -> Link:
        """Begin to connect to a node; `opened` or `not_opened` follows."""

    def blame(self, exchange: Exchange, node: str, kind: FailureKind, reason: str) -> None:
        """Hold a failure against a node."""

    def link_gone(self) -> None:
        """Hear that a connection to a receiver is closed."""


class Desk(Protocol):
    """Where messages come from and go back to: see `dispatch.py`."""

    def next_node(self, exchange: Exchange, node: str) -> None:
        """Take a message back that is to go to another node than this one."""

    def ended(self, exchange: Exchange, code: str | None) -> None:
        """Hear that a message is done with; `code` is what is counted, None where that was done."""

    def close_sender(self, exchange: Exchange, ended: str, reason: str) -> None:
        """Hear that nobody knows what became of a message, so that its sender must decide."""


class Delivery:
    """The messages of one service that have a node."""

    def __init__(self, network: Network, desk: Desk, task: ServiceTask, pool: Pool) -> None:
        self._network, self._desk = network, desk
        self._roomless: dict[Exchange, None] = {}  # with a place at a node whose connections are still closing
        self._succeeded: dict[str, int] = {}  # messages that went well at a node, since the last sweep
        self._outdated_s = -1.0  # connections made before that are kept no more
        self.links = Links()
        self.counting = Counting()
        self._reports = Reports(network, self.counting)
        self.configure(task, pool)

    def configure(self, task: ServiceTask, pool: Pool) -> None:
        """Take a new task; messages under way go on by it."""
        self._settings, self._pool = task.hl7, pool
        self._keeps = task.hl7.idle_timeout_s > 0

    # A connection for it

    def carry(self, exchange: Exchange, picked: Picked) -> None:
        """Send a message by a free connection to its node, or open one."""
        name, port = picked.node.name, picked.node.port or exchange.sender.arrival.port
        while (link := self.links.take(name, port)) is not None:
            if self._write(exchange, link):
                return
            link.close()  # the receiver had closed it, and not a byte has left
        exchange.stage = Stage.CONNECTION
        exchange.deadline_s = self._network.now() + self._settings.connect_timeout_s
        if self.links.make_room(name, picked.node.max_connections):
            self._roomless.pop(exchange, None)
            link = self._network.open_link(exchange, picked)
            link.exchange, exchange.link = exchange, link
            self.links.add(link)
        else:
            self._roomless[exchange] = None

    def opened(self, link: Link) -> None:
        """Hear that a connection stands."""
        exchange = _parted(link)
        if exchange is None:
            self._keep(link)
        elif not self._write(exchange, link):
            link.close()
            self._refused(exchange, link.node, "closed the connection as soon as it stood", ours=False)

    def not_opened(self, link: Link, reason: str, *, ours: bool) -> None:
        """Hear that a connection could not be had; `ours`: for a reason of this machine."""
        exchange = _parted(link)
        self.links.gone(link)
        if exchange is not None:
            self._refused(exchange, link.node, reason, ours=ours)
        self._use_room(link.node)

    def _refused(self, exchange: Exchange, node: str, reason: str, *, ours: bool) -> None:
        """Offer a message to the next node: this one has seen nothing of it."""
        self._reports.failed(node, "refused", reason, "next")
        if not ours:
            self._network.blame(exchange, node, FailureKind.REFUSED, reason)
        self._roomless.pop(exchange, None)
        self._desk.next_node(exchange, node)

    def _write(self, exchange: Exchange, link: Link) -> bool:
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
        if self._settings.mllp_release == 1 and awaits(exchange.header) is Awaits.NOTHING:
            self._await_no_longer(exchange)

    def hurry(self, exchange: Exchange) -> None:
        """Hear that the sender goes on to its next message: an answer that may never come is not awaited further."""
        if exchange.stage is Stage.ANSWER and awaits(exchange.header) is Awaits.PERHAPS:
            self._await_no_longer(exchange)

    def _await_no_longer(self, exchange: Exchange) -> None:
        if exchange.link is not None and may_bring_more(exchange.header, answered=False):
            exchange.link.expect(exchange.header.control_id, exchange.sender)
        self._finish(exchange, "none")

    # It is answered

    def received(self, link: Link, frame: Frame) -> None:
        """Take what a receiver says."""
        exchange = link.exchange
        answer = None if exchange is None else judge(exchange, frame, self._settings.mllp_release)
        if exchange is None or answer is None or exchange.stage not in (Stage.WRITING, Stage.ANSWER):
            self._received_other(link, frame)
        elif exchange.stage is Stage.WRITING:
            self._answered_early(exchange, link, frame, answer)
        elif not answer.is_last:
            exchange.committed = True
            exchange.sender.answer(frame)
        elif answer.is_rejection and self._settings.try_next:
            exchange.rejection, exchange.rejection_code = frame, answer.code
            self.counting.resent += 1
            self._free(exchange)
            self._desk.next_node(exchange, link.node)
        else:
            self._answered(exchange, frame, answer.code)

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
            if may_bring_more(exchange.header, answered=True):
                link.expect(exchange.header.control_id, exchange.sender)
        if self._settings.mllp_release == 2 and not _is_commitment(frame) and not exchange.sender.is_gone:
            exchange.stage = Stage.CONFIRMATION
            exchange.deadline_s = now_s + self._settings.ack_timeout_s
            self.counting.ended(exchange.header.kind, code)
            return
        self._finish(exchange, code)

    def _answered_early(self, exchange: Exchange, link: Link, frame: Frame, answer: Answer) -> None:
        """Pass on what a receiver says that does not want the rest of a message; its connection is of no more use."""
        if not answer.is_negative:
            self.broken(link, "early", f"acknowledged {exchange.said} before it had all of it")
            return
        _parted(link)
        self._drop(link, "early", f"answered {answer.code} before it had all of {exchange.said}", None)
        exchange.sender.answer(frame)
        self._finish(exchange, answer.code)

    def confirmed(self, exchange: Exchange, frame: Frame) -> None:
        """Pass on the sender's block that commits the answer (MLLP release 2)."""
        if exchange.stage is Stage.CONFIRMATION and exchange.link is not None:
            exchange.link.send_aside(frame)
            self._finish(exchange, None)

    def unconfirmed(self, exchange: Exchange) -> None:
        """Hear that the sender does not commit its answer; the receiver would wait for that."""
        link = exchange.link
        if link is not None:
            _parted(link)
            link.close()
        self._desk.ended(exchange, None)

    def _received_other(self, link: Link, frame: Frame) -> None:
        """Pass on a later answer to an earlier message; anything else ends the connection."""
        acknowledgement = read_acknowledgement(frame.head)
        sender = link.expects.pop(acknowledgement.control_id, None) if acknowledgement else None
        exchange = link.exchange
        if sender is not None:
            if (control_id := _control_id(frame)) is not None:
                sender.owes[control_id] = link.send_aside
            sender.answer(frame)
        elif exchange is None:
            self._drop(link, "unasked", "said something when no message was under way", None)
        elif acknowledgement is None:
            self.broken(link, "malformed", f"answered {exchange.said} with something that acknowledges nothing")
        else:
            self.broken(link, "unmatched", f"acknowledged another message than {exchange.said}")

    # A receiver fails

    def broken(self, link: Link, why: str, reason: str) -> None:
        """End a connection whose receiver cannot be relied on any more; of its message nobody knows."""
        exchange = _parted(link)
        if exchange is None:
            self._drop(link, why, reason, None)
            return
        if exchange.stage is Stage.CONFIRMATION:  # its sender has the answer
            self._drop(link, why, reason, None)
            self._desk.ended(exchange, None)
            return
        goes_on = self._settings.receivers_deduplicate and not exchange.sender.is_gone
        self._drop(link, why, reason, "next" if goes_on else "closed")
        self._network.blame(exchange, link.node, FailureKind.SLOW if why == "timeout" else FailureKind.ABORTED, reason)
        if goes_on:
            self.counting.resent += 1
            self._desk.next_node(exchange, link.node)
        else:
            said = f"{link.node} {reason}, so nobody here knows whether it has taken {exchange.said}"
            self._desk.close_sender(exchange, "unacknowledged", said)

    def lost(self, link: Link, reason: str) -> None:
        """Hear that a connection is gone."""
        self.links.gone(link)
        link.expects.clear()
        exchange = link.exchange
        if exchange is not None and exchange.stage is Stage.CONNECTION:
            _parted(link)
            self._refused(exchange, link.node, reason, ours=False)
        elif exchange is not None:
            what = "in the middle of its answer" if link.answer_bytes else "without an answer"
            self.broken(link, "lost", f"ended the connection {what} ({reason})")
        self._use_room(link.node)
        self._network.link_gone()

    def _use_room(self, node: str) -> None:
        """Open the connections that messages wait for, now that another one is closed."""
        for exchange in list(self._roomless):
            if exchange.picked is not None and exchange.picked.node.name == node:
                self.carry(exchange, exchange.picked)

    def _drop(self, link: Link, why: str, reason: str, then: str | None) -> None:
        link.close()
        self._reports.failed(link.node, why, reason, then)

    # It ends

    def give_up(self, exchange: Exchange) -> None:
        """Let go of a message that no receiver has seen; a connection that is being opened for it is kept."""
        self._roomless.pop(exchange, None)
        if exchange.link is not None:
            _parted(exchange.link)

    def _finish(self, exchange: Exchange, code: str | None) -> None:
        self._free(exchange)
        self._desk.ended(exchange, code)

    def _free(self, exchange: Exchange) -> None:
        """Keep a message's connection for the next one."""
        link = exchange.link
        if link is not None:
            exchange.link = link.exchange = None
            self._keep(link)

    def _keep(self, link: Link) -> None:
        """Keep a connection, where its node takes a next message."""
        if not link.is_open:
            return
        member = self._pool.members.get(link.node)
        if member is None or not member.takes_work or not self._keeps or link.made_s <= self._outdated_s:
            link.part()
        else:
            self.links.free(link, self._network.now())

    def outdate(self) -> None:
        """Keep no connection that is open now: others are to be made from here on."""
        self._outdated_s = self._network.now()
        self.links.close_free()

    def leave(self) -> None:
        """Keep no connection any more: the service leaves.  `configure` takes that back."""
        self._keeps = False
        self.links.close_free()

    def close_free(self) -> None:
        """Close free connections to nodes that take no work."""
        working = {name for name, member in self._pool.members.items() if member.takes_work}
        for node in {link.node for link in self.links} - working:
            self.links.close_free(node)

    # Time passes

    def sweep(self, now_s: float) -> None:
        """Close connections that were not used for long, and tell the pool what went well."""
        succeeded, self._succeeded = self._succeeded, {}
        for node, count in succeeded.items():
            self._pool.succeeded(node, now_s, count)
        self.links.close_free(unused_since_s=now_s - self._settings.idle_timeout_s)

    def too_late(self, exchange: Exchange, now_s: float) -> None:
        """End a stage that has taken too long, unless something was done in it."""
        link = exchange.link
        if exchange.stage is Stage.CONNECTION:
            self._connection_too_late(exchange, link)
        elif link is None:
            return
        elif exchange.stage is Stage.WRITING:
            self._look_at_progress(exchange, link, now_s)
        elif exchange.stage is Stage.ANSWER:
            self._answer_too_late(exchange, link, now_s)
        elif exchange.stage is Stage.CONFIRMATION:
            self.unconfirmed(exchange)

    def _connection_too_late(self, exchange: Exchange, link: Link | None) -> None:
        name = exchange.picked.node.name if exchange.picked is not None else ""
        if link is None:
            self._refused(exchange, name, "has too many connections that are not closed yet", ours=True)
            return
        _parted(link)
        link.cancel()
        self.links.gone(link)
        self._refused(exchange, name, f"did not accept within {self._settings.connect_timeout_s:g} s", ours=False)

    def _look_at_progress(self, exchange: Exchange, link: Link, now_s: float) -> None:
        """Go on with a receiver that has taken something since the last look."""
        if link.unsent_bytes < link.progress:
            link.progress = link.unsent_bytes
            exchange.deadline_s = now_s + self._settings.stall_timeout_s
        else:
            self.broken(link, "stalled", f"took nothing of it for {self._settings.stall_timeout_s:g} s")

    def _answer_too_late(self, exchange: Exchange, link: Link, now_s: float) -> None:
        if link.answer_bytes >= link.answer_seen_bytes + _PROGRESS_BYTES:
            link.answer_seen_bytes = link.answer_bytes
            exchange.deadline_s = now_s + self._settings.stall_timeout_s
        elif awaits(exchange.header) is Awaits.PERHAPS:
            self._await_no_longer(exchange)
        else:
            self.broken(link, "timeout", f"did not acknowledge within {self._settings.ack_timeout_s:g} s")


def _parted(link: Link) -> Exchange | None:
    """Part a connection and its message; return the message."""
    exchange, link.exchange = link.exchange, None
    if exchange is not None:
        exchange.link = None
    return exchange


def _is_commitment(frame: Frame) -> bool:
    return frame.size == 1 and frame.head in (ACK, NAK)


def _control_id(frame: Frame) -> bytes | None:
    try:
        return read_header(frame.head).control_id
    except NotHl7Error:
        return None
