"""An association that both sides agreed to: both directions followed until it ends.  Leaves out how it came about.

Data passes unchanged; this part looks on, counts, and says when and how it is over.
Source: DICOM PS3.8 sections 7.2 (release, and its collision), 7.3 (abort), 9.2 (ARTIM, AR-3); DESIGN, "Relaying".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from equipoise.engines.gateway.relay import Blame, CloseClient, CloseNode, Command, Data, StartTimer, ToClient, ToNode
from equipoise.engines.gateway.tally import Tally
from equipoise.plan.model import Dicom
from equipoise.proto.dicom.dimse import CommandSet
from equipoise.proto.dicom.pdu import AbortReason, AbortSource, PduError, PduType, describe_abort, encode_abort
from equipoise.proto.dicom.walker import Control, Note, Walker
from equipoise.state.events import MessageCount

PROVIDER_ABORT = encode_abort(AbortSource.PROVIDER)  # "the other side is gone": source provider, no reason

# A node that ends an association in which nothing was under way, and nothing passed for so long, finds it idle: that
# is how many archives are set up, and no failure.
_IDLE_S = 10.0
_MAY_TAKE_LONG = frozenset({"C-MOVE", "C-GET"})  # they answer when all is sent, of which nothing may pass here
_OUT_OF_RESOURCES = 0xA700  # to 0xA7FF: PS3.4 tables B.2-1, C.4-1 to C.4-3
_RESOURCE_LIMITATION = 0x0213  # PS3.7 annex C.5


@dataclass(frozen=True, slots=True)
class End:
    """How a conversation ends: one word, a sentence, what is still to be done, and whether that is the node's fault."""

    ended: str
    reason: str
    farewell: tuple[Command, ...]
    blame: Blame | None = None


