"""What passed in one association: messages by command, SOP class and status, with response times.

Leaves out everything of the patient: it sees command sets alone, and keeps of them what `MessageCount` has.
"""

from dataclasses import dataclass

from equipoise.proto.dicom.dimse import C_CANCEL_RQ, CommandSet
from equipoise.proto.dicom.pdu import AbortReason, PduError
from equipoise.state.events import MessageCount

# Without an asynchronous window each side has one request open; sub-operations of C-GET and reports cross it.
MAX_UNANSWERED = 64
MAX_KINDS = 64  # a peer chooses SOP classes and statuses: past this many they are counted as "other"
_OTHER = ("other", "", "other")

_Kind = tuple[str, str, str]


@dataclass(slots=True)
class _Times:
    count: int = 0
    total_s: float = 0.0
    max_s: float = 0.0


class Tally:
    """Counts both directions of one association."""

    __slots__ = ("_answered", "_open")

    def __init__(self) -> None:
        self._open: dict[tuple[bool, int], tuple[CommandSet, float]] = {}
        self._answered: dict[_Kind, _Times] = {}

    @property
    def unanswered(self) -> int:
        """Requests that wait for their final response."""
        return len(self._open)

    @property
    def awaited_by_client(self) -> frozenset[str]:
        """The commands to which the node owes the client a final response."""
        return frozenset(request.command for (by_client, _), (request, _) in self._open.items() if by_client)

    def saw(self, message: CommandSet, *, from_client: bool, now_s: float) -> None:
        """Count a command set.  Raises: PduError where a side has too many requests open."""
        if message.field == C_CANCEL_RQ:
            return  # it has no response of its own
        if not message.is_response:
            if sum(by_client is from_client for by_client, _ in self._open) >= MAX_UNANSWERED:
                raise PduError(
                    f"{MAX_UNANSWERED + 1} requests without a response; the operations window was not negotiated",
                    AbortReason.UNEXPECTED_PDU,
                )
            self._open[from_client, message.message_id] = (message, now_s)
        elif not message.is_pending:
            self._answer(message, asked_by_client=not from_client, now_s=now_s)

    def counts(self) -> tuple[MessageCount, ...]:
        """Return what was counted, requests without a response last."""
        rows = [
            MessageCount(
                command=command,
                sop_class=sop_class,
                status=status,
                count=times.count,
                response_ms_mean=round(times.total_s / times.count * 1000, 3),
                response_ms_max=round(times.max_s * 1000, 3),
            )
            for (command, sop_class, status), times in self._answered.items()
        ]
        unanswered: dict[tuple[str, str], int] = {}
        for request, _ in self._open.values():
            key = request.command, request.sop_class
            unanswered[key] = unanswered.get(key, 0) + 1
        rows += [
            MessageCount(
                command=command, sop_class=uid, status=None, count=count, response_ms_mean=None, response_ms_max=None
            )
            for (command, uid), count in unanswered.items()
        ]
        return tuple(rows)

    def _answer(self, response: CommandSet, *, asked_by_client: bool, now_s: float) -> None:
        request, asked_s = self._open.pop((asked_by_client, response.message_id), (response, now_s))
        kind = (request.command, request.sop_class or response.sop_class, f"{response.status:04X}")
        if kind not in self._answered and len(self._answered) >= MAX_KINDS:
            kind = _OTHER
        times = self._answered.setdefault(kind, _Times())
        times.count += 1
        times.total_s += now_s - asked_s
        times.max_s = max(times.max_s, now_s - asked_s)
