"""How long until all studies are stored, by the way nodes are picked?  Run: python -m bench.studies [--quick], as root.

Four real nodes (storescp) of unequal speed, of which the configuration says nothing; modalities that send studies of
30 MB or of 1 GB, each kind from calling AEs of its own, at random times while others are on their way.  least_work
against least_connections, without and with persistence by source IP; the same studies for each, in turn, seed by seed.
Before the first measurement each modality has sent one study through each: predictions exist, as they do on any day
but the first.  Leaves out equal nodes and other mixes.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench import contenders, report
from bench.contenders import Contender, Site
from bench.programs import BenchError, LoadResult, load_command
from bench.question import Measured, Question, answer
from bench.slow_nodes import SlowNode, slow_nodes

QUESTION = "How long until all studies are stored, by the way nodes are picked?"
WORK, CONNECTIONS, SOURCE = "least_work", "least_connections", "source_ip"
POLICIES = {WORK: ("least_work", "none"), CONNECTIONS: ("least_connections", "none")} | {
    SOURCE: ("least_connections", "source_ip")
}
SPEEDS_MB_PER_S = (40, 80, 160, 320)
TARGET = 0.8
BIG_BYTES, SMALL_BYTES, OBJECT_BYTES = 1_000_000_000, 30_000_000, 500_000
BIG_SENDERS = tuple(f"CT{number}" for number in range(1, 5))
SMALL_SENDERS = tuple(f"CR{number}" for number in range(1, 9))
STUDY_LIMIT_S = 300


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is sent: for `seconds` so much of what the nodes can take, half of it in large studies."""

    repetitions: int
    seconds: float
    offered: float = 0.8  # a busy hour; beyond 1 no balancer keeps up


FULL = Effort(repetitions=3, seconds=20)
QUICK = Effort(repetitions=1, seconds=6)


@dataclass(frozen=True, slots=True)
class Study:
    """What one modality sends on one association, at one time."""

    at_s: float
    calling_ae: str
    total_bytes: int


def studies(effort: Effort, chance: random.Random) -> list[Study]:
    """Return what is sent in one repetition, by time."""
    total = effort.offered * sum(SPEEDS_MB_PER_S) * 1e6 * effort.seconds
    kinds = ((BIG_SENDERS, BIG_BYTES), (SMALL_SENDERS, SMALL_BYTES))
    found = [
        Study(chance.uniform(0, effort.seconds), chance.choice(senders), size)
        for senders, size in kinds
        for _ in range(max(round(total / 2 / size), 1))
    ]
    return sorted(found, key=lambda study: study.at_s)


def first_studies() -> list[Study]:
    """Return one study of each modality, all at once."""
    return [Study(0, name, BIG_BYTES) for name in BIG_SENDERS] + [Study(0, name, SMALL_BYTES) for name in SMALL_SENDERS]


def source(calling_ae: str, repetition: int) -> str:
    """Return a modality's own address, another one each time: persistence begins anew with each repetition."""
    return f"127.1.{repetition}.{1 + (BIG_SENDERS + SMALL_SENDERS).index(calling_ae)}"


