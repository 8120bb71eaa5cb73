"""The DICOM relay: one association from its request to its end, as events in and commands out.

It is an acceptor to the client and a requestor to the node (PS3.8 table 9-10), not a tunnel: it reads the request
whole, a `NodeSearch` finds a node that accepts it, and from then on a `Conversation` follows what passes.
Source: DICOM PS3.8 sections 7.1 and 9.2 (states, ARTIM), 9.3.4 (rejects), 9.3.8 (aborts).
"""

from enum import Enum, auto

from equipoise.engines.gateway.admission import Admitted, Door, Refused
from equipoise.engines.gateway.conversation import Conversation, End
from equipoise.engines.gateway.relay import (
    Abort,
    Blame,
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
    StartTimer,
    TimerExpired,
    ToClient,
    ToNode,
    WriteStalled,
)
from equipoise.engines.gateway.relay_setup import UNLIMITED_AS, Accepted, GivenUp, NodeSearch
from equipoise.proto.dicom.association import AssociateRequest, forwarded_accept, parse_request
from equipoise.proto.dicom.pdu import (
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


class State(Enum):
    """Where an association stands.  While ENDING only the client's closing is awaited."""

    AWAITING_REQUEST, SETTING_UP, RELAYING, ENDING, ENDED = (auto() for _ in range(5))


class DicomRelay:
    """One association.

    Args:
        door: What stands between the client and the pools.
        source_ip: The client's address.
        now_s: When the client connected; all times are of one monotonic clock, in seconds.
    """

    __slots__ = (
        "_began_s",
        "_called_ae",
        "_calling_ae",
        "_conversation",
        "_door",
        "_node",
        "_reader",
        "_search",
        "_settings",
        "_setup_ms",
        "_source_ip",
        "_state",
        "_tried",
    )

    def __init__(self, door: Door, source_ip: str, now_s: float) -> None:
        self._door = door
        self._source_ip = source_ip
        self._settings = door.settings  # until a pool is chosen
        self._state = State.AWAITING_REQUEST
        self._began_s = now_s
        self._reader = PduReader(self._settings.max_associate_bytes)
        self._calling_ae = self._called_ae = ""
        self._search: NodeSearch | None = None  # from the request to its answer
        self._conversation: Conversation | None = None
        self._node: str | None = None
        self._tried: tuple[str, ...] = ()
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
            return self._set_up(self._search, event, now_s)
        except PduError as error:
            return self._violated(error, now_s, by_client=isinstance(event, FromClient))

    def _relay(self, conversation: Conversation | None, event: Event, now_s: float) -> list[Command]:
        if conversation is None:
            raise AssertionError("relaying without a conversation")
        match event:
            case FromClient(data):
                said = conversation.saw(data, now_s, from_client=True)
                return [ToNode(data)] if said is None else [ToNode(data), *self._noted(said)]
            case FromNode(data):
                said = conversation.saw(data, now_s, from_client=False)
                return [ToClient(data)] if said is None else [ToClient(data), *self._noted(said)]
            case TimerExpired():
                end = conversation.tick(now_s)
                return [StartTimer(conversation.next_tick_s(now_s))] if end is None else self._end(end)
        end = self._interrupted(conversation, event, now_s)
        return [] if end is None else self._end(end)

    def _noted(self, said: End | Blame) -> list[Command]:
        return [said] if isinstance(said, Blame) else self._end(said)

    def _interrupted(self, conversation: Conversation, event: Event, now_s: float) -> End | None:
        match event:
            case ClientClosed():
                return conversation.client_gone("closed the connection without release or abort", now_s)
            case NodeClosed(why):
                said = why or "closed the connection without release or abort"
                return conversation.node_gone(f"{self._node}: {said}" if why else f"{self._node} {said}", now_s)
            case WriteStalled(client):
                return conversation.stalled(client=client)
            case Finish(reason):
                return conversation.finish(reason)
            case Abort(reason):
                return conversation.abort_both("drained", reason, now_s)
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
        request = parse_request(pdu.body)
        self._calling_ae, self._called_ae = request.calling_ae, request.called_ae
        admission = self._door.admit(request, self._source_ip)
        if isinstance(admission, Refused):
            return self._reject(admission.reject, admission.ended, admission.reason)
        return self._search_node(request, admission, now_s)

    def _search_node(self, request: AssociateRequest, admitted: Admitted, now_s: float) -> list[Command]:
        self._settings = admitted.settings
        self._search = NodeSearch(request, admitted, now_s)
        self._state = State.SETTING_UP
        return self._early(b"") or self._search.pick()

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

    def _set_up(self, search: NodeSearch | None, event: Event, now_s: float) -> list[Command]:
        if search is None:
            raise AssertionError("setting up without a request")
        match event:
            case FromClient(data):
                return self._early(data)
            case ClientClosed():
                return self._client_gone()
            case Abort(reason):
                return self._abort("drained", reason)
        match search.handle(event, now_s):
            case Accepted() as accepted:
                return self._accepted(accepted, search, now_s)
            case GivenUp(commands, reject, ended, reason):
                return [*commands, *self._reject(reject, ended, reason)]
            case commands:
                return commands

    def _accepted(self, accepted: Accepted, search: NodeSearch, now_s: float) -> list[Command]:
        accept, request = accepted.accept, search.request
        accepted_mask = accept.accepted_mask & request.proposed_mask  # a node cannot accept what nobody proposed
        self._conversation = Conversation(
            self._settings,
            search.slow_response_s,
            to_node=Walker(accept.max_length or UNLIMITED_AS, accepted_mask),
            to_client=Walker(request.max_length or UNLIMITED_AS, accepted_mask),
            now_s=now_s,
        )
        self._leave_search()
        self._state = State.RELAYING
        self._setup_ms = round((now_s - self._began_s) * 1000, 3)
        answer = forwarded_accept(accept, request, unlimited_as=UNLIMITED_AS)
        commands: list[Command] = [ToClient(answer), StartTimer(self._conversation.next_tick_s(now_s))]
        if accepted.rest:
            commands += self.handle(FromNode(accepted.rest), now_s)
        return commands

    def _leave_search(self) -> None:
        """Keep what the record says and let the request go: 5 000 idle associations must not hold 20 kB each."""
        if self._search is not None:
            self._node, self._tried = self._search.node, self._search.tried
            self._search = None

    # The ends

    def _await_close(self, event: Event) -> list[Command]:
        """All is said; the client closes, or time does it."""
        if not isinstance(event, ClientClosed | TimerExpired):
            return []
        self._state = State.ENDED
        return [CloseClient()]

    def _client_gone(self) -> list[Command]:
        if self._search is not None:
            reason = "closed before the association was accepted"
        elif len(self._reader) == 0:
            return self._end(End("no_request", "connected and closed without a byte", (CloseClient(),)))
        else:
            reason = f"closed after {len(self._reader)} bytes of an A-ASSOCIATE-RQ"
        return self._end(End("client_closed", reason, (*self._leave_node(), CloseClient())))

    def _violated(self, error: PduError, now_s: float, *, by_client: bool) -> list[Command]:
        if self._conversation is not None:
            return self._end(self._conversation.violated(error, now_s, by_client=by_client))
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
        return (CloseNode(),) if self._search is None else self._search.leave()

    def _closing_time(self) -> Command:
        return StartTimer(self._settings.artim_s)

    def _end(self, end: End) -> list[Command]:
        self._state = State.ENDED if CloseClient() in end.farewell else State.ENDING
        self._leave_search()
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
        blame = [] if end.blame is None else [end.blame]
        return [*blame, *end.farewell, record]


def _label(reader: PduReader) -> str:
    kind = reader.next_type()
    return kind.label if kind else "nothing"
