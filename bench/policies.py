"""When does least_work beat least_connections, and when not?  Run: python -m bench.policies.

Simulated: studies of a hospital with a heavy tail, four nodes, the gateway's own pool and policies (`store_model`).
Every policy gets the same studies, each case runs with several seeds, and ratios are taken within a seed.  Writes
`results/policies.md` and `.json`.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from random import Random
from statistics import fmean, median, quantiles
from typing import Any

from bench.plain_work import PlainWorkPool
from bench.policy_cases import BURST, CASES, MB, STREAM, WARM_UP, Case, make_studies
from bench.store_model import NodeModel, Stored, Study, store_all
from equipoise.engines.gateway.pool import Pool
from equipoise.plan.model import Node, Persistence
from equipoise.policy.catalogue import policies

RESULTS = Path(__file__).parent / "results"
PLAIN = "plain sum"  # least_work as first designed: see plain_work
POLICIES = ("least_work", "least_connections", "round_robin", "source_hash", PLAIN)


@dataclass(frozen=True, slots=True)
class Figures:
    """One run, in seconds: time from arrival until stored, and until all is stored."""

    mean_s: float
    p95_s: float
    all_s: float


def teacher(case: Case) -> Callable[[Pool, Study], None]:
    """Return what tells the pool of a study that is stored."""
    names = sorted(f"{kind.name}{device}" for kind in case.kinds for device in range(kind.devices))
    another = dict(zip(names, names[len(names) // 2 :] + names[: len(names) // 2], strict=True))

    def teach(pool: Pool, study: Study) -> None:
        if case.knows != "nothing":
            calling_ae = study.client.calling_ae
            pool.learn(another[calling_ae] if case.knows == "wrong" else calling_ae, study.size_bytes)

    return teach


def run(case: Case, balance: str, seed: int) -> Figures:
    """Store one run's studies with one policy."""
    rng = Random(f"{case.name} {seed}")
    studies, teach = make_studies(case, rng), teacher(case)
    make = PlainWorkPool if balance == PLAIN else Pool
    pool = make(policies()["least_work" if balance == PLAIN else balance], Persistence("none", 60, 32, 64))
    pool.configure(_nodes(case), {}, 0.0)
    for study in make_studies(replace(case, load=None, burst=BURST), Random(f"before {case.name} {seed}")):
        teach(pool, study)  # an ordinary morning before the burst or the stream
    nodes = {f"n{n}": NodeModel(speed * MB, case.sender * MB) for n, speed in enumerate(case.speeds)}
    stored = store_all(pool, nodes, studies, teach)
    measured = set(map(id, studies[WARM_UP:] if case.load is not None else studies))
    return _figures([each for each in stored if id(each.study) in measured], studies)


def _nodes(case: Case) -> tuple[Node, ...]:
    weights = [round(speed) if case.weighted else 100 for speed in case.speeds]
    return tuple(Node(f"n{n}", "simulated", "192.0.2.1", 104, weight, None, False) for n, weight in enumerate(weights))


def _figures(stored: Sequence[Stored], studies: Sequence[Study]) -> Figures:
    times = [each.took_s for each in stored]
    end_s = max(each.study.arrives_s + each.took_s for each in stored)
    return Figures(fmean(times), quantiles(times, n=20)[-1], end_s - studies[0].arrives_s)


# What it says

Measured = dict[str, dict[str, list[Figures]]]  # by case and policy, one a seed
TITLES = {"mean_s": "mean time to store", "p95_s": "95th percentile", "all_s": "until all is stored"}
SEEDS = {case.load is None: len(case.seeds) for case in CASES}  # by whether it is a burst
INTRODUCTION = f"""# Policies: when least_work beats least_connections

Written by `python -m bench.policies`, a simulation. A load is a stream of {STREAM} studies, of which the first
{WARM_UP} are not measured, with the seeds 1 to {SEEDS[False]}; a burst is {BURST} studies within a minute, "at once"
are 30 within a second, with the seeds 1 to {SEEDS[True]}. Nodes are equal, 100 MB/s each, or unequal, 160, 160, 40
and 40 MB/s. One association moves at most 50 MB/s; of quick senders, as much as its node can.
`{PLAIN}` is least_work as it was first designed; see docs/adr/0009-what-least-work-weighs.md.
"""


def ratio(measured: Mapping[str, Sequence[Figures]], key: str, policy: str = "least_work") -> tuple[float, ...]:
    """Return a policy's figure over that of least_connections: the quartiles of the seeds' ratios."""
    pairs = zip(measured[policy], measured["least_connections"], strict=True)
    return tuple(quantiles([getattr(a, key) / getattr(b, key) for a, b in pairs], n=4, method="inclusive"))


def page(measured: Measured) -> str:
    """Return the results as a page."""
    parts = [INTRODUCTION]
    for policy in ("least_work", PLAIN):
        parts += [
            f"## {policy} over least_connections\n",
            "Below 1 it is quicker. The median of the ratios within a seed, and the range of their middle half.\n",
            *_table(["case", *TITLES.values()], [_ratios(case, measured[case.name], policy) for case in CASES]),
        ]
    for key, title in TITLES.items():
        rows = [_seconds(case, measured[case.name], key) for case in CASES if key != "all_s" or case.load is None]
        parts += [f"## {title[0].upper()}{title[1:]}, s\n", *_table(["case", *POLICIES], rows)]
    return "\n".join(parts).rstrip() + "\n"


def _ratios(case: Case, by_policy: Mapping[str, Sequence[Figures]], policy: str) -> list[str]:
    keys = [key for key in TITLES if key != "all_s" or case.load is None]  # a stream ends when its last study comes
    found = [ratio(by_policy, key, policy) for key in keys]
    return [case.name, *(f"{middle:.2f} ({low:.2f} to {high:.2f})" for low, middle, high in found)]


def _seconds(case: Case, by_policy: Mapping[str, Sequence[Figures]], key: str) -> list[str]:
    return [case.name, *(f"{median(getattr(each, key) for each in by_policy[policy]):.1f}" for policy in POLICIES)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *([*row, *["-"] * (len(head) - len(row))] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def _record(case: Case, by_policy: Mapping[str, Sequence[Figures]]) -> dict[str, Any]:
    """Return a case with its figures, of each seed as in `Figures`."""
    runs = {name: [[round(value, 3) for value in astuple(each)] for each in by_policy[name]] for name in POLICIES}
    return asdict(case) | {"seeds": len(case.seeds), "figures": list(TITLES), "runs": runs}


def main() -> int:
    """Run all cases and write the results."""
    began = time.monotonic()
    measured: Measured = {}
    for case in CASES:
        measured[case.name] = {policy: [run(case, policy, seed) for seed in case.seeds] for policy in POLICIES}
        shown = ", ".join(f"{key} {ratio(measured[case.name], key)[1]:.2f}" for key in TITLES)
        print(f"{time.monotonic() - began:5.1f} s  {case.name}: {shown}", flush=True)
    (RESULTS / "policies.md").write_text(page(measured))
    lines = [json.dumps(_record(case, measured[case.name])) for case in CASES]
    (RESULTS / "policies.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
