"""Hold what receivers of HL7 messages took in against what the senders know.  Pure: the records are gathered elsewhere.

All times are of one machine's monotonic clock.  A delivery is a line of a receiver's ledger that it answered AA or CA.

- *Lost*: the sender heard AA or CA, and there is no delivery.
- *Early*: the sender heard AA or CA before the first delivery: somebody acknowledged who had not the message.
- *Harmed*: a delivery whose bytes are not those that were sent.
- *Duplicated*: more deliveries than the sender made attempts.  The one number k may stand in a ledger only after the
  sender began to send for the kth time.  Where receivers are said to deduplicate, a balancer sends again by itself, and
  nothing is counted here.
- *Out of order*: two messages of one sender and one key, of which the one that was first sent later was first delivered
  earlier.  First deliveries alone are compared: a message that is sent again comes behind those after it.  Messages of
  different senders have no order, but for this: who waits for an answer before another sender speaks is protected by
  *early* and *lost*.  A message that was refused when it was sent again is not compared: the receiver that had it first
  may have stood still, and takes it in when nobody waits for it any more.

Leaves out messages that asked for no answer and were not delivered: nobody promised anything.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from equipoise.sim.hl7_ledger import Sent, Taken


class Key(StrEnum):
    """What stays together, and so in order: `hl7.key` of the configuration."""

    CONNECTION = "connection"
    MESSAGE = "message"
    SENDER = "sender"
    PATIENT = "patient"


@dataclass(frozen=True, slots=True)
class MessageAudit:
    """What was found; messages by their control IDs.

    Attributes:
        unharmed: Acknowledged, and delivered as they were sent.
        repeated: Deliveries beyond the first that the sender's own attempts explain.
        unacknowledged: Delivered, and their senders heard no AA or CA.
        unknown: Deliveries of messages that none of the senders sent: those of a health check.
        by_receiver: Deliveries, by receiver.
    """

    unharmed: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    early: tuple[str, ...] = ()
    harmed: tuple[str, ...] = ()
    duplicated: tuple[str, ...] = ()
    out_of_order: tuple[str, ...] = ()
    repeated: int = 0
    unacknowledged: int = 0
    unknown: int = 0
    by_receiver: Mapping[str, int] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """Return what must not be, in words; none is good."""
        found = {
            "acknowledged messages are at no receiver": self.lost,
            "messages were acknowledged before a receiver had them": self.early,
            "messages are not as sent": self.harmed,
            "messages were delivered more often than they were sent": self.duplicated,
            "messages came after later ones of the same sender": self.out_of_order,
        }
        return [f"{len(which)} {what}: {_some(which)}" for what, which in found.items() if which]


def audit_messages(
    sent: Sequence[Sent],
    taken: Mapping[str, Iterable[Taken]],
    *,
    key: Key,
    receivers_deduplicate: bool = False,
) -> MessageAudit:
    """Compare.

    Args:
        sent: All records of all senders; those of one sender in the order of first sending.
        taken: The ledgers, by receiver.
        key: What is to stay in order.
        receivers_deduplicate: Whether a message may come more often than its sender sent it.
    """
    kept = [(name, line) for name, lines in taken.items() for line in lines if line.is_kept]
    deliveries: dict[str, list[Taken]] = {}
    for _, line in sorted(kept, key=lambda pair: pair[1].at_s):
        deliveries.setdefault(line.control_id, []).append(line)
    known = {one.control_id: one for one in sent}
    accepted = {one.control_id: at_s for one in sent if (at_s := one.accepted_at_s) is not None}
    delivered = {name: lines for name, lines in deliveries.items() if name in known}
    harmed = tuple(n for n, lines in delivered.items() if any(line.digest != known[n].digest for line in lines))
    duplicated = () if receivers_deduplicate else _duplicated(delivered, known)
    return MessageAudit(
        unharmed=tuple(name for name in accepted if name in delivered and name not in set(harmed)),
        lost=tuple(name for name in accepted if name not in delivered),
        early=tuple(n for n, at_s in accepted.items() if n in delivered and delivered[n][0].at_s > at_s),
        harmed=harmed,
        duplicated=duplicated,
        out_of_order=tuple(_out_of_order(sent, delivered, key)),
        repeated=sum(len(lines) - 1 for name, lines in delivered.items() if name not in set(duplicated)),
        unacknowledged=sum(1 for name in delivered if name not in accepted),
        unknown=sum(len(lines) for name, lines in deliveries.items() if name not in known),
        by_receiver=Counter(name for name, _ in kept),
    )


def _duplicated(delivered: Mapping[str, Sequence[Taken]], known: Mapping[str, Sent]) -> tuple[str, ...]:
    return tuple(
        name
        for name, lines in delivered.items()
        if any(
            sum(1 for send_s in known[name].sends_s if send_s <= line.at_s) < number
            for number, line in enumerate(lines, 1)
        )
    )


def _out_of_order(sent: Iterable[Sent], delivered: Mapping[str, Sequence[Taken]], key: Key) -> Iterable[str]:
    """Give messages that were overtaken, each once."""
    latest: dict[tuple[str, str], tuple[float, str]] = {}
    told: set[str] = set()
    for one in sent:
        if one.control_id not in delivered or _may_come_late(one):
            continue
        at_s = delivered[one.control_id][0].at_s
        for of in _keys(one, key):
            before_s, before = latest.get((one.sender, of), (at_s, one.control_id))
            if before_s > at_s and before not in told:
                told.add(before)
                yield before
            latest[one.sender, of] = max((before_s, before), (at_s, one.control_id))


def _may_come_late(sent: Sent) -> bool:
    return sent.accepted_at_s is None and len(sent.sends_s) > 1


def _keys(sent: Sent, key: Key) -> Sequence[str]:
    match key:
        case Key.MESSAGE:
            return ()
        case Key.PATIENT:
            return sent.patients
    return ("",)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
