"""What a demonstration came to, and what of it is wrong.  Pure: the numbers are gathered elsewhere."""

from dataclasses import dataclass

from equipoise.sim.audit import Audit
from equipoise.sim.ledger import Tally

# Shorter stretches are not judged: five devices pause half a second before they try again.
_JUDGED_S = 1.0


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the work, from one thing that was done to the site until the next."""

    title: str
    length_s: float
    acknowledged: int
    failed_associations: int


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
    """

    tally: Tally
    audit: Audit
    phases: tuple[Phase, ...]
    left_undone: tuple[str, ...]
    status_answers: int
    faults: tuple[str, ...]

    def problems(self) -> list[str]:
        """Return everything that makes the demonstration a failure; none is a success.

        Failed associations are not among them: a device whose association was open on a node that was killed must fail.
        """
        found = [*self.faults, *self._lost(), *self._stalled()]
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

    def _stalled(self) -> list[str]:
        return [
            f"no object was acknowledged {phase.title}, in {phase.length_s:.1f} s"
            for phase in self.phases
            if not phase.acknowledged and phase.length_s >= _JUDGED_S
        ]


def _some(texts: tuple[str, ...]) -> str:
    return ", ".join(texts[:3]) + (" …" if len(texts) > 3 else "")
