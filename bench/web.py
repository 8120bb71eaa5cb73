"""How fast is the web relay, beside a stock HAProxy and nginx?  Run: python -m bench.web [--quick].

All contenders run the whole time and are measured in turn, round after round; who comes first changes with the round.
Ratios are taken within a round.  Generator, relay and nodes share the cores.  Leaves out networks (everything is
loopback), cookies and source persistence, and what DICOMweb servers do: nodes answer from memory.
Seed: the objects' bytes, the order of the loads and the choice of ports.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import processes, report
from bench.contenders import DIRECT, GATEWAY, STOCK, Contender, Program
from bench.programs import BenchError
from bench.question import Measured, Question, answer
from bench.web_contenders import CONTENDERS, NGINX, SIZES, nodes
from bench.web_load import Asked, WebLoad, ask

QUESTION = "How fast is the web relay, beside a stock HAProxy and nginx?"
GB = 1_000_000_000
SMALL, OBJECT, LARGE = "1 kB x 50", "WADO 0.5 MB x 8", "WADO 30 MB x 4"
LOADS = (
    WebLoad(SMALL, "/1kB", 50, SIZES["1kB"]),
    WebLoad("QIDO 20 kB x 16", "/20kB", 16, SIZES["20kB"]),
    WebLoad(OBJECT, "/0.5MB", 8, SIZES["0.5MB"]),
    WebLoad(LARGE, "/30MB", 4, SIZES["30MB"]),
    WebLoad("STOW 30 MB x 4", "/stow", 4, len("ok"), upload_bytes=SIZES["30MB"]),
    WebLoad("HTTP/2, TLS: 1 kB x 10 x 10", "/1kB", 10, SIZES["1kB"], streams=10),
    WebLoad("HTTP/2, TLS: 0.5 MB x 4 x 2", "/0.5MB", 4, SIZES["0.5MB"], streams=2),
)
SMALL_TARGET, LARGE_TARGET = 0.95, 1.15


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int
    seconds: float


FULL = Effort(rounds=9, seconds=1.0)
QUICK = Effort(rounds=3, seconds=0.4)


@dataclass(frozen=True, slots=True)
class Run:
    """The contenders and nodes of one run, and what went wrong so far."""

    effort: Effort
    nodes: Program
    contenders: Sequence[Contender]
    errors: list[str]

    def measure(self, contender: Contender, load: WebLoad) -> dict[str, Any]:
        """Return what one contender did with one load; what is wrong with it goes to `errors`."""
        watched = {"relay": contender.relay, "supervisor": contender.supervisor, "nodes": self.nodes.everything()}
        before = {who: processes.cpu_s(pids) for who, pids in watched.items()}
        asked = ask(load, contender.options, self.effort.seconds)
        used = {f"{who}_cpu_s": round(processes.cpu_s(pids) - before[who], 3) for who, pids in watched.items()}
        self._judge(contender, load, asked)
        return {"contender": contender.name, "load": load.name, **_figures(asked), **used, **_each(asked, used)}

    def _judge(self, contender: Contender, load: WebLoad, asked: Asked) -> None:
        told = f"{contender.name}, {load.name}"
        if asked.errors:
            self.errors.append(f"{told}: {asked.errors} errors, the first: {asked.first_error}")
        elif not asked.requests:
            self.errors.append(f"{told}: nothing was answered")
        if gone := [pid for pid in contender.relay if not Path(f"/proc/{pid}").exists()]:
            self.errors.append(f"{told}: {len(gone)} processes of the relay ended, so its CPU seconds are not known")


def _figures(asked: Asked) -> dict[str, float]:
    seconds = max(asked.seconds, 1e-6)
    return {
        "seconds": asked.seconds,
        "requests": asked.requests,
        "bytes": asked.bytes,
        "errors": asked.errors,
        "generator_cpu_s": asked.cpu_s,
        "p50_ms": asked.p50_ms,
        "p99_ms": asked.p99_ms,
        "per_s": round(asked.requests / seconds, 1),
        "mb_per_s": round(asked.bytes / 1e6 / seconds, 1),
    }


def _each(asked: Asked, used: dict[str, float]) -> dict[str, float]:
    """Return what the relay's processes needed for a GB, and for ten thousand requests."""
    relay_cpu_s = used["relay_cpu_s"]
    return {
        "relay_cpu_s_per_gb": round(relay_cpu_s * GB / max(asked.bytes, 1), 4),
        "relay_cpu_s_per_10k": round(relay_cpu_s * 10_000 / max(asked.requests, 1), 4),
    }


def rounds(run: Run, load: WebLoad) -> list[dict[str, Any]]:
    """Measure every contender in each round, each time beginning with another one."""
    able = [one for one in run.contenders if one.name != DIRECT or not load.streams]
    rows = []
    for number in range(run.effort.rounds):
        first = number % len(able)
        for contender in able[first:] + able[:first]:
            rows.append(run.measure(contender, load) | {"round": number + 1})
    key, unit = speed(load)
    medians = [f"{one.name} {report.median_of(rows, load.name, one.name, key):.4g}" for one in able]
    print(f"{load.name}: {', '.join(medians)} {unit}", flush=True)
    return rows


def speed(load: WebLoad) -> tuple[str, str]:
    """Return which figure is the speed of this load, and its unit."""
    return ("per_s", "a second") if load.by_requests else ("mb_per_s", "MB/s")


