"""What `bench.layer4` says: targets, and the page.  Leaves out how it is measured."""

from statistics import median
from typing import Any

from bench import report
from bench.contenders import DIRECT, TUNED
from bench.layer4_contenders import CONNECTIONS, DR, FULL, LEAST, LOADS, RETRIEVAL, ROUTED, TRANSLATED, Load

Measured = dict[str, Any]

CROSSED_PERCENT, CORE_PERCENT, CHANGE_MS = 2, 5, 50
NO_LOSS = 0.95  # what two runs of the same thing differ by on a quiet machine
# What is compared with what: the load, ours, theirs, at least.
RATIOS: tuple[tuple[Load, str, str, float], ...] = (
    (RETRIEVAL, DR, DIRECT, 0.95),
    (RETRIEVAL, DR, TUNED, 2.0),
    (RETRIEVAL, TRANSLATED, ROUTED, 0.85),
    (CONNECTIONS, DR, DIRECT, 0.7),
    (CONNECTIONS, DR, TUNED, 1.3),
    (RETRIEVAL, FULL, LEAST, NO_LOSS),
    (CONNECTIONS, FULL, LEAST, NO_LOSS),
)
_OVER = (DIRECT, ROUTED, TUNED, LEAST)
_CHANGES = {
    "engine": "100 nodes: Layer4Engine.set_nodes, called and returned",
    "api": "100 nodes: an operator's word, asked of the API and answered",
    "full": "the same with two nodes and the full map",
}


def verdicts(measured: Measured) -> list[report.Verdict]:
    """Return the targets with what was measured."""
    rows, took_ms = measured["rows"], measured["changes_ms"]
    found = [
        report.Verdict(
            f"{load.name}: {ours} over {theirs}",
            report.ratio(rows, load.name, load.key, theirs, ours),
            "x",
            at_least,
            None,
            False,
        )
        for load, ours, theirs, at_least in RATIOS
    ]
    crossed = report.values(rows, RETRIEVAL.name, DR, "crossed_%")
    core = next((row["core_%"] for row in measured["observed"] if row["contender"] == FULL), None)
    return [
        *found,
        _at_most(
            "of the bytes that a retrieval delivers, cross the balancer in dr",
            median(crossed) if crossed else None,
            "%",
            CROSSED_PERCENT,
        ),
        _at_most(f"looking at {measured['flows']} flows, of a core", core, "%", CORE_PERCENT),
        *(_at_most(f"{_CHANGES[how]}, median", median(took_ms[how]), "ms", CHANGE_MS) for how in ("engine", "api")),
    ]


def _at_most(what: str, value: float | None, unit: str, limit: float) -> report.Verdict:
    return report.Verdict(what, value, unit, limit, None, True)


def page(measured: Measured) -> str:
    """Return the results as Markdown."""
    effort = measured["effort"]
    how = (
        f"{effort['rounds']} rounds of {effort['seconds']:g} s for each contender and load (storage: a quarter of it), "
        "interleaved. Figures are medians over the rounds with their range, and so are ratios, each within a round. "
        "Client, balancers and nodes are network namespaces on one machine, joined by veth and bridges."
    )
    rows = measured["rows"]
    parts = {
        "Targets": report.verdict_table(verdicts(measured)),
        "The contenders": _contender_text(measured),
        **{f"{load.name[0].upper()}{load.name[1:]}, {load.unit}": _speed_table(measured, load) for load in LOADS},
        "What crosses the balancer's cables, per cent of what is delivered": _crossed_table(measured),
        "Looking at flows": _observed_table(measured),
        "How long a change of a node's state takes": _change_table(measured),
        "Where the time goes: cores kept busy, median": _share_table(rows),
    }
    head = report.opening("layer4", "Layer 4: speed", measured, how)
    return head + "\n".join(f"## {title}\n\n{body}" for title, body in parts.items())


