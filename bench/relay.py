"""How fast and how large is the DICOM relay, beside no relay and beside HAProxy?  Run: python -m bench.relay [--quick].

One run, all contenders started once and measured in turn, round after round (A B C D A B C D ...), so that a machine
that is slow for a while is slow for all; ratios are taken within a round.  Generator, relay and nodes share the cores.
Leaves out networks: everything is loopback.  Seed: the order of the loads and the choice of ports, nothing else.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench import contenders, processes, report
from bench.contenders import CONTENDERS, GATEWAY, Contender, Site
from bench.programs import BackgroundLoad, BenchError, LoadResult, Sink, run_load
from bench.question import Measured, Question, answer

QUESTION = "How fast and how large is the DICOM relay, beside no relay and beside HAProxy?"
GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """Objects of one size, sent over so many associations at once."""

    object_bytes: int
    associations: int

    @property
    def name(self) -> str:
        """The load in words, for tables."""
        size = (
            f"{self.object_bytes // 1000} kB" if self.object_bytes < 1_000_000 else f"{self.object_bytes // 10**6} MB"
        )
        return f"{size} x {self.associations}"


LOADS = [Load(size, count) for size in (520_000, 26_000_000) for count in (1, 4, 16)]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int
    seconds: float
    reject_pairs: int
    idle_associations: int = 5000


FULL = Effort(rounds=5, seconds=3.0, reject_pairs=10)
QUICK = Effort(rounds=2, seconds=0.6, reject_pairs=2)


@dataclass(slots=True)
class Run:
    """The contenders of one run, and what was measured so far."""

    effort: Effort
    sink: Sink
    contenders: Sequence[Contender]
    errors: list[str] = field(default_factory=list)

    @property
    def limit_s(self) -> float:
        """How long one load may take, until it is given up."""
        return self.effort.seconds + 75

    def measure(self, contender: Contender, mode: str, **options: str | float) -> dict[str, Any]:
        """Run one load through one contender; what is wrong with it goes to `errors`."""
        before, cpu_s, supervisor_s = (
            self.sink.counters(),
            processes.cpu_s(contender.relay),
            processes.cpu_s(contender.supervisor),
        )
        result = run_load(mode, contender.port, limit_s=self.limit_s, **{**contender.options, **options})
        after = self.sink.counters()
        self._judge(contender, mode, result, before, after)
        return {
            "contender": contender.name,
            "seconds": result.seconds,
            "errors": result.errors,
            "relay_cpu_s": round(processes.cpu_s(contender.relay) - cpu_s, 3),
            "supervisor_cpu_s": round(processes.cpu_s(contender.supervisor) - supervisor_s, 3),
            "generator_cpu_s": result.cpu_s,
            "sink_cpu_s": round(after["cpu_s"] - before["cpu_s"], 3),
            "p50_ms": result.p50_ms,
            "p99_ms": result.p99_ms,
            "_result": result,
        }

    def _judge(
        self, contender: Contender, mode: str, result: LoadResult, before: dict[str, Any], after: dict[str, Any]
    ) -> None:
        """Note what makes a measurement worthless: an error, or nodes that counted what the sender was not told."""
        if result.errors:
            self.errors.append(f"{contender.name}, {mode}: {result.errors} errors, the first: {result.first_error}")
        for what, sent in (("objects", result.objects), ("bytes", result.bytes)):
            if not result.errors and (stored := after[what] - before[what]) != sent:
                self.errors.append(f"{contender.name}, {mode}: {sent} {what} acknowledged, {stored} arrived")
        if after["protocol_errors"] > before["protocol_errors"]:
            self.errors.append(f"{contender.name}, {mode}: the node saw a protocol error: {after['first_error']}")

    def in_turn(self) -> Iterator[tuple[int, Contender]]:
        """Give each contender in each round."""
        for number in range(1, self.effort.rounds + 1):
            for contender in self.contenders:
                yield number, contender


def throughput(run: Run, loads: Sequence[Load]) -> list[dict[str, Any]]:
    """Store objects: MB/s, CPU seconds of the relay a GB, and how long an object takes."""
    rows = []
    for load in loads:
        for number, contender in run.in_turn():
            options = {"associations": load.associations, "object_bytes": load.object_bytes}
            row = run.measure(contender, "store", seconds=run.effort.seconds, **options)
            result: LoadResult = row.pop("_result")
            row |= {"load": load.name, "round": number, "bytes": result.bytes, "objects": result.objects}
            row["mb_per_s"] = round(result.bytes / 1e6 / max(result.seconds, 1e-6), 1)
            for whose in ("relay", "supervisor"):
                row[f"{whose}_cpu_s_per_gb"] = round(row[f"{whose}_cpu_s"] * GB / max(result.bytes, 1), 4)
            rows.append(row)
        say(f"store {load.name}", rows, load.name, "mb_per_s", "MB/s")
    return rows


def associations(run: Run) -> list[dict[str, Any]]:
    """Associate and release, 16 at a time: associations a second."""
    rows = []
    for number, contender in run.in_turn():
        row = run.measure(contender, "associate", associations=16, seconds=run.effort.seconds)
        result: LoadResult = row.pop("_result")
        rows.append(
            row | {"load": "16 at a time", "round": number, "per_s": round(result.associations / result.seconds, 1)}
        )
    say("associate and release, 16 at a time", rows, "16 at a time", "per_s", "a second")
    return rows


def echo(run: Run) -> list[dict[str, Any]]:
    """Connect, associate, C-ECHO, release, close, one at a time: the median, in ms."""
    rows = []
    for number, contender in run.in_turn():
        row = run.measure(contender, "echo", seconds=run.effort.seconds / 2)
        row.pop("_result")
        rows.append(row | {"load": "one C-ECHO", "round": number})
    say("one C-ECHO association at a time", rows, "one C-ECHO", "p50_ms", "ms")
    return rows


def idle(run: Run) -> list[dict[str, Any]]:
    """Hold many associations of 128 contexts open: memory of the relay, before and meanwhile, in bytes."""
    rows = []
    for contender in (one for one in run.contenders if one.relay):
        before = processes.memory(contender.relay)
        load = BackgroundLoad(
            "idle", contender.port, associations=run.effort.idle_associations, contexts=128, patience=60
        )
        try:
            opened = load.read()
            time.sleep(1)  # what set-up needed is given back
            during = processes.memory(contender.relay)
            result = load.finish()
        finally:
            load.stop()
        if result.errors:
            run.errors.append(f"{contender.name}, idle: {result.errors} errors, the first: {result.first_error}")
        row = {"contender": contender.name, "associations": opened["open"], "request_bytes": opened["request_bytes"]}
        row |= {"rss_before": before.rss_bytes, "pss_before": before.pss_bytes}
        rows.append(row | {"rss_bytes": during.rss_bytes, "pss_bytes": during.pss_bytes, "errors": result.errors})
        print(f"idle: {contender.name} holds {opened['open']} in {during.rss_bytes / 1e6:.0f} MB (RSS)", flush=True)
    return rows


def _rejected_meanwhile(run: Run, gateway: Contender, seconds: float) -> tuple[dict[str, Any], int]:
    """Store while 100 associations a second are turned away; returns also how many were."""
    nuisance = BackgroundLoad("reject", gateway.port, calling="INTRUDER", rate=100, seconds=seconds + 0.4)
    try:
        time.sleep(0.2)
        row = run.measure(gateway, "store", associations=4, object_bytes=520_000, seconds=seconds)
        turned_away = nuisance.finish()
    finally:
        nuisance.stop()
    if turned_away.errors or turned_away.rejected < 80 * seconds:
        run.errors.append(
            f"{gateway.name}, reject: {turned_away.rejected} rejected in {seconds} s, {turned_away.errors} errors, "
            f"the first: {turned_away.first_error}"
        )
    return row, turned_away.rejected


def rejects(run: Run) -> list[dict[str, Any]]:
    """Store over 4 associations, without and with 100 rejected ones a second beside them; pairs in both orders."""
    rows: list[dict[str, Any]] = []
    for gateway in (one for one in run.contenders if one.name == GATEWAY):
        for pair in range(1, run.effort.reject_pairs + 1):
            for beside in (False, True) if pair % 2 else (True, False):
                if beside:
                    row, turned_away = _rejected_meanwhile(run, gateway, run.effort.seconds)
                else:
                    row, turned_away = (
                        run.measure(gateway, "store", associations=4, object_bytes=520_000, seconds=run.effort.seconds),
                        0,
                    )
                result: LoadResult = row.pop("_result")
                row["mb_per_s"] = round(result.bytes / 1e6 / max(result.seconds, 1e-6), 1)
                rows.append(row | {"pair": pair, "beside": beside, "rejected": turned_away})
    return rows


def say(what: str, rows: Sequence[dict[str, Any]], load: str, key: str, unit: str) -> None:
    """Tell the terminal how it goes."""
    names = dict.fromkeys(row["contender"] for row in rows)
    medians = [f"{name} {report.median_of(rows, load, name, key):.4g}" for name in names]
    print(f"{what}: {', '.join(medians)} {unit}", flush=True)


@contextmanager
def started(starts: Mapping[str, Callable[[Site], Contender]]) -> Iterator[tuple[Sink, list[Contender]]]:
    """Start the nodes and the contenders, and end them whatever happens.  Raises: BenchError."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eqb-", dir="/tmp")))
        sink = Sink(listeners=2)
        stack.callback(sink.stop)
        site = Site(directory, sink.ports)
        running = []
        for name, start in starts.items():
            running.append(start(site))
            stack.callback(running[-1].stop)
            print(f"{name} is ready", flush=True)
        yield sink, running


