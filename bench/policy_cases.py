"""The cases of `bench.policies`: which studies come when, to which nodes, and what is known of their senders."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log
from random import Random
from statistics import fmean

from bench.store_model import Study
from equipoise.policy.base import Client

STREAM, WARM_UP = 1500, 300  # studies of a stream, and how many of them are not measured
BURST, BURST_S = 200, 60.0
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of modality: how many there are, how often they send, how large (lognormal: median and spread)."""

    name: str
    devices: int
    share: float
    median_bytes: int
    sigma: float


# Sizes as in public capacity tables: CT 300 to 1500 slices of 0.5 MB, tomosynthesis to 1 GB and more, radiographs of
# two times 8 to 16 MB.  Ours: the spreads, chosen so that one study in a hundred is above 2 GB.
HOSPITAL = (
    Kind("CR", 6, 0.45, 25 * MB, 0.4),
    Kind("US", 5, 0.17, 60 * MB, 1.0),
    Kind("MR", 3, 0.14, 120 * MB, 0.7),
    Kind("CT", 4, 0.16, 350 * MB, 0.8),
    Kind("MG", 2, 0.05, 600 * MB, 0.8),
    Kind("PT", 1, 0.03, 800 * MB, 0.6),
)
TWO_SIZES = (Kind("CR", 12, 0.75, 30 * MB, 0.0), Kind("CT", 4, 0.25, 1000 * MB, 0.0))
ALIKE = (Kind("CR", 20, 1.0, 30 * MB, 0.0),)
EQUAL = (100.0, 100.0, 100.0, 100.0)
UNEQUAL = (160.0, 160.0, 40.0, 40.0)


@dataclass(frozen=True, slots=True)
class Case:
    """One question.

    Attributes:
        speeds: Of the nodes, in MB/s.
        sender: The most that one association moves, in MB/s: a modality waits for each response.
        weighted: Whether the weights say so; else all are 100.
        load: Arriving bytes over all speeds; None is a burst of so many studies within so many seconds.
        knows: What the pool has learned: right, nothing, wrong (each AE stands for another one), or one AE for all.
    """

    name: str
    load: float | None
    speeds: tuple[float, ...] = EQUAL
    weighted: bool = True
    kinds: tuple[Kind, ...] = HOSPITAL
    knows: str = "right"
    sender: float = 50.0
    burst: int = BURST
    burst_s: float = BURST_S

    @property
    def seeds(self) -> range:
        """Those that it runs with: short runs differ more from each other."""
        return range(1, 6 if self.load is not None else 21)


CASES = (
    *(Case(f"equal nodes, load {load:.0%}", load) for load in (0.3, 0.6, 0.8, 0.9)),
    Case("equal nodes, burst", None),
    *(Case(f"unequal nodes with weights, load {load:.0%}", load, UNEQUAL) for load in (0.6, 0.8)),
    Case("unequal nodes with weights, burst", None, UNEQUAL),
    Case("unequal nodes, weights equal, load 60%", 0.6, UNEQUAL, weighted=False),
    Case("unequal nodes, weights equal, burst", None, UNEQUAL, weighted=False),
    Case("30 MB and 1 GB, equal nodes, burst", None, kinds=TWO_SIZES),
    Case("30 MB and 1 GB, unequal with weights, burst", None, UNEQUAL, kinds=TWO_SIZES),
    Case("30 MB and 1 GB, unequal, weights equal, burst", None, UNEQUAL, weighted=False, kinds=TWO_SIZES),
    Case("30 MB and 1 GB, 30 at once, equal nodes", None, kinds=TWO_SIZES, burst=30, burst_s=1),
    Case("30 MB and 1 GB, 30 at once, unequal with weights", None, UNEQUAL, kinds=TWO_SIZES, burst=30, burst_s=1),
    Case("30 MB and 1 GB, 30 at once, unequal, weights equal", None, UNEQUAL, False, TWO_SIZES, burst=30, burst_s=1),
    Case("all 30 MB, load 80%", 0.8, kinds=ALIKE),
    Case("all 30 MB, burst", None, kinds=ALIKE),
    Case("nothing known, load 80%", 0.8, knows="nothing"),
    Case("nothing known, burst", None, knows="nothing"),
    Case("one AE for all, load 80%", 0.8, knows="one AE"),
    Case("one AE for all, burst", None, knows="one AE"),
    Case("wrongly known, load 80%", 0.8, knows="wrong"),
    Case("wrongly known, burst", None, knows="wrong"),
    Case("quick senders, equal nodes, load 80%", 0.8, sender=1000.0),
    Case("quick senders, unequal with weights, load 80%", 0.8, UNEQUAL, sender=1000.0),
    Case("quick senders, 30 MB and 1 GB, 30 at once, equal", None, kinds=TWO_SIZES, sender=1000.0, burst=30, burst_s=1),
    Case(
        "quick senders, 30 MB and 1 GB, 30 at once, unequal with weights",
        None,
        UNEQUAL,
        kinds=TWO_SIZES,
        sender=1000.0,
        burst=30,
        burst_s=1,
    ),
    Case("quick senders, 30 MB and 1 GB, unequal with weights, burst", None, UNEQUAL, kinds=TWO_SIZES, sender=1000.0),
)


def make_studies(case: Case, rng: Random) -> list[Study]:
    """Return the studies of one run, in the order in which they come."""
    count = case.burst if case.load is None else STREAM
    drawn = [_draw(case.kinds, rng) for _ in range(count)]
    mean_bytes = fmean(size for _, size in drawn)
    per_s = count / case.burst_s if case.load is None else case.load * sum(case.speeds) * MB / mean_bytes
    now_s, studies = 0.0, []
    for client, size in drawn:
        now_s += -log(1.0 - rng.random()) / per_s
        calling_ae = "ROUTER" if case.knows == "one AE" else client.calling_ae
        studies.append(Study(now_s, replace(client, calling_ae=calling_ae), size))
    return studies


def _draw(kinds: Sequence[Kind], rng: Random) -> tuple[Client, int]:
    place = rng.choices(range(len(kinds)), [kind.share for kind in kinds])[0]
    kind, device = kinds[place], rng.randrange(kinds[place].devices)
    size = round(kind.median_bytes * rng.lognormvariate(0.0, kind.sigma))
    return Client(f"192.0.2.{16 * place + device}", f"{kind.name}{device}"), size
