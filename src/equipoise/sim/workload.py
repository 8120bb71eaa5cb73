"""A department at work: modalities that send and viewers that read, each in a thread of its own."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random

from equipoise.sim.ledger import Ledger
from equipoise.sim.modality import Modality, Pace
from equipoise.sim.peers import Peer
from equipoise.sim.reader import Reader
from equipoise.sim.studies import Kind


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


class Workload:
    """The devices, from `start` to `stop`.  The same seed gives the same studies in the same order."""

    def __init__(self, peer: Peer, ledger: Ledger, seed: int, department: Department | None = None) -> None:
        self._peer = peer
        self._ledger = ledger
        self._seed = seed
        self._department = department or Department()
        self._stop = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._running: list[tuple[str, Future[None]]] = []

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
        plan = self._department
        jobs: list[tuple[str, Callable[[], None]]] = []
        for ae_title, kind in plan.modalities:
            modality = Modality(
                ae_title,
                kind,
                self._peer,
                rng=Random(f"{self._seed} {ae_title}"),  # noqa: S311 studies are invented, not secret
                ledger=self._ledger,
                stop=self._stop,
                pace=plan.pace,
            )
            jobs.append((ae_title, modality.run))
        for ae_title in plan.readers:
            reader = Reader(
                ae_title,
                self._peer,
                rng=Random(f"{self._seed} {ae_title}"),  # noqa: S311
                ledger=self._ledger,
                stop=self._stop,
                pause_s=plan.reader_pause_s,
            )
            jobs.append((ae_title, reader.run))
        return jobs
