"""Passive health of one pool: which nodes fail so often in real traffic that they are rested.  Pure; time is passed in.

Says only what failures mean.  What a failure is, the relay knows; that the last node is never left out, the pool sees
to; that each association is told of at most once, as failed or as succeeded, is up to whoever drives it.

A node is rested when enough associations failed there and they are at least half of those that ended.  After its rest
it is on probation: the first failure rests it again, for twice as long, the first success clears it.  A sender whose
associations are aborted at two nodes is the likelier cause: its aborts then count against nobody.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from equipoise.plan.model import PassiveHealth
from equipoise.policy.base import Client

_SPANS = (
    10  # parts of `within_s`: memory does not grow with traffic, and what is looked back over is a tenth short at most
)
_MAX_DOUBLINGS = 4  # 16 times `rest_s`
_MAX_SENDERS = 1024  # with aborts of late, in a pool; who aborted longest ago is forgotten
_MAX_SENDERS_IN_SPAN = 64  # whose aborts at one node are told apart; those of more count against the node


class FailureKind(StrEnum):
    """What went wrong at a node."""

    REFUSED = "refused"  # connecting failed or took too long: no sender can be the cause
    BUSY = "busy"  # a transient reject
    ABORTED = "aborted"  # it aborted, closed, broke the protocol, or did not answer a request for an association
    STATUS = "status"  # it answered that it is out of resources: A7xx, 0213
    SLOW = "slow"  # a response took longer than `slow_response_s`


@dataclass(frozen=True, slots=True)
class Rested:
    """A rest that begins now: `failures` associations have failed at the node, the last one for `reason`."""

    node: str
    failures: int
    reason: str
    rest_s: float


@dataclass(slots=True)
class _Span:
    """What ended at a node in a tenth of the time; aborts stand apart, by sender."""

    began_s: float
    succeeded: int = 0
    failed: int = 0
    aborted: dict[Client, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Rest:
    """A rest, or the probation after it; the counts are those that brought it about, `needed` of them were enough."""

    until_s: float
    failed: int
    aborted: dict[Client, int]
    ended: int
    needed: int
    reason: str


@dataclass(slots=True)
class _Record:
    """One node.  `in_a_row` counts rests without a success in between."""

    spans: deque[_Span] = field(default_factory=deque)
    rest: _Rest | None = None
    in_a_row: int = 0

    def span(self, now_s: float, within_s: float) -> _Span:
        """Return the span that `now_s` falls into; drop those that are too old."""
        while self.spans and self.spans[0].began_s <= now_s - within_s:
            self.spans.popleft()
        if not self.spans or now_s >= self.spans[-1].began_s + within_s / _SPANS:
            self.spans.append(_Span(now_s))
        return self.spans[-1]

    def clear(self) -> None:
        """Hold nothing against the node any more."""
        self.spans.clear()
        self.rest = None
        self.in_a_row = 0


@dataclass(slots=True)
class _Sender:
    """Where a sender's associations were aborted, when last; and until when it is thought to be the cause."""

    aborted_s: dict[str, float] = field(default_factory=dict)
    suspect_until_s: float = -inf


