"""Hold the archives' files against what the senders were told is stored."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from equipoise.sim.ledger import Acknowledged
from equipoise.sim.store import Store
from equipoise.sim.studies import fingerprint


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found.

    Attributes:
        unharmed: SOP instance UIDs of acknowledged objects that are there, every element and pixel as sent.
        missing: Acknowledged, and in no file.
        harmed: Acknowledged, and its file is not what was sent.
        unacknowledged: Files of objects whose sender never got an answer; allowed, it will have sent them again.
        by_archive: Unharmed objects by the archive that took them in.
    """

    unharmed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    harmed: tuple[str, ...] = ()
    unacknowledged: int = 0
    by_archive: Mapping[str, int] = field(default_factory=dict)

    def plus(self, other: "Audit") -> "Audit":
        """Return both together."""
        return Audit(
            self.unharmed + other.unharmed,
            self.missing + other.missing,
            self.harmed + other.harmed,
            self.unacknowledged + other.unacknowledged,
            Counter(self.by_archive) + Counter(other.by_archive),
        )


def audit(store: Store, expected: Mapping[str, Acknowledged], study_instance_uid: str = "*") -> Audit:
    """Read back every file of the store, or of one study, and compare it with what is expected there."""
    unharmed: list[str] = []
    harmed: list[str] = []
    by_archive: Counter[str] = Counter()
    unacknowledged = 0
    for path in store.paths(study_instance_uid):
        uid = path.stem
        if uid not in expected:
            unacknowledged += 1
            continue
        try:
            dataset = dcmread(path)
            intact = str(dataset.SOPInstanceUID) == uid and fingerprint(dataset) == expected[uid].fingerprint
        except (InvalidDicomError, AttributeError, ValueError, EOFError):
            intact = False
        if intact:
            unharmed.append(uid)
            by_archive[str(dataset.file_meta.ReceivingApplicationEntityTitle)] += 1
        else:
            harmed.append(uid)
    there = {*unharmed, *harmed}
    missing = tuple(
        uid
        for uid, object_ in expected.items()
        if uid not in there and study_instance_uid in ("*", object_.study_instance_uid)
    )
    return Audit(tuple(unharmed), missing, tuple(harmed), unacknowledged, by_archive)