@dataclass(slots=True)
class Run:
    """The nodes, the contenders, and what went wrong."""

    nodes: Sequence[SlowNode]
    contenders: Sequence[Contender]
    errors: list[str] = field(default_factory=list)

    def send(self, contender: Contender, planned: Sequence[Study], repetition: int) -> dict[str, Any]:
        """Send these studies, each at its time, and return how long it took until all were stored."""
        sent_before, busy_before, begun = self._sent(), busy_s(), time.monotonic()
        senders: list[tuple[Study, subprocess.Popen[str]]] = []
        try:
            for study in planned:
                time.sleep(max(study.at_s - (time.monotonic() - begun), 0))
                senders.append((study, start_sender(contender.port, study, repetition)))
            times = [(study.total_bytes, self._finish(contender, study, process)) for study, process in senders]
        finally:
            for _, process in senders:
                process.kill()
                process.wait()
        seconds = time.monotonic() - begun
        return {
            "contender": contender.name,
            "seconds": round(seconds, 2),
            "busy_cores": round((busy_s() - busy_before) / seconds, 2),
            "node_mb": [round((after - before) / 1e6) for after, before in zip(self._sent(), sent_before, strict=True)],
            "big_s": [took for size, took in times if size == BIG_BYTES],
            "small_s": [took for size, took in times if size == SMALL_BYTES],
        }

    def _sent(self) -> list[int]:
        return [node.sent_bytes() for node in self.nodes]

    def _finish(self, contender: Contender, study: Study, process: subprocess.Popen[str]) -> float:
        """Wait for one study, and return how long it took; what is wrong with it goes to `errors`."""
        try:
            line, _ = process.communicate(timeout=STUDY_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{contender.name}: a study of {study.calling_ae} took over {STUDY_LIMIT_S} s") from None
        result = LoadResult.read(line)
        if result.errors or result.bytes != study.total_bytes:
            what = f"{result.bytes} of {study.total_bytes} bytes, {result.errors} errors, {result.first_error}"
            self.errors.append(f"{contender.name}, a study of {study.calling_ae}: {what}")
        return round(result.seconds, 2)


def start_sender(port: int, study: Study, repetition: int) -> subprocess.Popen[str]:
    """Start a modality that sends one study."""
    options: dict[str, str | float] = {"calling": study.calling_ae, "source": source(study.calling_ae, repetition)}
    options |= {"object_bytes": OBJECT_BYTES, "total_bytes": study.total_bytes, "seconds": STUDY_LIMIT_S}
    return subprocess.Popen(load_command("store", port, options), stdout=subprocess.PIPE, text=True)


def busy_s() -> float:
    """Return the seconds that all cores together have been busy since the machine started (proc(5), /proc/stat)."""
    fields = [int(number) for number in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / 100  # without idle and iowait


def start_all(directory: Path, nodes: Sequence[SlowNode], stack: ExitStack) -> list[Contender]:
    """Start Equipoise once for each way to pick.  Raises: BenchError."""
    site = Site(directory, [0])
    addresses = {node.name.replace("-", "_"): node.address for node in nodes}
    running = []
    for name, (balance, by) in POLICIES.items():
        places = {"balance": balance, "persistence": by, **addresses}
        running.append(contenders.equipoise(site, name, "sites/studies.yaml", places=places))
        stack.callback(running[-1].stop)
        print(f"{name} is ready", flush=True)
    return running


def repetitions(run: Run, effort: Effort, seed: int) -> list[dict[str, Any]]:
    """Measure all contenders with the studies of each seed, in an order that the seed gives."""
    for contender in run.contenders:
        warm = run.send(contender, first_studies(), 0)
        print(f"{contender.name}: one study of each modality took {warm['seconds']:.0f} s", flush=True)
    rows = []
    for number in range(1, effort.repetitions + 1):
        chance = random.Random(1000 * seed + number)
        planned = studies(effort, chance)
        for contender in chance.sample(run.contenders, len(run.contenders)):
            row = run.send(contender, planned, number) | {"repetition": number, "studies": len(planned)}
            rows.append(row)
            print(f"{number}: {contender.name} took {row['seconds']:.1f} s, nodes {row['node_mb']} MB", flush=True)
    return rows


def of(rows: Sequence[dict[str, Any]], name: str, key: str) -> list[Any]:
    """Return one figure of one contender, repetition by repetition."""
    return [row[key] for row in sorted(rows, key=lambda row: row["repetition"]) if row["contender"] == name]


def ratios(rows: Sequence[dict[str, Any]], name: str, over: str) -> list[float]:
    """Return the times of one over those of another, with the same studies."""
    return [a / b for a, b in zip(of(rows, name, "seconds"), of(rows, over, "seconds"), strict=True)]


def verdicts(measured: dict[str, Any]) -> list[report.Verdict]:
    """Return the target with what was measured."""
    found = median(ratios(measured["rows"], WORK, CONNECTIONS))
    what = f"time until all is stored, {WORK} over {CONNECTIONS}"
    return [report.Verdict(what, found, "x", TARGET, None, True)]


def _lines(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    lines = []
    for name in POLICIES:
        studies_s = [[s for times in of(rows, name, key) for s in times] for key in ("small_s", "big_s")]
        mb = [sum(parts) for parts in zip(*of(rows, name, "node_mb"), strict=True)]
        line = [name, report.spread(of(rows, name, "seconds"), 1)]
        line.append(report.spread(ratios(rows, name, CONNECTIONS), 2))
        line += [report.spread(times, 1) for times in studies_s]
        line.append(" / ".join(f"{100 * part / sum(mb):.0f}" for part in mb))
        lines.append([*line, report.number(max(of(rows, name, "busy_cores")), 2)])
    return lines


def page(measured: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    effort, rows = measured["effort"], measured["rows"]
    limits = ", ".join(f"{node['mb_per_s']} ({node['measured_mb_per_s']})" for node in measured["nodes"])
    how = (
        f"{effort['repetitions']} repetitions with seeds of their own, each sent in turn through all; "
        f"in each about {rows[0]['studies']} studies of 30 MB and 1 GB, half of the bytes in each kind, begun within "
        f"{effort['seconds']:g} s at random times, together {effort['offered']:g} of what the nodes can take in that. "
        f"{len(SMALL_SENDERS)} modalities send the small ones, {len(BIG_SENDERS)} the large ones; each sent one "
        "before the measurement. Nodes are storescp processes behind links that are limited to (without a relay found "
        f"to take) so many MB/s: {limits}. All weights are equal. Figures are medians with their range."
    )
    heads = ["picked by", "s until all is stored", f"over {CONNECTIONS}", "s for 30 MB", "s for 1 GB"]
    heads += ["% of bytes to each node", "cores busy at most"]
    seeds = sorted({row["repetition"] for row in rows})
    each = [
        [str(seed), *(report.number(of(rows, name, "seconds")[at], 1) for name in POLICIES)]
        for at, seed in enumerate(seeds)
    ]
    parts = {
        "Targets": report.verdict_table(verdicts(measured)),
        "Times": report.table(heads, _lines(rows)),
        "Each repetition, s until all is stored": report.table(["repetition", *POLICIES], each),
    }
    head = report.opening("studies", "Studies on nodes of unequal speed", measured, how)
    return head + "\n".join(f"## {title}\n\n{body}" for title, body in parts.items())


def measure(options: argparse.Namespace) -> Measured:
    """Measure everything.  Raises: BenchError."""
    effort: Effort = QUICK if options.quick else FULL
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eqb-", dir="/tmp")))
        nodes = stack.enter_context(slow_nodes(SPEEDS_MB_PER_S, directory, random.Random(options.seed)))
        found = [
            {"mb_per_s": node.mb_per_s, "measured_mb_per_s": round(node.measure_mb_per_s(seconds=2))} for node in nodes
        ]
        run = Run(nodes, start_all(directory, nodes, stack))
        rows = repetitions(run, effort, options.seed)
    return {
        "errors": run.errors,
        "effort": {"repetitions": effort.repetitions, "seconds": effort.seconds, "offered": effort.offered},
        "nodes": found,
        "rows": rows,
    }


ASKED = Question("studies", QUESTION, measure, verdicts, page, quick="one short repetition: too little to judge by")

if __name__ == "__main__":
    sys.exit(answer(ASKED, sys.argv[1:]))
