"""What the simulated devices know: each object that they were told is stored, each page, failure and comparison.

One ledger is shared by the threads of all devices.  It is what the archives' files are held against in the end.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from equipoise.base.clock import Clock
from equipoise.sim.studies import Instance, Study


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An object whose C-STORE was answered with status 0000."""

    study_instance_uid: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Mishap:
    """Something that went wrong for a user of the web portal, while `node` was believed to serve it.

    Times are the clock's monotonic ones: when the request began, and when it was over.
    """

    node: str
    began_s: float
    ended_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Tally:
    """The ledger at one moment."""

    sent: int = 0
    acknowledged: int = 0
    bytes_acknowledged: int = 0
    given_up: int = 0
    associations: int = 0
    retries: int = 0
    queries: int = 0
    studies_retrieved: int = 0
    objects_compared: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    differences: tuple[str, ...] = ()
    worklists: int = 0
    pages: int = 0
    log_ins: int = 0
    failed_pages: tuple[Mishap, ...] = ()
    lost_sessions: tuple[Mishap, ...] = ()


class Ledger:
    """Counts and remembers; every method may be called from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._differences: list[str] = []
        self._failed_pages: list[Mishap] = []
        self._lost_sessions: list[Mishap] = []
        self._acknowledged: dict[str, Acknowledged] = {}
        self._finished: dict[str, dict[str, str]] = {}
        self._acknowledged_at_s: list[float] = []
        self._failed_at_s: list[float] = []

    def sent(self) -> None:
        """Count one C-STORE request."""
        self._count("sent")

    def acknowledged(self, instance: Instance) -> None:
        """Remember that the peer took this object: from now on it must be found."""
        with self._lock:
            self._acknowledged[instance.sop_instance_uid] = Acknowledged(
                instance.study_instance_uid, instance.fingerprint
            )
            self._acknowledged_at_s.append(self._clock.monotonic())
            self._counts["acknowledged"] += 1
            self._counts["bytes_acknowledged"] += instance.size_bytes

    def association(self) -> None:
        """Count one association that was opened."""
        self._count("associations")

    def failed(self, reason: str) -> None:
        """Count one association that failed, and why."""
        with self._lock:
            self._failures[reason] += 1
            self._failed_at_s.append(self._clock.monotonic())

    def retried(self) -> None:
        """Count one more association for objects that an earlier one did not get through."""
        self._count("retries")

    def gave_up(self, objects: int) -> None:
        """Count objects that were never acknowledged."""
        self._count("given_up", objects)

    def finished(self, study: Study) -> None:
        """Offer a study whose every object is acknowledged to the readers."""
        instances = {one.sop_instance_uid: one.fingerprint for series in study.series for one in series}
        with self._lock:
            if instances.keys() <= self._acknowledged.keys():
                self._finished[study.study_instance_uid] = instances

    def choose_finished(self, rng: Random) -> tuple[str, Mapping[str, str]] | None:
        """Return some finished study with the fingerprints of its objects, None while there is none."""
        with self._lock:
            if not self._finished:
                return None
            uid = rng.choice(sorted(self._finished))
            return uid, dict(self._finished[uid])

    def queried(self) -> None:
        """Count one query that was answered."""
        self._count("queries")

    def worklist(self, differences: list[str]) -> None:
        """Count one worklist that was answered, and what of it was not as scheduled."""
        with self._lock:
            self._counts["worklists"] += 1
            self._differences += differences

    def logged_in(self) -> None:
        """Count one session that began."""
        self._count("log_ins")

    def page(self) -> None:
        """Count one page that came from the node that has the user's session."""
        self._count("pages")

    def page_failed(self, mishap: Mishap) -> None:
        """Remember a request that was not answered as it should."""
        with self._lock:
            self._failed_pages.append(mishap)

    def session_lost(self, mishap: Mishap) -> None:
        """Remember a session that its user was sent away from."""
        with self._lock:
            self._lost_sessions.append(mishap)

    def compared(self, objects: int, differences: list[str]) -> None:
        """Count one retrieved study, its objects, and what was not as it was sent."""
        with self._lock:
            self._counts["studies_retrieved"] += 1
            self._counts["objects_compared"] += objects
            self._differences += differences

    def tally(self) -> Tally:
        """Return the counts now."""
        with self._lock:
            return Tally(
                **self._counts,
                failures=dict(self._failures),
                differences=tuple(self._differences),
                failed_pages=tuple(self._failed_pages),
                lost_sessions=tuple(self._lost_sessions),
            )

    def acknowledged_between(self, start_s: float, end_s: float) -> int:
        """Return how many objects were acknowledged in a stretch of the clock's monotonic time."""
        with self._lock:
            return _count_between(self._acknowledged_at_s, start_s, end_s)

    def failed_between(self, start_s: float, end_s: float) -> int:
        """Return how many associations failed in such a stretch."""
        with self._lock:
            return _count_between(self._failed_at_s, start_s, end_s)

    def expected(self) -> Mapping[str, Acknowledged]:
        """Return what the archives must hold, by SOP instance UID."""
        with self._lock:
            return dict(self._acknowledged)

    def take_oldest(self, keep_studies: int) -> list[str]:
        """Return the oldest finished studies beyond a number, and offer them to readers no more."""
        with self._lock:
            oldest = list(self._finished)[: max(0, len(self._finished) - keep_studies)]
            for uid in oldest:
                del self._finished[uid]
            return oldest

    def forget(self, sop_instance_uids: list[str]) -> None:
        """Expect these no more: they were found unharmed, and their study is old enough to be removed."""
        with self._lock:
            for uid in sop_instance_uids:
                self._acknowledged.pop(uid, None)

    def _count(self, name: str, by: int = 1) -> None:
        with self._lock:
            self._counts[name] += by


def _count_between(instants_s: list[float], start_s: float, end_s: float) -> int:
    return bisect_left(instants_s, end_s) - bisect_left(instants_s, start_s)
