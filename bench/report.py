"""What measurements say: medians, spreads, ratios within a round, targets; as JSON and pages.

Each question has its page where it is asked; that of `bench.relay` is here.  A missed target is said plainly.
"""

import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from bench.contenders import DIRECT, GATEWAY, STOCK, TUNED

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target: `target_met` and `aim_met` are None where there is nothing to judge."""

    what: str
    measured: float | None
    unit: str
    target: float
    aim: float | None
    at_most: bool

    def reaches(self, limit: float | None) -> bool | None:
        """Say whether the measured value is on the good side of `limit`."""
        if self.measured is None or limit is None:
            return None
        return self.measured <= limit if self.at_most else self.measured >= limit


def values(rows: Rows, load: str, contender: str, key: str) -> list[float]:
    """Return what one contender reached with one load, round by round."""
    return [row[key] for row in rows if row["load"] == load and row["contender"] == contender]


def median_of(rows: Rows, load: str, contender: str, key: str) -> float:
    """Return the median over the rounds, or not-a-number where it was not measured."""
    return median(values(rows, load, contender, key) or [float("nan")])


def ratio(rows: Rows, load: str, key: str, over: str, contender: str = GATEWAY) -> float | None:
    """Return the median of the ratios to another contender, each within one round."""
    pairs = zip(values(rows, load, contender, key), values(rows, load, over, key), strict=False)
    ratios = [ours / theirs for ours, theirs in pairs if theirs]
    return median(ratios) if ratios else None


def over_loads(measured: dict[str, Any], over: str) -> float | None:
    """Return the median over the loads of the throughput's ratio to another contender."""
    ratios = [ratio(measured["throughput"], load, "mb_per_s", over) for load in measured["loads"]]
    known = [value for value in ratios if value is not None]
    return median(known) if known else None


def slowdown(rows: Rows) -> list[float]:
    """Return, pair by pair, by how many per cent the rejects slowed the others."""
    speed = {(row["pair"], row["beside"]): row["mb_per_s"] for row in rows}
    pairs = sorted({pair for pair, _ in speed})
    return [100 * (1 - speed[pair, True] / speed[pair, False]) for pair in pairs if speed[pair, False]]


def idle_mb(rows: Rows) -> float | None:
    """Return the gateway's resident memory with all idle associations open, in MB."""
    return next((row["rss_bytes"] / 1e6 for row in rows if row["contender"] == GATEWAY), None)


def verdicts(measured: dict[str, Any]) -> list[Verdict]:
    """Return every target with what was measured."""
    rejects = slowdown(measured["rejects"])
    per_s = ratio(measured["associations"], "16 at a time", "per_s", STOCK)
    echo = ratio(measured["echo"], "one C-ECHO", "p50_ms", STOCK)
    return [
        Verdict(
            "throughput over HAProxy stock, median of the loads", over_loads(measured, STOCK), "x", 1.5, 2.0, False
        ),
        Verdict(
            "throughput over HAProxy tuned, median of the loads", over_loads(measured, TUNED), "x", 0.75, 1.0, False
        ),
        Verdict("associations a second over HAProxy stock, 16 at a time", per_s, "x", 0.5, 0.8, False),
        Verdict("time of one C-ECHO association over HAProxy stock", echo, "x", 1.5, 1.2, True),
        Verdict("gateway with 5 000 idle associations (RSS)", idle_mb(measured["idle"]), "MB", 200, None, True),
        Verdict(
            "slowed by 100 rejected associations a second", median(rejects) if rejects else None, "%", 5, None, True
        ),
    ]