def _contender_text(measured: Measured) -> str:
    flows = report.number(measured["flows"], 0)
    said = {
        DIRECT: "no balancer: the client knows both nodes and takes them in turn",
        DR: "`l4_dr`, round robin",
        LEAST: "`l4_dr`, least connections: the supervisor looks at live flows",
        FULL: f"the same with {flows} more flows, which are idle",
        TUNED: "HAProxy in mode tcp, 256 KiB buffers",
        "nginx": "nginx with its stream module, 256 KiB buffers",
        ROUTED: "no balancer: a router between client and nodes",
        TRANSLATED: "`l4_nat` on a router's place, round robin",
    }
    return report.table(["name", "what"], ([name, said[name]] for name in measured["contenders"]))


def _ratios(rows: report.Rows, load: Load, ours: str, theirs: str) -> str:
    if ours == theirs:
        return "-"
    pairs = zip(*(_by_round(rows, load, name) for name in (ours, theirs)), strict=False)
    return report.spread([a / b for a, b in pairs if b], 2)


def _by_round(rows: report.Rows, load: Load, name: str) -> list[float]:
    return report.values(rows, load.name, name, load.key)


def _speed_table(measured: Measured, load: Load) -> str:
    rows, names = measured["rows"], measured["contenders"]
    others = [name for name in _OVER if name in names]
    lines = (
        [name, report.spread(_by_round(rows, load, name), 0), *(_ratios(rows, load, name, other) for other in others)]
        for name in names
    )
    return report.table(["contender", "median (range)", *(f"over {name}" for name in others)], lines)


def _crossed_table(measured: Measured) -> str:
    names = [name for name in measured["contenders"] if name != DIRECT]
    lines = [
        [
            load.name,
            *(report.spread(report.values(measured["rows"], load.name, name, "crossed_%"), 2) for name in names),
        ]
        for load in LOADS
        if load.key == "mb_per_s"
    ]
    note = "\nReceived and sent are both counted, with headers: what a proxy or router carries is counted twice.\n"
    return report.table(["load", *names], lines) + note


def _observed_table(measured: Measured) -> str:
    lines = [
        [row["contender"], report.number(row["flows"], 0), report.number(row["cpu_s"]), report.number(row["core_%"])]
        for row in measured["observed"]
    ]
    note = (
        f"\nCPU time of the supervisor in {measured['effort']['observe_s']:g} s without traffic, all threads, the "
        "kernel's part in it. Beside looking at flows it checks two nodes every 5 s.\n"
    )
    return report.table(["contender", "flows", "CPU seconds", "per cent of a core"], lines) + note


def _change_table(measured: Measured) -> str:
    lines = [
        [_CHANGES[how], str(len(found)), report.spread(found, 1)]
        for how, found in measured["changes_ms"].items()
        if found
    ]
    note = "\nEach change of the engine is looked up in the kernel after it was timed.\n"
    return report.table(["what", "changes", "ms"], lines) + note


def _share_table(rows: report.Rows) -> str:
    kinds = ("generator", "relay", "supervisor", "sink", "machine")
    lines = []
    for load, name in dict.fromkeys((row["load"], row["contender"]) for row in rows):
        own = [row for row in rows if row["load"] == load and row["contender"] == name]
        shares = (median(row[f"{kind}_cpu_s"] / max(row["seconds"], 1e-6) for row in own) for kind in kinds)
        per_gb = median(1e9 * row["machine_cpu_s"] / row["bytes"] if row["bytes"] else 0.0 for row in own)
        lines.append([load, name, *map(report.number, shares), report.number(per_gb) if per_gb else "-"])
    note = (
        "\nThe kernel forwards packets in the name of whoever is running, so what layer 4 needs is in the column "
        "of the whole machine, with everything else that runs on it.\n"
    )
    heads = ["load", "contender", "generator", "relay", "supervisor", "nodes", "whole machine", "CPU seconds a GB"]
    return report.table(heads, lines) + note