def warm_up(running: Sequence[Contender]) -> None:
    """Load each contender once: a first run is never recorded, since tables are filled then.  Raises: BenchError."""
    for contender in running:
        result = run_load("store", contender.port, limit_s=60, associations=4, seconds=0.3, **contender.options)
        if result.errors:
            raise BenchError(f"{contender.name} does not store: {result.first_error}")


def wanted(options: argparse.Namespace) -> dict[str, Callable[[Site], Contender]]:
    """Return how to start each contender that the options name."""
    starts = {name: CONTENDERS[name] for name in options.contenders}
    for other in options.also:
        name, _, command = other.partition("=")
        starts[name] = partial(contenders.another, name, command)
    return starts


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add which relays are measured."""
    parser.add_argument("--contenders", type=_contenders, default=CONTENDERS, help=f"of: {','.join(CONTENDERS)}")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="one more relay; {port} {node_a} {node_b} are filled in",
    )


def _contenders(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    if unknown := [name for name in names if name not in CONTENDERS]:
        raise argparse.ArgumentTypeError(f"no contender {unknown[0]!r}; there are {', '.join(CONTENDERS)}")
    return names


def measure(options: argparse.Namespace) -> Measured:
    """Measure everything.  Raises: BenchError."""
    effort: Effort = QUICK if options.quick else FULL
    loads = random.Random(options.seed).sample(LOADS, len(LOADS))
    with started(wanted(options)) as (sink, running):
        run = Run(effort, sink, running)
        warm_up(running)
        measured: Measured = {"throughput": throughput(run, loads)}
        measured |= {"associations": associations(run), "echo": echo(run), "rejects": rejects(run), "idle": idle(run)}
    return {
        "errors": run.errors,
        "effort": {"rounds": effort.rounds, "seconds": effort.seconds, "reject_pairs": effort.reject_pairs},
        "contenders": [contender.name for contender in running],
        "loads": [load.name for load in LOADS],
        **measured,
    }


ASKED = Question(
    "relay", QUESTION, measure, report.verdicts, report.page, add_options, "about a minute; too short to judge by"
)

if __name__ == "__main__":
    sys.exit(answer(ASKED, sys.argv[1:]))
