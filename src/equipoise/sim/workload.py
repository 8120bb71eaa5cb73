"""A department at work: modalities that send, viewers that read, users of the portal; each in a thread of its own.

The HL7 interfaces, which mostly wait, share one.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from random import Random

from equipoise.base.clock import Clock
from equipoise.sim.browser import Browser
from equipoise.sim.hl7_interfaces import Interfaces
from equipoise.sim.ledger import Ledger
from equipoise.sim.modality import Modality, Pace
from equipoise.sim.peers import Peer
from equipoise.sim.reader import Reader
from equipoise.sim.studies import Kind
from equipoise.sim.worklist import WorklistAsker


@dataclass(frozen=True, slots=True)
class Fronts:
    """Where the balancer is called, for each kind of work; there is none of a kind without an address.

    Attributes:
        own_addresses: Whether each device calls from an address of its own (127.0.1.N), so that a balancer which knows
            clients by their address can tell them apart.
    """

    store: Peer
    query: Peer
    worklist: Peer | None = None
    web: Peer | None = None
    hl7: tuple[Peer, ...] = ()
    own_addresses: bool = False


@dataclass(frozen=True, slots=True)
class Department:
    """Which devices there are, by AE title."""

    modalities: tuple[tuple[str, Kind], ...] = (
        ("CT1", Kind.CT),
        ("CT2", Kind.CT),
        ("MR1", Kind.MR),
        ("MR2", Kind.MR),
        ("CR1", Kind.RADIOGRAPHY),
    )
    readers: tuple[str, ...] = ("VIEWER1", "VIEWER2")
    pace: Pace = field(default_factory=Pace)
    reader_pause_s: float = 0.6
    worklist_pause_s: float = 0.5
    browsers: int = 6
    browser_pause_s: float = 0.15
    interface_pause_s: float = 0.15


class Workload:
    """The devices, from `start` to `stop`.  The same seed gives the same studies in the same order.

    Attributes:
        interfaces: Those of HL7, where the site has any.
    """

    def __init__(
        self, fronts: Fronts, ledger: Ledger, clock: Clock, seed: int, department: Department | None = None
    ) -> None:
        self._fronts = fronts
        self._ledger = ledger
        self._clock = clock
        self._seed = seed
        self._department = department or Department()
        self._stop = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._running: list[tuple[str, Future[None]]] = []
        self.interfaces = self._hl7(fronts.hl7)

    def start(self) -> None:
        """Let every device begin."""
        jobs = self._jobs()
        self._pool = ThreadPoolExecutor(max_workers=len(jobs), thread_name_prefix="device")
        self._running = [(name, self._pool.submit(job)) for name, job in jobs]

    def stop(self) -> list[str]:
        """Let every device finish the object it is at; return what went wrong in the devices themselves: bugs."""
        self._stop.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        return [f"{name}: {failure!r}" for name, future in self._running if (failure := future.exception())]

    def _jobs(self) -> list[tuple[str, Callable[[], None]]]:
        numbers = count(1)
        jobs: list[tuple[str, Callable[[], None]]] = []
        for ae_title, kind in self._department.modalities:
            jobs.append((ae_title, self._modality(ae_title, kind, self._source(next(numbers))).run))
        for ae_title in self._department.readers:
            jobs.append((ae_title, self._reader(ae_title, self._source(next(numbers))).run))
        if (worklist := self._fronts.worklist) is not None:
            for ae_title, _ in self._department.modalities[:2]:
                asker = self._asker(ae_title, worklist, self._source(next(numbers)))
                jobs.append((f"{ae_title} worklist", asker.run))
        if (web := self._fronts.web) is not None:
            for number in range(1, self._department.browsers + 1):
                jobs.append((f"browser {number}", self._browser(web, self._source(next(numbers))).run))
        if self.interfaces is not None:
            jobs.append(("HL7 interfaces", self.interfaces.run))
        return jobs

    def _hl7(self, fronts: tuple[Peer, ...]) -> Interfaces | None:
        if not fronts:
            return None
        return Interfaces(fronts, self._clock, self._stop, seed=self._seed, pause_s=self._department.interface_pause_s)

    def _source(self, number: int) -> str | None:
        return f"127.0.1.{number}" if self._fronts.own_addresses else None

    def _rng(self, name: str) -> Random:
        return Random(f"{self._seed} {name}")  # noqa: S311 studies are invented, not secret

    def _modality(self, ae_title: str, kind: Kind, source: str | None) -> Modality:
        return Modality(
            ae_title,
            kind,
            self._fronts.store,
            rng=self._rng(ae_title),
            ledger=self._ledger,
            stop=self._stop,
            pace=self._department.pace,
            source=source,
        )

    def _reader(self, ae_title: str, source: str | None) -> Reader:
        return Reader(
            ae_title,
            self._fronts.query,
            rng=self._rng(ae_title),
            ledger=self._ledger,
            stop=self._stop,
            pause_s=self._department.reader_pause_s,
            source=source,
        )

    def _asker(self, ae_title: str, worklist: Peer, source: str | None) -> WorklistAsker:
        return WorklistAsker(
            ae_title,
            worklist,
            ledger=self._ledger,
            stop=self._stop,
            pause_s=self._department.worklist_pause_s,
            source=source,
        )

    def _browser(self, web: Peer, source: str | None) -> Browser:
        return Browser(
            web,
            clock=self._clock,
            ledger=self._ledger,
            stop=self._stop,
            pause_s=self._department.browser_pause_s,
            source=source,
        )