def table(heads: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    heads = list(heads)
    rows = [heads, ["---"] * len(heads), *map(list, lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def number(value: float | None, digits: int = 2) -> str:
    """Return a number for people; thousands are set apart."""
    return "-" if value is None else f"{value:,.{digits}f}".replace(",", " ")


def spread(found: Sequence[float], digits: int) -> str:
    """Return median and range."""
    if not found:
        return "-"
    return f"{number(median(found), digits)} ({number(min(found), digits)} to {number(max(found), digits)})"


def verdict_table(found: Sequence[Verdict]) -> str:
    words = {True: "met", False: "**missed**", None: "-"}
    return table(
        ["question", "measured", "target", "", "aim", ""],
        (
            [
                one.what,
                f"{number(one.measured)} {one.unit}" if one.measured is not None else "not measured",
                f"{'at most' if one.at_most else 'at least'} {one.target:g} {one.unit}",
                words[one.reaches(one.target)],
                f"{one.aim:g} {one.unit}" if one.aim is not None else "-",
                words[one.reaches(one.aim)],
            ]
            for one in found
        ),
    )


def contender_table(measured: dict[str, Any], rows: Rows, loads: Sequence[str], key: str, digits: int) -> str:
    """Return what each contender reached with each load, and the gateway's ratios to the others."""
    names = measured["contenders"]
    others = [name for name in (DIRECT, STOCK, TUNED) if name in names and GATEWAY in names]
    lines = []
    for load in loads:
        ratios = [number(ratio(rows, load, key, other)) for other in others]
        lines.append([load, *(spread(values(rows, load, name, key), digits) for name in names), *ratios])
    return table(["load", *names, *(f"{GATEWAY} / {other}" for other in others)], lines)


def cpu_table(measured: dict[str, Any]) -> str:
    rows = measured["throughput"]
    columns = [(name, "relay_cpu_s_per_gb", name) for name in measured["contenders"] if name != DIRECT]
    if GATEWAY in measured["contenders"]:
        columns.append((GATEWAY, "supervisor_cpu_s_per_gb", f"{GATEWAY}, supervisor"))
    lines = [
        [load, *(spread(values(rows, load, name, key), 2) for name, key, _ in columns)] for load in measured["loads"]
    ]
    return table(["load", *(title for _, _, title in columns)], lines)


def share_table(*row_sets: Rows) -> str:
    """How many cores generator, relay, supervisor and nodes kept busy: where the time goes."""
    lines = []
    for row_set in row_sets:
        for load, name in dict.fromkeys((row["load"], row["contender"]) for row in row_set):
            rows = [row for row in row_set if row["load"] == load and row["contender"] == name]
            kinds = ("generator_cpu_s", "relay_cpu_s", "supervisor_cpu_s", "sink_cpu_s")
            lines.append([load, name, *(number(median(row[kind] / row["seconds"] for row in rows)) for kind in kinds)])
    return table(["load", "contender", "generator", "relay", "supervisor", "nodes"], lines)


def _idle_table(rows: Rows) -> str:
    keys = ("rss_before", "rss_bytes", "pss_before", "pss_bytes")
    lines = [[row["contender"], str(row["associations"]), *(number(row[key] / 1e6, 1) for key in keys)] for row in rows]
    return table(["contender", "open", "RSS before, MB", "RSS, MB", "PSS before, MB", "PSS, MB"], lines)


def _reject_text(rows: Rows) -> str:
    if not rows:
        return "Not measured: HAProxy in mode tcp cannot reject an association.\n"
    speeds = {beside: [row["mb_per_s"] for row in rows if row["beside"] is beside] for beside in (False, True)}
    lines = [["MB/s without", spread(speeds[False], 0)], ["MB/s with", spread(speeds[True], 0)]]
    lines.append(["slower by, %, pair by pair", spread(slowdown(rows), 1)])
    lines.append(["rejected in all", str(sum(row["rejected"] for row in rows))])
    return table(["520 kB x 4", "median (range)"], lines)


def page(measured: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    effort = measured["effort"]
    how = (
        f"{effort['rounds']} rounds of {effort['seconds']:g} s for each contender and load, interleaved. Figures are "
        "medians over the rounds with their range; ratios are medians of the ratios within a round."
    )
    head = opening("relay", "The DICOM relay: speed and memory", measured, how)
    rows = measured["throughput"]
    parts: list[tuple[str, Callable[[], str]]] = [
        ("Targets", lambda: verdict_table(verdicts(measured))),
        ("Throughput, MB/s", lambda: contender_table(measured, rows, measured["loads"], "mb_per_s", 0)),
        ("CPU seconds of the relay a GB", lambda: cpu_table(measured)),
        (
            "Associations a second (associate and release, 16 at a time)",
            lambda: contender_table(measured, measured["associations"], ["16 at a time"], "per_s", 0),
        ),
        (
            "One C-ECHO association at a time, median in ms",
            lambda: contender_table(measured, measured["echo"], ["one C-ECHO"], "p50_ms", 3),
        ),
        ("Idle associations with 128 presentation contexts each", lambda: _idle_table(measured["idle"])),
        ("100 rejected associations a second beside 4 that store", lambda: _reject_text(measured["rejects"])),
        (
            "Where the time goes: cores kept busy, median",
            lambda: share_table(rows, measured["associations"], measured["echo"]),
        ),
    ]
    return head + "\n".join(f"## {title}\n\n{body()}" for title, body in parts)


def opening(name: str, title: str, measured: dict[str, Any], how: str) -> str:
    """Return the top of a page: whether it may be used at all, what wrote it, how and on what."""
    head = f"# {title}\n\n"
    if not measured["valid"]:
        head += "**INVALID: there were errors, so no number below may be used.**\n\n"
        head += "".join(f"- {error}\n" for error in measured["errors"][:20]) + "\n"
    if measured["effort"]["quick"]:
        head += "**A quick run, for development: too short to judge by.**\n\n"
    facts = ", ".join(f"{what} {value}" for what, value in measured["machine"].items())
    return head + (
        f"Written by `python -m bench.{name}`, seed {measured['seed']}, {measured['took_s']} s in all: {how} "
        f"Machine: {facts}. Generator, relay and nodes share the cores.\n\n"
    )


def save(name: str, measured: dict[str, Any], judged: Sequence[Verdict], text: str, directory: Path) -> None:
    """Write NAME.json and NAME.md."""
    directory.mkdir(parents=True, exist_ok=True)
    verdicts = [
        {**asdict(one), "target_met": one.reaches(one.target), "aim_met": one.reaches(one.aim)} for one in judged
    ]
    (directory / f"{name}.json").write_text(json.dumps(measured | {"verdicts": verdicts}, indent=1) + "\n")
    (directory / f"{name}.md").write_text(text)
    print(f"\n{text}\nwritten: {name}.json and {name}.md; {measured['took_s']} s")


def _version(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "missing"
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout)
    return found.group() if found else "unknown"


def machine() -> dict[str, str]:
    """Return what a reader must know of this machine, and nothing that names it."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": model.group(1).strip() if model else platform.machine(),
        "Linux": platform.release().split("-")[0],
        "Python": platform.python_version(),
        "uvloop": _distribution("uvloop"),
        "HAProxy": _version(["env", f"PATH={path}", "haproxy", "-v"]),
        "gcc": _version(["gcc", "--version"]),
    }


def _distribution(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"
