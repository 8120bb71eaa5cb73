"""What `bench.hl7` asks and what it says: loads, targets, and the page.  Leaves out how it is measured."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from bench import report
from bench.contenders import DIRECT, GATEWAY, STOCK
from bench.hl7_contenders import BY_MESSAGE
from bench.hl7_load import Hl7Load
from bench.hl7_scenes import EIGHT, MODERATE, SERIAL_MS, SETTLE_S

LOADS = tuple(Hl7Load(f"{size} kB x {senders}", senders, size * 1_000) for size in (1, 16) for senders in (1, 10, 100))
TLS = Hl7Load("TLS both ways: 1 kB x 10", 10, 1_000)
ONE, BY_KEY = "1 kB x 1", "1 kB x 10"
AT_LEAST_PER_S = {ONE: 4_500, BY_KEY: 12_000, "1 kB x 100": 12_000}
RATIO, RATIO_AIM = 0.5, 0.8
SLOWER_MS, DELAYED_MS, RETURN_RATIO = 0.15, 20, 2.5

Measured = dict[str, Any]


def median_per_s(rows: report.Rows, load: str, contender: str) -> float:
    """Return messages a second, the median of the rounds."""
    return report.median_of(rows, load, contender, "per_s")


def say_return(row: dict[str, Any]) -> str:
    """Say for the terminal what was delivered."""
    return f"{row['contender']} {row['after_per_s']:.0f}"


def verdicts(measured: Measured) -> list[report.Verdict]:
    """Return the targets with what was measured."""
    return [*_speed_verdicts(measured["rows"]), *_scene_verdicts(measured)]


def _speed_verdicts(rows: report.Rows) -> list[report.Verdict]:
    served = {row["contender"] for row in rows}
    found = [
        report.Verdict(
            f"{load}: messages a second",
            median_per_s(rows, load, GATEWAY) if GATEWAY in served else None,
            "a second",
            at_least,
            None,
            False,
        )
        for load, at_least in AT_LEAST_PER_S.items()
    ]
    for load in LOADS:
        ratio = report.ratio(rows, load.name, "per_s", STOCK)
        found.append(report.Verdict(f"{load.name}: over {STOCK}", ratio, "x", RATIO, RATIO_AIM, False))
    ours, theirs = (report.values(rows, ONE, name, "p50_ms") for name in (GATEWAY, STOCK))
    slower = [a - b for a, b in zip(ours, theirs, strict=False)]
    what = f"{ONE}: median latency above that of {STOCK}"
    return [*found, report.Verdict(what, median(slower) if slower else None, "ms", SLOWER_MS, None, True)]


def _scene_verdicts(measured: Measured) -> list[report.Verdict]:
    delayed = delays_ms(measured["large"], GATEWAY)
    found = [
        report.Verdict(
            "100 MB beside others: by how much it delays their slowest of a hundred",
            median(delayed) if delayed else None,
            "ms",
            DELAYED_MS,
            None,
            True,
        )
    ]
    for name in (GATEWAY, BY_MESSAGE):
        ratios = return_ratios(measured["returns"], name)
        what = f"serial receivers have returned: {name} over {STOCK}"
        found.append(report.Verdict(what, median(ratios) if ratios else None, "x", RETURN_RATIO, None, False))
    return found


def delays_ms(rows: report.Rows, contender: str) -> list[float]:
    """Return, round by round, how much longer the slowest of a hundred took with 100 MB beside it."""
    slowest = {(row["round"], row["beside"]): row["p99_ms"] for row in rows if row["contender"] == contender}
    return [slowest[number, True] - slowest[number, False] for number, beside in slowest if beside]


def return_ratios(rows: report.Rows, contender: str) -> list[float]:
    """Return, round by round, what was delivered after the return, over what HAProxy delivered."""
    found = {(row["round"], row["contender"]): row["after_per_s"] for row in rows}
    return [
        found[number, contender] / theirs
        for (number, name), theirs in found.items()
        if name == STOCK and theirs and (number, contender) in found
    ]


def page(measured: Measured) -> str:
    """Return the results as Markdown."""
    effort = measured["effort"]
    how = (
        f"{effort['rounds']} rounds of {effort['seconds']:g} s for each contender and load, interleaved. Figures are "
        "medians over the rounds with their range; ratios are medians of the ratios within a round. A load is the size "
        "of its messages and the number of senders, each of which has one message in flight and matches every "
        f"acknowledgement. {GATEWAY} is our default, `key: connection`."
    )
    rows, loads = measured["rows"], measured["loads"]

    def speeds(key: str, digits: int, names: Sequence[str] = loads) -> str:
        return report.contender_table(measured, rows, names, key, digits)

    parts = {
        "Targets": report.verdict_table(verdicts(measured)),
        "Messages a second": speeds("per_s", 0),
        "Time of a message, ms: median": speeds("p50_ms", 3),
        "Time of a message, ms: the slowest of a hundred": speeds("p99_ms", 2),
        "CPU seconds of the relay for 10 000 messages": speeds("relay_cpu_s_per_10k", 3),
        f"100 MB beside {MODERATE.name}": _large_table(measured["large"]),
        f"{EIGHT.name}, of which three are killed and return": _return_table(measured),
        "Messages a second in each second after the return": _second_table(measured["returns"]),
        "Where the time goes: cores kept busy, median": report.share_table(rows),
    }
    head = report.opening("hl7", "HL7: speed", measured, how)
    return head + "\n".join(f"## {title}\n\n{body}" for title, body in parts.items())


def _large_table(rows: report.Rows) -> str:
    heads = ["contender", "slowest of a hundred without, ms", "with, ms", "slower by, ms", "slowest with, ms"]
    heads += ["messages of 100 MB", "time of one, ms", "RSS before, MB", "RSS grew to, MB"]
    lines = []
    for name in dict.fromkeys(row["contender"] for row in rows):
        own = [row for row in rows if row["contender"] == name]
        beside = [row for row in own if row["beside"]]
        without = report.spread([row["p99_ms"] for row in own if not row["beside"]], 2)
        delayed = [report.spread([row["p99_ms"] for row in beside], 2), report.spread(delays_ms(rows, name), 2)]
        slowest = report.number(max(row["max_ms"] for row in beside), 1)
        large = [str(sum(row["large"] for row in beside)), report.spread([row["large_ms"] for row in beside], 0)]
        lines.append([name, without, *delayed, slowest, *large, *_memory(name, beside)])
    note = (
        "\nOne sender sends 100 MB after 100 MB meanwhile. Times run from when a message was due. Memory is that of "
        "all processes that carry traffic, before the first large message and at its peak.\n"
    )
    return report.table(heads, lines) + note


def _memory(name: str, beside: report.Rows) -> list[str]:
    if name == DIRECT:
        return ["-", "-"]
    return [
        report.number(beside[0]["rss_before"] / 1e6, 1),
        report.number(max(row["rss_peak"] for row in beside) / 1e6, 1),
    ]


def _return_table(measured: Measured) -> str:
    rows, after = measured["returns"], measured["effort"]["after"]
    heads = ["contender", "before, a second", "with one left", "after the return", f"over {STOCK}"]
    heads += ["failed until the return", "failed after it"]
    lines = []
    for name in dict.fromkeys(row["contender"] for row in rows):
        own = [row for row in rows if row["contender"] == name]
        speeds = [report.spread([row[key] for row in own], 0) for key in ("before_per_s", "down_per_s", "after_per_s")]
        failed = [str(sum(row[key] for row in own)) for key in ("failed_meanwhile", "failed_after")]
        lines.append([name, *speeds, report.spread(return_ratios(rows, name), 2), *failed])
    note = (
        f"\nEach receiver works off one message at a time and takes {SERIAL_MS} ms: four could do {4000 // SERIAL_MS} "
        f"a second. Three are killed, and start again after {after['down_s']:g} s; counted is from {SETTLE_S:g} s "
        f"after that, for {after['counted_s']:g} s. Checks are by TCP on all sides, every second, and two good ones "
        "bring a receiver back. `slow_start` is our default (30 s) but where it says otherwise; HAProxy has none. What "
        "failed are messages that a sender saw no acknowledgement for: it opens a new connection then.\n"
    )
    return report.table(heads, lines) + note


def _second_table(rows: report.Rows) -> str:
    seconds = min((len(row["after_by_second"]) for row in rows), default=0)
    lines = []
    for name in dict.fromkeys(row["contender"] for row in rows):
        own = [row["after_by_second"] for row in rows if row["contender"] == name]
        lines.append([name, *(report.number(median(one[second] for one in own), 0) for second in range(seconds))])
    return report.table(["contender", *(str(second + 1) for second in range(seconds))], lines)
