"""What do routes, least_work and passive health cost?  Run: python -m bench.overhead [--quick].

Equipoise with all three against Equipoise with none (least_connections), both running all the time, in many short
rounds, each of which measures both, in alternating order: the machine's slow moments last longer than a round.
The cost is what is lost within a round; the median of the rounds counts, and the interval that the true median lies in
with 95 % says whether there were enough of them.  Leaves out what the three are good for: `bench.studies` has that.
Seed: the choice of ports.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from math import sqrt
from statistics import median, quantiles
from typing import Any

from bench import contenders, report
from bench.contenders import Contender
from bench.question import Measured, Question, answer
from bench.relay import Effort, Run, started, warm_up

QUESTION = "What do routes, least_work and passive health cost?"
ON, OFF = "all three", "none"
TARGET = 3.0  # per cent
SETTLE_S = 0.05  # events of what has just ended are written behind it, and would be counted against the other
FULL = Effort(rounds=120, seconds=0.35, reject_pairs=0)
QUICK = Effort(rounds=12, seconds=0.25, reject_pairs=0)
CONTENDERS = {
    OFF: partial(contenders.equipoise, name="off", template="sites/overhead_off.yaml"),
    ON: partial(contenders.equipoise, name="on", template="sites/overhead_on.yaml"),
}
Figure = dict[str, float]

# What is asked: the generator's mode, its options, which figure of its result is the speed.
LOADS: Mapping[str, tuple[str, dict[str, float], str]] = {
    "MB/s, 520 kB x 4": ("store", {"associations": 4, "object_bytes": 520_000}, "bytes"),
    "associations/s, 16 at a time, 2 contexts": ("associate", {"associations": 16}, "associations"),
    "associations/s, 16 at a time, 128 contexts": ("associate", {"associations": 16, "contexts": 128}, "associations"),
}


def figure(run: Run, contender: Contender, load: str) -> Figure:
    """Measure one contender once: how much a second, and the relay's CPU seconds for each of it."""
    mode, options, key = LOADS[load]
    row = run.measure(contender, mode, seconds=run.effort.seconds, **options)
    time.sleep(SETTLE_S)
    done = max(getattr(row["_result"], key), 1)
    return {"per_s": done / max(row["seconds"], 1e-6), "relay_cpu_s": row["relay_cpu_s"], "done": done}


def pairs(run: Run, load: str) -> list[dict[str, Figure]]:
    """Measure both in each round, one first and then the other."""
    off, on = run.contenders
    found = []
    for number in range(run.effort.rounds):
        order = ((OFF, off), (ON, on)) if number % 2 else ((ON, on), (OFF, off))
        found.append({name: figure(run, contender, load) for name, contender in order})
    print(f"{load}: {median(costs(found)):.1f} % lost", flush=True)
    return found


def costs(found: Sequence[dict[str, Figure]]) -> list[float]:
    """Return round by round by how many per cent the speed was lower."""
    return [100 * (1 - pair[ON]["per_s"] / pair[OFF]["per_s"]) for pair in found]


def cpu_cost(found: Sequence[dict[str, Figure]]) -> float | None:
    """Return by how many per cent the relay needed more CPU time for the same, over all rounds."""
    each = {
        name: sum(p[name]["relay_cpu_s"] for p in found) / sum(p[name]["done"] for p in found) for name in (ON, OFF)
    }
    return 100 * (each[ON] / each[OFF] - 1) if each[OFF] else None


def interval(found: Sequence[float]) -> tuple[float, float]:
    """Return where the true median lies with 95 %, by the order statistics (binomial, normal approximation)."""
    ordered, half = sorted(found), 0.98 * sqrt(len(found))
    low = max(int(len(found) / 2 - half), 0)
    return ordered[low], ordered[len(found) - 1 - low]


def verdicts(measured: dict[str, Any]) -> list[report.Verdict]:
    """Return the target for each load with what was measured."""
    return [
        report.Verdict(f"lost with {ON}: {load}", median(costs(found)), "%", TARGET, None, True)
        for load, found in measured["loads"].items()
    ]


def _line(load: str, found: Sequence[dict[str, Figure]]) -> list[str]:
    lost, cpu = costs(found), cpu_cost(found)
    scale, digits = (1e6, 0) if load.startswith("MB/s") else (1, 0)
    speeds = [report.number(median(pair[name]["per_s"] for pair in found) / scale, digits) for name in (OFF, ON)]
    first, _, third = quantiles(lost, n=4)
    low, high = interval(lost)
    return [
        load,
        *speeds,
        report.number(median(lost), 1),
        f"{report.number(low, 1)} to {report.number(high, 1)}",
        f"{report.number(first, 1)} to {report.number(third, 1)}",
        report.number(cpu, 1),
    ]


def page(measured: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    effort = measured["effort"]
    how = (
        f"{effort['rounds']} rounds of {effort['seconds']:g} s for both and each load, in alternating order. A cost is "
        "the median of those within a round; a negative one is a gain."
    )
    heads = [
        "load",
        f"with {OFF}",
        f"with {ON}",
        "lost, %, median",
        "its 95 % interval",
        "quartiles",
        "CPU of relay, %",
    ]
    parts = {
        "Targets": report.verdict_table(verdicts(measured)),
        "Costs": report.table(heads, (_line(load, found) for load, found in measured["loads"].items()))
        + "\nThe last column: how much more CPU time of the relay the same work took, over all rounds.\n",
    }
    head = report.opening("overhead", "What routes, least_work and passive health cost", measured, how)
    return head + "\n".join(f"## {title}\n\n{body}" for title, body in parts.items())


def measure(options: argparse.Namespace) -> Measured:
    """Measure everything.  Raises: BenchError."""
    effort = QUICK if options.quick else FULL
    with started(CONTENDERS) as (sink, running):
        run = Run(effort, sink, running)
        warm_up(running)
        loads = {load: pairs(run, load) for load in LOADS}
    return {
        "errors": run.errors,
        "effort": {"rounds": effort.rounds, "seconds": effort.seconds},
        "loads": loads,
    }


ASKED = Question("overhead", QUESTION, measure, verdicts, page)

if __name__ == "__main__":
    sys.exit(answer(ASKED, sys.argv[1:]))
