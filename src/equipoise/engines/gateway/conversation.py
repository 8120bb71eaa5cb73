"""An association that both sides agreed to: both directions followed until it ends.  Leaves out how it came about.

Data passes unchanged; this part looks on, counts, and says when and how it is over.
Source: DICOM PS3.8 sections 7.2 (release, and its collision), 7.3 (abort), 9.2 (ARTIM, AR-3); DESIGN, "Relaying".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from equipoise.engines.gateway.relay import CloseClient, CloseNode, Command, Data, StartTimer, ToClient, ToNode
from equipoise.engines.gateway.tally import Tally
from equipoise.plan.model import Dicom
from equipoise.proto.dicom.dimse import CommandSet
from equipoise.proto.dicom.pdu import AbortReason, AbortSource, PduError, PduType, describe_abort, encode_abort
from equipoise.proto.dicom.walker import Control, Note, Walker
from equipoise.state.events import MessageCount

PROVIDER_ABORT = encode_abort(AbortSource.PROVIDER)  # "the other side is gone": source provider, no reason


@dataclass(frozen=True, slots=True)
class End:
    """How a conversation ends: one word, a sentence, and what is still to be done."""

    ended: str
    reason: str
    farewell: tuple[Command, ...]


class Conversation:
    """One established association.

    Args:
        settings: The service's.
        to_node: Follows what the client sends.
        to_client: Follows what the node sends.
        now_s: When it was accepted.
    """

    __slots__ = (
        "_finish_reason",
        "_last_activity_s",
        "_marks",
        "_mid_pdu",
        "_release_asked",
        "_settings",
        "_tally",
        "_to_client",
        "_to_node",
    )

    def __init__(self, settings: Dicom, to_node: Walker, to_client: Walker, now_s: float) -> None:
        self._settings = settings
        self._to_node = to_node
        self._to_client = to_client
        self._tally = Tally()
        self._last_activity_s = now_s
        self._marks: dict[str, tuple[int | None, float]] = {}  # at the last look: see `tick`
        self._release_asked: frozenset[str] = frozenset()  # by which side, and not answered
        self._finish_reason: str | None = None
        self._mid_pdu = {"client": False, "node": False}  # whether what was passed on to it ends within a PDU

    def saw(self, data: Data, now_s: float, *, from_client: bool) -> End | None:
        """Follow what passes; return the end where it comes with these bytes.  Raises: PduError."""
        self._last_activity_s = now_s
        walker = self._to_node if from_client else self._to_client
        notes = walker.walk(data if isinstance(data, memoryview) else memoryview(data))
        end = self._noted(notes, now_s, from_client=from_client) if notes else None
        self._mid_pdu["node" if from_client else "client"] = walker.in_pdu
        if end is not None or self._finish_reason is None:
            return end
        return self._end_at_rest()

    def finish(self, reason: str) -> End | None:
        """End after the current message; return the end where none is open."""
        self._finish_reason = reason
        return self._end_at_rest()

    def tick(self, now_s: float) -> End | None:
        """Look for a side that fell silent: between messages it has `idle_timeout`, within a PDU `stall_timeout`."""
        if now_s - self._last_activity_s >= self._settings.idle_timeout_s:
            return self.abort_both("timed_out", f"idle for {self._settings.idle_timeout_s:g} s")
        for what, mark in self._unfinished().items():
            before, since_s = self._marks.get(what, (None, now_s))
            if mark is None or mark != before:
                self._marks[what] = (mark, now_s)
            elif now_s - since_s >= self._settings.stall_timeout_s:
                return self.abort_both("timed_out", f"{what} for {self._settings.stall_timeout_s:g} s")
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

    def abort_both(self, ended: str, reason: str) -> End:
        """Return an end that tells both sides, politely."""
        return End(ended, reason, (*self._leave_client(), *self._leave_node()))

    def node_gone(self, reason: str) -> End:
        """Return the end for a node whose connection is gone.  With `replay: store` this is where it will move on."""
        return End("node_closed", reason, self._leave_client())

    def client_gone(self, reason: str) -> End:
        """Return the end for a client whose connection is gone."""
        return End("client_closed", reason, (*self._leave_node(), CloseClient()))

    def violated(self, error: PduError, *, by_client: bool) -> End:
        """Answer bytes that break the protocol: PS3.8 AA-8 to who sent them, the news to the other side."""
        abort = encode_abort(AbortSource.PROVIDER, error.reason)
        to_client, to_node = (abort, PROVIDER_ABORT) if by_client else (PROVIDER_ABORT, abort)
        farewell = (*self._leave_client(to_client), *self._leave_node(to_node))
        return End("client_error" if by_client else "node_error", str(error), farewell)

    def _noted(self, notes: Sequence[Note], now_s: float, *, from_client: bool) -> End | None:
        for note in notes:
            if isinstance(note, CommandSet):
                self._tally.saw(note, from_client=from_client, now_s=now_s)
            elif (end := self._controlled(note, from_client=from_client)) is not None:
                return end
        return None

    def _controlled(self, note: Control, *, from_client: bool) -> End | None:
        side, other = ("client", "node") if from_client else ("node", "client")
        match note.type:
            case PduType.ABORT:
                return self._aborted(describe_abort(note.body), from_client=from_client)
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

    def _aborted(self, said: str, *, from_client: bool) -> End:
        if from_client:
            return End("client_aborted", said, (CloseNode(linger=True), CloseClient()))
        return End("node_aborted", said, (CloseNode(), StartTimer(self._settings.artim_s)))

    def _end_at_rest(self) -> End | None:
        """End where nothing is under way, not even a release: that ends by itself, and better."""
        at_rest = self._to_node.at_rest and self._to_client.at_rest and not self._tally.unanswered
        if self._finish_reason is None or not at_rest or self._release_asked:
            return None
        return self.abort_both("disabled", self._finish_reason)

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
