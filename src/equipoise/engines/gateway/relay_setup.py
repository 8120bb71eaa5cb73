"""The node's half of setting up: one node of the pool after the other is asked, until one accepts the association.

Leaves out the client, who waits meanwhile; and what follows when a node has accepted.  A node that cannot be connected
is blamed as "refused"; one that fails at the request itself as "aborted", since the request may be what it fails at.
Source: DICOM PS3.8 section 9.2 (states of a requestor), 9.3.4 (rejects); DESIGN, "Set-up".
"""

from dataclasses import dataclass
from enum import Enum, auto

from equipoise.engines.gateway.admission import Admitted
from equipoise.engines.gateway.conversation import PROVIDER_ABORT
from equipoise.engines.gateway.relay import (
    Blame,
    CloseNode,
    Command,
    Data,
    Event,
    Finish,
    FromNode,
    NodeClosed,
    NodeFailed,
    NodeOpened,
    NodePicked,
    NoNode,
    OpenNode,
    PickNode,
    StartTimer,
    TimerExpired,
    ToNode,
)
from equipoise.proto.dicom.association import AssociateAccept, AssociateRequest, forwarded_request, parse_accept
from equipoise.proto.dicom.pdu import (
    REJECT_CONGESTION,
    REJECT_LIMIT,
    REJECT_NO_REASON,
    PduError,
    PduReader,
    PduType,
    Reject,
    describe_abort,
)

UNLIMITED_AS = 1 << 20  # DESIGN: an announced maximum length of 0 is passed on as 1 MiB


@dataclass(frozen=True, slots=True)
class Accepted:
    """A node has accepted; `rest` came behind its answer."""

    accept: AssociateAccept
    rest: bytes


@dataclass(frozen=True, slots=True)
class GivenUp:
    """No node will have it: what is still to be done, what the client hears, what the event says."""

    commands: tuple[Command, ...]
    reject: Reject
    ended: str
    reason: str


Outcome = list[Command] | Accepted | GivenUp


class _State(Enum):
    PICKING, CONNECTING, AWAITING_ANSWER = (auto() for _ in range(3))