class Conversation:
    """One established association.

    Args:
        settings: Those of the service whose pool the node is in.
        slow_response_s: A node that lets a request wait so long is blamed.
        to_node: Follows what the client sends.
        to_client: Follows what the node sends.
        now_s: When it was accepted.
    """

    __slots__ = (
        "_blamed",
        "_finish_reason",
        "_last_activity_s",
        "_marks",
        "_mid_pdu",
        "_release_asked",
        "_settings",
        "_slow_response_s",
        "_tally",
        "_to_client",
        "_to_node",
    )

    def __init__(
        self, settings: Dicom, slow_response_s: float, to_node: Walker, to_client: Walker, now_s: float
    ) -> None:
        self._settings = settings
        self._slow_response_s = slow_response_s
        self._blamed = False  # once is enough
        self._to_node = to_node
        self._to_client = to_client
        self._tally = Tally()
        self._last_activity_s = now_s
        self._marks: dict[str, tuple[int | None, float]] = {}  # at the last look: see `tick`
        self._release_asked: frozenset[str] = frozenset()  # by which side, and not answered
        self._finish_reason: str | None = None
        self._mid_pdu = {"client": False, "node": False}  # whether what was passed on to it ends within a PDU

    def saw(self, data: Data, now_s: float, *, from_client: bool) -> End | Blame | None:
        """Follow what passes; return what follows from these bytes, nearly always nothing.  Raises: PduError."""
        walker = self._to_node if from_client else self._to_client
        notes = walker.walk(data if isinstance(data, memoryview) else memoryview(data))
        said = self._noted(notes, now_s, from_client=from_client) if notes else None
        self._last_activity_s = now_s  # only now: blame asks how long nothing had passed
        self._mid_pdu["node" if from_client else "client"] = walker.in_pdu
        if self._finish_reason is None or isinstance(said, End):
            return said
        end = self._end_at_rest()
        return said if end is None else replace(end, blame=said)

    def finish(self, reason: str) -> End | None:
        """End after the current message; return the end where none is open."""
        self._finish_reason = reason
        return self._end_at_rest()

    def tick(self, now_s: float) -> End | None:
        """Look for a side that fell silent: between messages it has `idle_timeout`, within a PDU `stall_timeout`."""
        if now_s - self._last_activity_s >= self._settings.idle_timeout_s:
            return self.abort_both("timed_out", f"idle for {self._settings.idle_timeout_s:g} s", now_s)
        for what, mark in self._unfinished().items():
            before, since_s = self._marks.get(what, (None, now_s))
            if mark is None or mark != before:
                self._marks[what] = (mark, now_s)
            elif now_s - since_s >= self._settings.stall_timeout_s:
                return self.abort_both("timed_out", f"{what} for {self._settings.stall_timeout_s:g} s", now_s)
        return None

    def _unfinished(self) -> dict[str, int | None]:
        """Return what each side has begun; the same number at two looks means no progress, None that nothing is."""
        return {
            "the client left a PDU unfinished": self._to_node.pdus if self._to_node.in_pdu else None,
            "the node left a PDU unfinished": self._to_client.pdus if self._to_client.in_pdu else None,
            "an A-RELEASE-RQ was not answered": len(self._release_asked) or None,
        }

    def next_tick_s(self, now_s: float) -> float:
        """Return in how many seconds `tick` has something to look at."""
        idle_left_s = self._settings.idle_timeout_s - (now_s - self._last_activity_s)
        return min(self._settings.stall_timeout_s, max(idle_left_s, 0.001))

    def counts(self) -> tuple[MessageCount, ...]:
        """Return what was counted so far."""
        return self._tally.counts()

    def abort_both(self, ended: str, reason: str, now_s: float) -> End:
        """Return an end that tells both sides, politely."""
        return End(ended, reason, self._leave_both(), self._blame_for_silence(now_s))

    def stalled(self, *, client: bool) -> End:
        """Return the end for a side that takes no bytes; what the other one owes cannot pass either."""
        reason = f"the {'client' if client else 'node'} took no bytes for {self._settings.stall_timeout_s:g} s"
        return End("timed_out", reason, self._leave_both(), None if client else self._blame("slow", reason))

    def node_gone(self, reason: str, now_s: float) -> End:
        """Return the end for a node whose connection is gone.  With `replay: store` this is where it will move on."""
        return End("node_closed", reason, self._leave_client(), self._blame_for_leaving(reason, now_s))

    def client_gone(self, reason: str, now_s: float) -> End:
        """Return the end for a client whose connection is gone."""
        farewell = (*self._leave_node(), CloseClient())
        return End("client_closed", reason, farewell, self._blame_for_silence(now_s))

    def violated(self, error: PduError, now_s: float, *, by_client: bool) -> End:
        """Answer bytes that break the protocol: PS3.8 AA-8 to who sent them, the news to the other side."""
        abort = encode_abort(AbortSource.PROVIDER, error.reason)
        to_client, to_node = (abort, PROVIDER_ABORT) if by_client else (PROVIDER_ABORT, abort)
        farewell = (*self._leave_client(to_client), *self._leave_node(to_node))
        blame = self._blame_for_silence(now_s) if by_client else self._blame("aborted", str(error))
        return End("client_error" if by_client else "node_error", str(error), farewell, blame)

    def _noted(self, notes: Sequence[Note], now_s: float, *, from_client: bool) -> End | Blame | None:
        blame: Blame | None = None
        for note in notes:
            if isinstance(note, CommandSet):
                self._tally.saw(note, from_client=from_client, now_s=now_s)
                if note.is_response and not from_client:
                    blame = blame or self._blame_for_response(note, now_s)
            elif (end := self._controlled(note, now_s, from_client=from_client)) is not None:
                return replace(end, blame=blame) if blame else end
        return blame

    def _controlled(self, note: Control, now_s: float, *, from_client: bool) -> End | None:
        side, other = ("client", "node") if from_client else ("node", "client")
        match note.type:
            case PduType.ABORT:
                return self._aborted(describe_abort(note.body), now_s, from_client=from_client)
            case PduType.RELEASE_RQ:
                self._release_asked |= {side}
            case PduType.RELEASE_RP:
                if other not in self._release_asked:
                    raise PduError("A-RELEASE-RP without an A-RELEASE-RQ", AbortReason.UNEXPECTED_PDU)
                self._release_asked -= {other}
                if not self._release_asked:  # both may ask at once; it is over when both are answered
                    return self._released(by_client=not from_client)
        return None

    def _released(self, *, by_client: bool) -> End:
        if by_client:  # AR-3 towards the node: we asked, so we close; the client closes its own side
            return End("released", "by the client", (CloseNode(), StartTimer(self._settings.artim_s)))
        return End("released", "by the node", (CloseNode(linger=True), CloseClient()))

    def _aborted(self, said: str, now_s: float, *, from_client: bool) -> End:
        if from_client:
            leave_node = (CloseNode(linger=True), CloseClient())
            return End("client_aborted", said, leave_node, self._blame_for_silence(now_s))
        await_close = (CloseNode(), StartTimer(self._settings.artim_s))
        return End("node_aborted", said, await_close, self._blame_for_leaving(said, now_s))

    @property
    def _at_rest(self) -> bool:
        return self._to_node.at_rest and self._to_client.at_rest and not self._tally.unanswered

    def _end_at_rest(self) -> End | None:
        """End where nothing is under way, not even a release: that ends by itself, and better."""
        if self._finish_reason is None or not self._at_rest or self._release_asked:
            return None
        return End("disabled", self._finish_reason, self._leave_both())

    # Whether it is the node's fault

    def _blame(self, kind: str, reason: str) -> Blame | None:
        if self._blamed:
            return None
        self._blamed = True
        return Blame(kind, reason)

    def _blame_for_response(self, response: CommandSet, now_s: float) -> Blame | None:
        status = response.status or 0
        if status & 0xFF00 == _OUT_OF_RESOURCES or status == _RESOURCE_LIMITATION:
            return self._blame("status", f"{response.command} answered with status {status:04X}")
        silent_s = now_s - self._last_activity_s
        if silent_s >= self._slow_response_s and response.command not in _MAY_TAKE_LONG:
            return self._blame("slow", f"{response.command} answered after {silent_s:.1f} s")
        return None

    def _blame_for_silence(self, now_s: float) -> Blame | None:
        """Blame a node that never answered, when the client has given up: it rarely waits until the answer comes."""
        silent_s = now_s - self._last_activity_s
        if silent_s < self._slow_response_s or not self._to_node.at_rest:
            return None
        owed = self._tally.awaited_by_client - _MAY_TAKE_LONG
        return self._blame("slow", f"{min(owed)} not answered in {silent_s:.1f} s") if owed else None

    def _blame_for_leaving(self, reason: str, now_s: float) -> Blame | None:
        idle = self._at_rest and now_s - self._last_activity_s >= _IDLE_S
        return None if idle or self._release_asked else self._blame("aborted", reason)

    # Leaving
    #
    # Within a PDU an A-ABORT would be read as the rest of it, and a node could store an object that ends in our bytes:
    # there only a close is understood.

    def _leave_client(self, abort: bytes = PROVIDER_ABORT) -> tuple[Command, ...]:
        if self._mid_pdu["client"]:
            return (CloseClient(),)
        return ToClient(abort), StartTimer(self._settings.artim_s)

    def _leave_node(self, abort: bytes = PROVIDER_ABORT) -> tuple[Command, ...]:
        if self._mid_pdu["node"]:
            return (CloseNode(),)
        return ToNode(abort), CloseNode(linger=True)

    def _leave_both(self) -> tuple[Command, ...]:
        return (*self._leave_client(), *self._leave_node())