class Passive:
    """What the traffic of one pool says of its nodes."""

    def __init__(self, settings: PassiveHealth) -> None:
        self._settings = settings
        self._records: dict[str, _Record] = {}
        self._senders: OrderedDict[Client, _Sender] = OrderedDict()

    def inherit(self, other: "Passive") -> None:
        """Take over what another one has seen, under our own settings."""
        if self._settings.failures:
            self._records, self._senders = other._records, other._senders

    def keep_only(self, nodes: Collection[str]) -> None:
        """Forget nodes that are no longer in the pool."""
        for name in [name for name in self._records if name not in nodes]:
            del self._records[name]

    def forget(self, node: str) -> None:
        """Begin anew with a node: it was out for another reason meanwhile."""
        self._records.pop(node, None)

    def is_rested(self, node: str, now_s: float) -> bool:
        """Say whether the node should get no new work now."""
        record = self._records.get(node)
        return record is not None and record.rest is not None and now_s < record.rest.until_s

    def said(self, node: str, now_s: float) -> str | None:
        """Return why a node is rested and until when, for people; None where it is not."""
        record = self._records.get(node)
        rest = record.rest if record is not None else None
        if rest is None or now_s >= rest.until_s:
            return None
        failures = rest.failed + sum(rest.aborted.values())
        what = (
            f"{failures} of {rest.ended} associations failed within {self._settings.within_s:g} s, last"
            if rest.needed > 1 or self._settings.failures == 1
            else "failed again after a rest"
        )
        return f"{what}: {rest.reason}; until {rest.until_s - now_s:.0f} s from now"

    def succeeded(self, node: str, now_s: float, count: int = 1) -> None:
        """Count associations that went well.  One that ends while its node rests began before, and proves little."""
        if not self._settings.failures:
            return
        record = self._records.setdefault(node, _Record())
        if record.rest is not None and now_s >= record.rest.until_s:
            record.clear()
        record.span(now_s, self._settings.within_s).succeeded += count

    def failed(
        self, node: str, client: Client, kind: FailureKind, reason: str, now_s: float, *, may_rest: bool
    ) -> Rested | None:
        """Count an association that failed; return the rest that begins with it, if one does and `may_rest`."""
        if not self._settings.failures:
            return None
        record = self._records.setdefault(node, _Record())
        span = record.span(now_s, self._settings.within_s)
        if kind is FailureKind.ABORTED:
            if self._is_suspect_after_abort(client, node, now_s):
                self._acquit(client, now_s)
                return None
            self._count_abort(span, client)
        else:
            span.failed += 1
        if not may_rest or (record.rest is not None and now_s < record.rest.until_s):
            return None
        return self._judge(node, record, reason, now_s)

    def _judge(self, node: str, record: _Record, reason: str, now_s: float) -> Rested | None:
        """Rest a node that has failed just now, where it has failed enough."""
        failed = sum(span.failed for span in record.spans)
        aborted = self._aborts(record.spans, now_s)
        failures = failed + sum(aborted.values())
        ended = failures + sum(span.succeeded for span in record.spans)
        needed = 1 if record.rest is not None else self._settings.failures
        if failures < needed or (record.rest is None and 2 * failures < ended):
            return None
        rest_s = self._settings.rest_s * 2 ** min(record.in_a_row, _MAX_DOUBLINGS)
        record.rest = _Rest(now_s + rest_s, failed, aborted, ended, needed, reason)
        record.in_a_row += 1
        record.spans.clear()  # after the rest a node is judged by what it does then
        return Rested(node, failures, reason, rest_s)

    def _aborts(self, spans: Collection[_Span], now_s: float) -> dict[Client, int]:
        """Return the aborts that count, by sender."""
        counted: dict[Client, int] = {}
        for sender, count in _each(spans):
            known = self._senders.get(sender)
            if known is None or now_s >= known.suspect_until_s:
                counted[sender] = counted.get(sender, 0) + count
        return counted

    def _count_abort(self, span: _Span, client: Client) -> None:
        if client in span.aborted or len(span.aborted) < _MAX_SENDERS_IN_SPAN:
            span.aborted[client] = span.aborted.get(client, 0) + 1
        else:
            span.failed += 1

    def _is_suspect_after_abort(self, client: Client, node: str, now_s: float) -> bool:
        """Note an abort; say whether its sender is now the likelier cause: it was aborted at two nodes or more.

        It stays so until a window has passed without another: then none of its aborts is counted any more.
        """
        sender = self._senders.setdefault(client, _Sender())
        self._senders.move_to_end(client)
        if len(self._senders) > _MAX_SENDERS:
            self._senders.popitem(last=False)
        since_s = now_s - self._settings.within_s
        sender.aborted_s = {name: at_s for name, at_s in sender.aborted_s.items() if at_s > since_s} | {node: now_s}
        if len(sender.aborted_s) > 1 or now_s < sender.suspect_until_s:
            sender.suspect_until_s = now_s + self._settings.within_s
        return now_s < sender.suspect_until_s

    def _acquit(self, client: Client, now_s: float) -> None:
        """End the rests that would not be without this sender's aborts."""
        for record in self._records.values():
            rest = record.rest
            if rest is None or now_s >= rest.until_s or client not in rest.aborted:
                continue
            del rest.aborted[client]
            if rest.failed + sum(rest.aborted.values()) < rest.needed:
                record.rest = None
                record.in_a_row -= 1


def _each(spans: Collection[_Span]) -> Iterator[tuple[Client, int]]:
    for span in spans:
        yield from span.aborted.items()