class NodeSearch:
    """The search for a node that accepts one request.

    Args:
        request: As the client sent it.
        admitted: Whose pool it goes to, and that service's settings.
        now_s: When the request was whole.

    Attributes:
        node: The one that is asked, or None while one is picked.
        tried: All that were picked, that one included.
    """

    __slots__ = (
        "_admitted",
        "_had_its_time",
        "_last_failure",
        "_last_reject",
        "_node_deadline_s",
        "_reader",
        "_retried_no_reason",
        "_settings",
        "_setup_deadline_s",
        "_state",
        "node",
        "request",
        "tried",
    )

    def __init__(self, request: AssociateRequest, admitted: Admitted, now_s: float) -> None:
        self.request = request
        self.node: str | None = None
        self.tried: tuple[str, ...] = ()
        self._admitted = admitted
        self._settings = admitted.settings
        self._state = _State.PICKING
        self._reader: PduReader  # of the node that is asked
        self._setup_deadline_s = now_s + self._settings.setup_timeout_s
        self._node_deadline_s = 0.0
        self._had_its_time = True
        self._last_failure: str | None = None
        self._last_reject: Reject | None = None
        self._retried_no_reason = False

    @property
    def slow_response_s(self) -> float:
        """From when on the pool's service counts a response against a node."""
        return self._admitted.slow_response_s

    def pick(self) -> list[Command]:
        """Return what asks for a node that was not tried."""
        self._state = _State.PICKING
        self.node = None
        return [PickNode(self._admitted.pool, self.request.calling_ae, self.tried)]

    def leave(self) -> tuple[Command, ...]:
        """Return what ends the search from outside."""
        if self._state is _State.AWAITING_ANSWER:
            return ToNode(PROVIDER_ABORT), CloseNode(linger=True)
        return (CloseNode(),)

    def handle(self, event: Event, now_s: float) -> Outcome:
        """Return what to do now, or how the search has ended."""
        match self._state, event:
            case (_State.PICKING, NodePicked(name, alternatives)):
                return self._connect(name, alternatives, now_s)
            case (_State.PICKING, NoNode(limit, reason)):
                return self._give_up(REJECT_LIMIT if limit else REJECT_CONGESTION, reason)
            case (_State.CONNECTING, NodeOpened()):
                return self._ask(now_s)
            case (_State.CONNECTING, NodeFailed(reason, ours)):
                return self._next(reason, now_s, blame=None if ours else "refused")
            case (_State.CONNECTING, TimerExpired()):
                return self._next("no connection in time", now_s, blame=self._late("refused"))
            case (_State.AWAITING_ANSWER, FromNode(data)):
                return self._read_answer(data, now_s)
            case (_State.AWAITING_ANSWER, NodeClosed(why)):
                return self._next(why or "closed the connection before it answered", now_s, blame="aborted")
            case (_State.AWAITING_ANSWER, TimerExpired()):
                reason = "no answer to the A-ASSOCIATE-RQ in time"
                return self._next(reason, now_s, ToNode(PROVIDER_ABORT), blame=self._late("aborted"))
            case (_State.CONNECTING | _State.AWAITING_ANSWER, Finish(reason)):
                return self._next(reason, now_s, *self.leave(), blame=None)
        return []  # late events of a node that was given up

    def _late(self, kind: str) -> str | None:
        return kind if self._had_its_time else None

    def _connect(self, name: str, alternatives: int, now_s: float) -> list[Command]:
        """Go to this node, which may take its share of the time that is left, so that the others get theirs."""
        self._state = _State.CONNECTING
        self.node = name
        self.tried = (*self.tried, name)
        self._reader = PduReader(self._settings.max_associate_bytes)
        share_s = self._left_s(now_s) / (1 + alternatives)
        # The queue may have used the time up: who gets less than half of what it should is not to blame for being late.
        self._had_its_time = share_s >= self._settings.setup_timeout_s / (len(self.tried) + alternatives) / 2
        self._node_deadline_s = now_s + share_s
        return [OpenNode(), StartTimer(min(self._settings.connect_timeout_s, share_s))]

    def _ask(self, now_s: float) -> list[Command]:
        self._state = _State.AWAITING_ANSWER
        request = forwarded_request(self.request, called_ae=self._settings.node_called_ae, unlimited_as=UNLIMITED_AS)
        return [ToNode(request), StartTimer(max(self._node_deadline_s - now_s, 0.0))]

    def _read_answer(self, data: Data, now_s: float) -> Outcome:
        self._reader.feed(data)
        try:
            pdu = self._reader.next_pdu()
            if pdu is None:
                return []
            if pdu.type is PduType.ASSOCIATE_AC:
                return Accepted(parse_accept(pdu.body), self._reader.take_rest())
            if pdu.type is PduType.ASSOCIATE_RJ:
                return self._rejected(pdu.as_reject(), now_s)
            if pdu.type is PduType.ABORT:  # AA-3: it gets no answer
                return self._next(describe_abort(pdu.body), now_s, blame="aborted")
            said = f"answered {pdu.type.label}"
        except PduError as error:
            said = str(error)
        return self._next(said, now_s, ToNode(PROVIDER_ABORT), blame="aborted")

    def _rejected(self, reject: Reject, now_s: float) -> Outcome:
        """Try another node where that may help, else let the client see the node's own answer."""
        if not reject.transient:
            # Overloaded peers send "no reason" too, so one other node is asked, once; if that one says the same, it is
            # more likely the request than both nodes.
            if reject != REJECT_NO_REASON or self._retried_no_reason:
                return GivenUp((), reject, "rejected", f"{self.node}: {reject}")
            self._retried_no_reason = True
        self._last_reject = reject
        return self._next(str(reject), now_s, blame="busy")

    def _next(self, reason: str, now_s: float, *farewell: Command, blame: str | None) -> Outcome:
        """Leave this node and ask another, unless the time is over."""
        self._last_failure = f"{self.node}: {reason}"
        blamed = [Blame(blame, reason)] if blame else []
        close = [*blamed, *farewell, CloseNode()]
        if self._left_s(now_s) <= 0:
            return self._give_up(REJECT_CONGESTION, "setting the association up took too long", *close)
        return close + self.pick()

    def _give_up(self, reject: Reject, reason: str, *commands: Command) -> GivenUp:
        if self._last_failure is not None:
            reason = f"{reason}; tried last: {self._last_failure}"
        if self._last_reject is not None:
            return GivenUp(commands, self._last_reject, "rejected", reason)
        return GivenUp(commands, reject, "no_node", reason)

    def _left_s(self, now_s: float) -> float:
        return max(self._setup_deadline_s - now_s, 0.0)