@contextmanager
def started(names: Sequence[str], seed: int) -> Iterator[tuple[Program, list[Contender]]]:
    """Start the nodes and the contenders, and end them whatever happens.  Raises: BenchError."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eqw-", dir="/tmp")))
        site, program = nodes(directory, random.Random(seed))
        stack.callback(program.stop)
        running = []
        for name in names:
            running.append(CONTENDERS[name](site))
            stack.callback(running[-1].stop)
            print(f"{name} is ready", flush=True)
        yield program, running


def warm_up(running: Sequence[Contender]) -> None:
    """Load each contender once: a first run is never recorded, since memory is found then.  Raises: BenchError."""
    for contender in running:
        for load in LOADS:
            if contender.name != DIRECT or not load.streams:
                asked = ask(load, contender.options, 0.2)
                if asked.errors:
                    raise BenchError(f"{contender.name} does not serve {load.name}: {asked.first_error}")


def measure(options: argparse.Namespace) -> Measured:
    """Measure everything.  Raises: BenchError."""
    effort = QUICK if options.quick else FULL
    errors: list[str] = []
    rows = []
    with started(options.contenders, options.seed) as (program, running):
        warm_up(running)
        time.sleep(1)  # a node that has come up grows for a while: what is measured is a relay at rest
        run = Run(effort, program, running, errors)
        for load in random.Random(options.seed).sample(LOADS, len(LOADS)):
            rows += rounds(run, load)
    return {
        "errors": errors,
        "effort": {"rounds": effort.rounds, "seconds": effort.seconds},
        "contenders": [contender.name for contender in running],
        "loads": [load.name for load in LOADS],
        "rows": rows,
    }


def verdicts(measured: Measured) -> list[report.Verdict]:
    """Return the targets with what was measured."""
    judged = ((SMALL, "per_s", SMALL_TARGET), (OBJECT, "mb_per_s", LARGE_TARGET), (LARGE, "mb_per_s", LARGE_TARGET))
    return [
        report.Verdict(
            f"{load} over {STOCK}", report.ratio(measured["rows"], load, key, STOCK), "x", at_least, None, False
        )
        for load, key, at_least in judged
    ]


def _table(measured: Measured, loads: Sequence[WebLoad], key: str, digits: int) -> str:
    rows, free = measured["rows"], {DIRECT} if key.startswith("relay_cpu") else set()
    names = [name for name in measured["contenders"] if name not in free]
    others = [name for name in (DIRECT, STOCK, NGINX) if name in names and GATEWAY in names]
    lines = []
    for load in loads:
        found = [report.spread(report.values(rows, load.name, name, key), digits) for name in names]
        ratios = [_ratio(rows, load.name, key, other) for other in others]
        lines.append([load.name, *found, *ratios])
    return report.table(["load", *names, *(f"{GATEWAY} / {other}" for other in others)], lines)


def _ratio(rows: report.Rows, load: str, key: str, over: str) -> str:
    """Return the median of the ratios within a round, and between which they lie."""
    ours, theirs = (report.values(rows, load, name, key) for name in (GATEWAY, over))
    return report.spread([a / b for a, b in zip(ours, theirs, strict=False) if b], 2)


def page(measured: Measured) -> str:
    """Return the results as Markdown."""
    effort = measured["effort"]
    how = (
        f"{effort['rounds']} rounds of {effort['seconds']:g} s for each contender and load, interleaved. Figures are "
        "medians over the rounds with their range, and so are ratios, each within a round. A load is so many "
        "connections at once, with HTTP/2 so many requests at once on each of them."
    )
    counted, weighed = [one for one in LOADS if one.by_requests], [one for one in LOADS if not one.by_requests]
    parts = {
        "Targets": report.verdict_table(verdicts(measured)),
        "Throughput, MB/s": _table(measured, weighed, "mb_per_s", 0),
        "Requests a second": _table(measured, counted, "per_s", 0),
        "CPU seconds of the relay a GB": _table(measured, weighed, "relay_cpu_s_per_gb", 2),
        "CPU seconds of the relay for 10 000 requests": _table(measured, counted, "relay_cpu_s_per_10k", 2),
        "Time of an answer, ms: the slowest of a hundred": _table(
            measured, [one for one in LOADS if not one.streams], "p99_ms", 1
        ),
        "Where the time goes: cores kept busy, median": _share_table(measured["rows"]),
    }
    head = report.opening("web", "The web relay: speed", measured, how)
    return head + "\n".join(f"## {title}\n\n{body}" for title, body in parts.items())


def _share_table(rows: report.Rows) -> str:
    kinds = ("generator", "relay", "supervisor", "nodes")
    lines = []
    for load, name in dict.fromkeys((row["load"], row["contender"]) for row in rows):
        own = [row for row in rows if row["load"] == load and row["contender"] == name]
        shares = ([row[f"{kind}_cpu_s"] / max(row["seconds"], 1e-6) for row in own] for kind in kinds)
        lines.append([load, name, *(report.number(sorted(share)[len(share) // 2]) for share in shares)])
    return report.table(["load", "contender", *kinds], lines) + "\nWhat h2load uses is not counted.\n"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add which relays are measured."""
    parser.add_argument("--contenders", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))


ASKED = Question("web", QUESTION, measure, verdicts, page, add_options, "half a minute; too short to judge by")

if __name__ == "__main__":
    sys.exit(answer(ASKED, sys.argv[1:]))
