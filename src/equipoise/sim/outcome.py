"""What a demonstration came to, and what of it is wrong.  Pure: the numbers are gathered elsewhere."""

from dataclasses import dataclass

from equipoise.sim.audit import Audit
from equipoise.sim.hl7_audit import MessageAudit
from equipoise.sim.hl7_interfaces import MessageTally
from equipoise.sim.ledger import Mishap, Tally
from equipoise.sim.story import Deed

# Shorter stretches are not judged: five devices pause half a second before they try again.
_JUDGED_S = 1.0
# A user who thinks between two pages notices so late that the node, which is back, knows nothing of the session.
_STILL_LEAVING_S = 3.0


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the work, from one thing that was done to the site until the next.

    Attributes:
        messages: Of HL7, acknowledged; None where the site has no HL7.
    """

    title: str
    length_s: float
    acknowledged: int
    failed_associations: int
    messages: int | None = None


@dataclass(frozen=True, slots=True)
class MessageOutcome:
    """The end for HL7: what its senders counted, and what the receivers' ledgers held."""

    tally: MessageTally
    audit: MessageAudit


@dataclass(frozen=True, slots=True)
class Done:
    """One thing that was done to some nodes, from when to when; the clock's monotonic times."""

    deed: Deed
    nodes: tuple[str, ...]
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a demonstration.

    Attributes:
        tally: What the devices counted.
        audit: What the archives' files held.
        phases: In order; the first one begins before anything was done to the site.
        left_undone: Things that were to be done to the site and were not, for the work ended before.
        status_answers: How often the supervisor gave its status.
        faults: What went wrong outside the traffic: a process that ended by itself, an order that was refused.
        done: What was done to the nodes, in order.
        messages: What became of HL7, where the site has it.
    """

    tally: Tally
    audit: Audit
    phases: tuple[Phase, ...]
    left_undone: tuple[str, ...]
    status_answers: int
    faults: tuple[str, ...]
    done: tuple[Done, ...] = ()
    messages: MessageOutcome | None = None

    def problems(self) -> list[str]:
        """Return everything that makes the demonstration a failure; none is a success.

        Failed associations are not among them: a device whose association was open on a node that was killed must fail.
        """
        of_messages = self.messages.audit.problems() if self.messages is not None else []
        found = [*self.faults, *self._lost(), *of_messages, *self._web(), *self._stalled()]
        found += [f"not done, for the work ended before: {text}" for text in self.left_undone]
        if not self.status_answers:
            found.append("the supervisor never gave its status")
        return found

    def _lost(self) -> list[str]:
        lost = []
        if self.audit.missing:
            lost.append(
                f"{len(self.audit.missing)} acknowledged objects are in no archive: {_some(self.audit.missing)}"
            )
        if self.audit.harmed:
            lost.append(f"{len(self.audit.harmed)} acknowledged objects are not as sent: {_some(self.audit.harmed)}")
        if self.tally.differences:
            lost.append(
                f"{len(self.tally.differences)} differences when studies were read: {_some(self.tally.differences)}"
            )
        return lost

    @property
    def pages_cut(self) -> tuple[Mishap, ...]:
        """Requests that were open on a node at the moment when it was killed; nothing can save these."""
        return tuple(one for one in self.tally.failed_pages if self._was_killed_under(one))

    @property
    def sessions_moved(self) -> tuple[Mishap, ...]:
        """Sessions that ended because their node was killed or drained."""
        return tuple(one for one in self.tally.lost_sessions if self._was_taken_out(one))

    def _web(self) -> list[str]:
        failed = [one for one in self.tally.failed_pages if one not in self.pages_cut]
        lost = [one for one in self.tally.lost_sessions if one not in self.sessions_moved]
        found = []
        if failed:
            found.append(f"{len(failed)} requests failed on nodes that nobody killed: {_texts(failed)}")
        if lost:
            found.append(f"{len(lost)} sessions were lost on nodes that were up: {_texts(lost)}")
        if self.tally.log_ins and not self.tally.pages:
            found.append("no page came with its session")
        return found

    def _was_killed_under(self, mishap: Mishap) -> bool:
        return any(
            done.deed is Deed.KILL
            and mishap.node in ("", *done.nodes)  # without a session, any node may have had the request
            and mishap.began_s <= done.ended_s
            and done.began_s <= mishap.ended_s
            for done in self.done
        )

    def _was_taken_out(self, mishap: Mishap) -> bool:
        before = [done for done in self.done if mishap.node in done.nodes and done.began_s <= mishap.ended_s]
        if not before:
            return False
        last = before[-1]
        return last.deed is not Deed.RETURN or mishap.ended_s - last.ended_s < _STILL_LEAVING_S

    def _stalled(self) -> list[str]:
        return [
            f"no {what} was acknowledged {phase.title}, in {phase.length_s:.1f} s"
            for phase in self.phases
            for what, acknowledged in (("object", phase.acknowledged), ("HL7 message", phase.messages))
            if acknowledged == 0 and phase.length_s >= _JUDGED_S
        ]


def _texts(mishaps: list[Mishap]) -> str:
    return _some(tuple(f"{one.node}: {one.text}" for one in mishaps))


def _some(texts: tuple[str, ...]) -> str:
    return ", ".join(texts[:3]) + (" …" if len(texts) > 3 else "")
