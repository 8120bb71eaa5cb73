"""The DICOM relay: one association from its request to its end, as events in and commands out.

It is an acceptor to the client and a requestor to the node (PS3.8 table 9-10), not a tunnel: it reads the request
whole, finds a node that accepts it, and from then on a `Conversation` follows what passes.
Source: DICOM PS3.8 sections 7.1 and 9.2 (states, ARTIM), 9.3.4 (rejects), 9.3.8 (aborts).
"""

from enum import Enum, auto

from equipoise.engines.gateway.admission import refusal
from equipoise.engines.gateway.conversation import PROVIDER_ABORT, Conversation, End
from equipoise.engines.gateway.relay import (
    Abort,
    ClientClosed,
    CloseClient,
    CloseNode,
    Command,
    Data,
    Ended,
    Event,
    Finish,
    FromClient,
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
    ToClient,
    ToNode,
    WriteStalled,
)
from equipoise.plan.model import Dicom
from equipoise.proto.dicom.association import (
    AssociateRequest,
    forwarded_accept,
    forwarded_request,
    parse_accept,
    parse_request,
)
from equipoise.proto.dicom.pdu import (
    REJECT_CONGESTION,
    REJECT_LIMIT,
    REJECT_NO_REASON,
    AbortReason,
    AbortSource,
    PduError,
    PduReader,
    PduType,
    Reject,
    describe_abort,
    encode_abort,
)
from equipoise.proto.dicom.walker import Walker

UNLIMITED_AS = 1 << 20  # DESIGN: an announced maximum length of 0 is passed on as 1 MiB


class State(Enum):
    """Where an association stands.  While ENDING only the client's closing is awaited."""

    AWAITING_REQUEST, PICKING, CONNECTING, AWAITING_ANSWER, RELAYING, ENDING, ENDED = (auto() for _ in range(7))


class DicomRelay:
    """One association.

    Args:
        settings: The service's.
        source_refused: Why this source address may not associate, or None.
        now_s: When the client connected; all times are of one monotonic clock, in seconds.
    """

    __slots__ = (
        "_began_s",
        "_called_ae",
        "_calling_ae",
        "_conversation",
        "_last_failure",
        "_last_reject",
        "_node",
        "_node_deadline_s",
        "_node_reader",
        "_reader",
        "_request",
        "_retried_no_reason",
        "_settings",
        "_setup_deadline_s",
        "_setup_ms",
        "_source_refused",
        "_state",
        "_tried",
    )

    def __init__(self, settings: Dicom, source_refused: str | None, now_s: float) -> None:
        self._settings = settings
        self._source_refused = source_refused
        self._state = State.AWAITING_REQUEST
        self._began_s = now_s
        self._reader = PduReader(settings.max_associate_bytes)
        self._node_reader = PduReader(settings.max_associate_bytes)
        self._request: AssociateRequest | None = None  # until it is answered
        self._calling_ae = self._called_ae = ""
        self._conversation: Conversation | None = None
        self._node: str | None = None
        self._tried: tuple[str, ...] = ()
        self._node_deadline_s = 0.0
        self._last_failure: str | None = None
        self._last_reject: Reject | None = None
        self._retried_no_reason = False
        self._setup_deadline_s = 0.0
        self._setup_ms: float | None = None

    def start(self) -> list[Command]:
        """Return what to do when the client has connected: wait for its request, not for ever."""
        return [StartTimer(self._settings.artim_s)]

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Return what to do now.  Bytes that break the protocol are answered here; they end the association."""
        try:
            match self._state:
                case State.RELAYING:
                    return self._relay(self._conversation, event, now_s)
                case State.AWAITING_REQUEST:
                    return self._await_request(event, now_s)
                case State.ENDING:
                    return self._await_close(event)
                case State.ENDED:
                    return []  # both sides may end at once, so late events are normal
            return self._set_up(event, now_s)
        except PduError as error:
            return self._violated(error, by_client=isinstance(event, FromClient))

    def _relay(self, conversation: Conversation | None, event: Event, now_s: float) -> list[Command]:
        if conversation is None:
            raise AssertionError("relaying without a conversation")
        match event:
            case FromClient(data):
                end = conversation.saw(data, now_s, from_client=True)
                return [ToNode(data)] if end is None else [ToNode(data), *self._end(end)]
            case FromNode(data):
                end = conversation.saw(data, now_s, from_client=False)
                return [ToClient(data)] if end is None else [ToClient(data), *self._end(end)]
            case TimerExpired():
                end = conversation.tick(now_s)
                return [StartTimer(conversation.next_tick_s(now_s))] if end is None else self._end(end)
        end = self._interrupted(conversation, event)
        return [] if end is None else self._end(end)

    def _interrupted(self, conversation: Conversation, event: Event) -> End | None:
        match event:
            case ClientClosed():
                return conversation.client_gone("closed the connection without release or abort")
            case NodeClosed():
                return conversation.node_gone(f"{self._node} closed the connection without release or abort")
            case WriteStalled(client):
                side, seconds = "client" if client else "node", f"{self._settings.stall_timeout_s:g} s"
                return conversation.abort_both("timed_out", f"the {side} took no bytes for {seconds}")
            case Finish(reason):
                return conversation.finish(reason)
            case Abort(reason):
                return conversation.abort_both("drained", reason)
        return None  # a late event of a node that was given up

    # The request

    def _await_request(self, event: Event, now_s: float) -> list[Command]:
        match event:
            case FromClient(data):
                return self._read_request(data, now_s)
            case ClientClosed():
                return self._client_gone()
            case Abort(reason):
                return self._abort("drained", reason)
            case TimerExpired():  # AA-2: stop and close, no abort
                reason = f"no whole A-ASSOCIATE-RQ within {self._settings.artim_s:g} s, only {len(self._reader)} bytes"
                return self._end(End("timed_out", reason, (CloseClient(),)))
        return []  # no node is involved yet

    def _read_request(self, data: Data, now_s: float) -> list[Command]:
        self._reader.feed(data)
        if self._reader.next_type() not in (PduType.ASSOCIATE_RQ, PduType.ABORT, None):
            raise PduError(f"{_label(self._reader)} before an association", AbortReason.UNEXPECTED_PDU)
        pdu = self._reader.next_pdu()
        if pdu is None:
            return []
        if pdu.type is PduType.ABORT:
            return self._end(End("client_aborted", describe_abort(pdu.body), (CloseClient(),)))
        request = self._request = parse_request(pdu.body)
        self._calling_ae, self._called_ae = request.calling_ae, request.called_ae
        if (refused := refusal(request, self._settings, self._source_refused)) is not None:
            return self._reject(refused[0], "refused", refused[1])
        self._setup_deadline_s = now_s + self._settings.setup_timeout_s
        return self._early(b"") or self._pick()

    def _early(self, data: Data) -> list[Command]:
        """Take bytes of a client that has no answer yet: it may abort, nothing else (PS3.8 table 9-10, Sta5)."""
        self._reader.feed(data)
        if self._reader.next_type() not in (PduType.ABORT, None):
            raise PduError(f"{_label(self._reader)} before the association was accepted", AbortReason.UNEXPECTED_PDU)
        pdu = self._reader.next_pdu()
        if pdu is None:
            return []
        return self._end(End("client_aborted", describe_abort(pdu.body), (*self._leave_node(), CloseClient())))

    # Finding a node

    def _set_up(self, event: Event, now_s: float) -> list[Command]:
        match event:
            case FromClient(data):
                return self._early(data)
            case ClientClosed():
                return self._client_gone()
            case Abort(reason):
                return self._abort("drained", reason)
        return self._find_node(event, now_s)

    def _find_node(self, event: Event, now_s: float) -> list[Command]:
        match self._state, event:
            case (State.PICKING, NodePicked(name, alternatives)):
                return self._connect(name, alternatives, now_s)
            case (State.PICKING, NoNode(limit, reason)):
                return self._give_up(REJECT_LIMIT if limit else REJECT_CONGESTION, reason)
            case (State.CONNECTING, NodeOpened()):
                return self._ask(now_s)
            case (State.CONNECTING, NodeFailed(reason)):
                return self._next(reason, now_s)
            case (State.CONNECTING, TimerExpired()):
                return self._next("no connection in time", now_s)
            case (State.AWAITING_ANSWER, FromNode(data)):
                return self._read_answer(data, now_s)
            case (State.AWAITING_ANSWER, NodeClosed()):
                return self._next("closed the connection before it answered", now_s)
            case (State.AWAITING_ANSWER, TimerExpired()):
                return self._next("no answer to the A-ASSOCIATE-RQ in time", now_s, ToNode(PROVIDER_ABORT))
            case (State.CONNECTING | State.AWAITING_ANSWER, Finish(reason)):
                return self._next(reason, now_s, *self._leave_node())
        return []  # late events of a node that was given up

    def _pick(self) -> list[Command]:
        self._state = State.PICKING
        self._node = None
        return [PickNode(self._calling_ae, self._tried)]

    def _connect(self, name: str, alternatives: int, now_s: float) -> list[Command]:
        """Go to this node, which may take its share of the time that is left, so that the others get theirs."""
        self._state = State.CONNECTING
        self._node = name
        self._tried = (*self._tried, name)
        self._node_reader = PduReader(self._settings.max_associate_bytes)
        share_s = self._left_s(now_s) / (1 + alternatives)
        self._node_deadline_s = now_s + share_s
        return [OpenNode(), StartTimer(min(self._settings.connect_timeout_s, share_s))]

    def _ask(self, now_s: float) -> list[Command]:
        if self._request is None:
            raise AssertionError("a node was opened before there was a request")
        self._state = State.AWAITING_ANSWER
        request = forwarded_request(self._request, called_ae=self._settings.node_called_ae, unlimited_as=UNLIMITED_AS)
        return [ToNode(request), StartTimer(max(self._node_deadline_s - now_s, 0.0))]

    def _read_answer(self, data: Data, now_s: float) -> list[Command]:
        self._node_reader.feed(data)
        try:
            pdu = self._node_reader.next_pdu()
            if pdu is None:
                return []
            if pdu.type is PduType.ASSOCIATE_AC:
                return self._accepted(pdu.body, now_s)
            if pdu.type is PduType.ASSOCIATE_RJ:
                return self._rejected(pdu.as_reject(), now_s)
            if pdu.type is PduType.ABORT:  # AA-3: it gets no answer
                return self._next(describe_abort(pdu.body), now_s)
            said = f"answered {pdu.type.label}"
        except PduError as error:
            said = str(error)
        return self._next(said, now_s, ToNode(PROVIDER_ABORT))

    def _accepted(self, body: bytes, now_s: float) -> list[Command]:
        accept, request = parse_accept(body), self._request
        if request is None:
            raise AssertionError("a node answered before there was a request")
        accepted_mask = accept.accepted_mask & request.proposed_mask  # a node cannot accept what nobody proposed
        self._conversation = Conversation(
            self._settings,
            to_node=Walker(accept.max_length or UNLIMITED_AS, accepted_mask),
            to_client=Walker(request.max_length or UNLIMITED_AS, accepted_mask),
            now_s=now_s,
        )
        answer = forwarded_accept(accept, request, unlimited_as=UNLIMITED_AS)
        self._request = None  # 5 000 idle associations must not hold 20 kB each
        self._state = State.RELAYING
        self._setup_ms = round((now_s - self._began_s) * 1000, 3)
        commands: list[Command] = [ToClient(answer), StartTimer(self._conversation.next_tick_s(now_s))]
        if rest := self._node_reader.take_rest():
            commands += self.handle(FromNode(rest), now_s)
        return commands

    def _rejected(self, reject: Reject, now_s: float) -> list[Command]:
        """Try another node where that may help, else let the client see the node's own answer."""
        if not reject.transient:
            if reject != REJECT_NO_REASON or self._retried_no_reason:
                return self._reject(reject, "rejected", f"{self._node}: {reject}")
            self._retried_no_reason = True  # overloaded peers send it too, so one other node is asked, once
        self._last_reject = reject
        return self._next(str(reject), now_s)

    def _next(self, reason: str, now_s: float, *farewell: Command) -> list[Command]:
        """Leave this node and ask another, unless the time is over."""
        self._last_failure = f"{self._node}: {reason}"
        close = [*farewell, CloseNode()]
        if self._left_s(now_s) <= 0:
            return close + self._give_up(REJECT_CONGESTION, "setting the association up took too long")
        return close + self._pick()

    def _give_up(self, reject: Reject, reason: str) -> list[Command]:
        if self._last_failure is not None:
            reason = f"{reason}; tried last: {self._last_failure}"
        if self._last_reject is not None:
            return self._reject(self._last_reject, "rejected", reason)
        return self._reject(reject, "no_node", reason)

    def _left_s(self, now_s: float) -> float:
        return max(self._setup_deadline_s - now_s, 0.0)

    # The ends

    def _await_close(self, event: Event) -> list[Command]:
        """All is said; the client closes, or time does it."""
        if not isinstance(event, ClientClosed | TimerExpired):
            return []
        self._state = State.ENDED
        return [CloseClient()]

    def _client_gone(self) -> list[Command]:
        if self._request is None and len(self._reader) == 0:
            return self._end(End("no_request", "connected and closed without a byte", (CloseClient(),)))
        if self._request is None:
            reason = f"closed after {len(self._reader)} bytes of an A-ASSOCIATE-RQ"
        else:
            reason = "closed before the association was accepted"
        return self._end(End("client_closed", reason, (*self._leave_node(), CloseClient())))

    def _violated(self, error: PduError, *, by_client: bool) -> list[Command]:
        if self._conversation is not None:
            return self._end(self._conversation.violated(error, by_client=by_client))
        return self._abort("client_error", str(error), error.reason)

    def _abort(self, ended: str, reason: str, abort: AbortReason = AbortReason.NOT_SPECIFIED) -> list[Command]:
        """End an association that has not been accepted."""
        farewell = (ToClient(encode_abort(AbortSource.PROVIDER, abort)), *self._leave_node(), self._closing_time())
        return self._end(End(ended, reason, farewell))

    def _reject(self, reject: Reject, ended: str, reason: str) -> list[Command]:
        """Reject, then let the client close: closing first could destroy the answer on its way (Sta13)."""
        said = reason if str(reject) in reason else f"{reason}; answered: {reject}"
        return self._end(End(ended, said, (ToClient(reject.encode()), CloseNode(), self._closing_time())))

    def _leave_node(self) -> tuple[Command, ...]:
        if self._state is State.AWAITING_ANSWER:
            return ToNode(PROVIDER_ABORT), CloseNode(linger=True)
        return (CloseNode(),)

    def _closing_time(self) -> Command:
        return StartTimer(self._settings.artim_s)

    def _end(self, end: End) -> list[Command]:
        self._state = State.ENDED if CloseClient() in end.farewell else State.ENDING
        record = Ended(
            calling_ae=self._calling_ae,
            called_ae=self._called_ae,
            node=self._node,
            tried=self._tried,
            ended=end.ended,
            reason=end.reason,
            setup_ms=self._setup_ms,
            messages=self._conversation.counts() if self._conversation else (),
        )
        return [*end.farewell, record]


def _label(reader: PduReader) -> str:
    kind = reader.next_type()
    return kind.label if kind else "nothing"
