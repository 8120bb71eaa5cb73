"""What `bench.pair` says: targets, and the page.  Leaves out how it is measured."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median
from typing import Any

from bench import report
from bench.pair_machines import DR, EVERY_S, GATEWAY, LINK_MBIT, PLAIN, SNAT
from bench.pair_scenes import API, COMMAND, LINK, POWER
from bench.pair_soft import CALLED, HAPROXY, KERNEL, PUSHED, WITHIN_S

Measured = dict[str, Any]
Rows = Sequence[dict[str, Any]]

ADVERTS_MS = (200, 100)
BACK_S = {200: 1.0, 100: 0.6}
RESUMED_S = {200: 1.8, 100: 0.9}
HANDED_MS, KNOWN_S = 200, 1.0
_SHARE = 0.95
_WAY_NAMES = {
    SNAT: "`l7_snat` (HAProxy)",
    DR: "`l4_dr`",
    GATEWAY: "`l7_snat` (gateway, DICOM)",
    PLAIN: "keepalived by hand",
}
_WHERE = {
    KERNEL: "`l4_dr`, the map of clients in the kernel",
    HAPROXY: "HAProxy's stick table",
    PUSHED: "gateway's table, pushed",
    CALLED: "gateway's table",
}
_FROM = {
    KERNEL: "real first packets, all at once, which nobody answers; from the last one on",
    HAPROXY: "real clients; from the last one's answer on",
    PUSHED: "no clients: the entries are said over the pair's link, in the active machine's name",
    CALLED: "real associations; from the last one's answer on",
}


def high(values: Sequence[float]) -> float | None:
    """Return the 95th percentile by nearest rank: of 20 values the last but one."""
    return sorted(values)[math.ceil(_SHARE * len(values)) - 1] if values else None


def errors(measured: Measured) -> list[str]:
    """Return what makes a run worth nothing: a comparison that compares nothing, a download that nobody finished."""
    found = []
    for row in measured["rows"]:
        name = f"{row['kind']}, {row['advert_ms']} ms, run {row['run']}"
        found += [f"{name}: {way}: nobody came" for way, seen in row["seen"].items() if not seen["attempts"]]
        found += [f"{name}: a download failed: {each['failure']}" for each in row.get("downloads", ()) if _cut(each)]
    return found


def _cut(download: dict[str, Any]) -> bool:
    return bool(download["failure"]) and not download["reset"]  # a reset is counted, and has a target of its own


def of(measured: Measured, kind: str, advert_ms: int | None = None, how: str | None = None) -> Rows:
    """Return the rows of one kind."""
    rows = (row for row in measured["rows"] if row["kind"] == kind and row.get("how") == how)
    return [row for row in rows if advert_ms is None or row["advert_ms"] == advert_ms]


def seen(rows: Rows, way: str, key: str) -> list[float]:
    """Return what clients of one way saw, run by run."""
    return [row["seen"][way][key] for row in rows]


def failed(rows: Rows, *ways: str) -> int:
    """Return how many attempts failed."""
    return sum(sum(row["seen"][way]["failed"].values()) for row in rows for way in ways)


def downloads(rows: Rows) -> list[dict[str, Any]]:
    """Return all downloads."""
    return [each for row in rows for each in row["downloads"]]


def known(measured: Measured, where: str) -> list[float]:
    """Return how long it took until the other machine knew all clients, run by run."""
    return [row["took_s"] for row in measured["soft"] if row["where"] == where]


def verdicts(measured: Measured) -> list[report.Verdict]:
    """Return the targets with what was measured."""
    return [*_losses(measured), *_handover(measured), *_downloads(measured), *_soft(measured)]


def _losses(measured: Measured) -> Iterator[report.Verdict]:
    for kind in (LINK, POWER):
        for advert_ms, limit_s in BACK_S.items():
            for way in (SNAT, DR):
                backs = seen(of(measured, kind, advert_ms), way, "back_s")
                what = f"{kind} loss, {advert_ms} ms: {_WAY_NAMES[way]} is back, 95 %"
                yield _at_most(what, high(backs), "s", limit_s)


def _handover(measured: Measured) -> Iterator[report.Verdict]:
    rows = of(measured, "handover", how=API)
    held_ms = [row["address_s"] * 1000 for row in rows]
    yield _at_most("handover: the peer has the address, 95 %", high(held_ms), "ms", HANDED_MS)
    both = [*rows, *of(measured, "handover", how=COMMAND)]
    for way in (SNAT, DR, GATEWAY):
        what = f"handover: {_WAY_NAMES[way]}: connections that failed, in all"
        yield _at_most(what, failed(both, way) if both else None, "", 0)


def _downloads(measured: Measured) -> Iterator[report.Verdict]:
    found = []
    for advert_ms, limit_s in RESUMED_S.items():
        these = downloads(of(measured, POWER, advert_ms))
        found += these
        resumed = [each["resumed_s"] for each in these]
        yield _at_most(f"`l4_dr` download, {advert_ms} ms: goes on after power loss, 95 %", high(resumed), "s", limit_s)
    for key, what in (("wrong_bytes", "bytes that are wrong"), ("reset", "resets")):
        yield _at_most(f"`l4_dr` downloads: {what}", sum(each[key] for each in found) if found else None, "", 0)


def _soft(measured: Measured) -> Iterator[report.Verdict]:
    for where, name in _WHERE.items():
        took_s = known(measured, where)
        share = "95 %" if where != CALLED else "slowest"
        yield _at_most(f"{measured['effort']['entries']} clients: {name}, {share}", high(took_s), "s", KNOWN_S)


def _at_most(what: str, value: float | None, unit: str, limit: float) -> report.Verdict:
    return report.Verdict(what, value, unit, limit, None, True)


def page(measured: Measured) -> str:
    """Return the results as Markdown."""
    runs = measured["effort"]["runs"]
    how = (
        f"{runs} runs of each, in which the two machines take turns. p95 is the 95th percentile by nearest rank: of 20 "
        "runs the last but one. Client, router, balancers and nodes are network namespaces on one machine, joined by "
        "veth and bridges; a cable that is pulled is noticed at once at its end, which real ones take longer for."
    )
    head = report.opening("pair", "A pair that fails over: what users see", measured, how)
    parts: dict[str, Callable[[Measured], str]] = {
        "Targets": lambda measured: report.verdict_table(verdicts(measured)),
        "Link loss: the active machine's cable is pulled": lambda measured: _loss_text(measured, LINK),
        "Power loss: cables pulled and every process killed": lambda measured: _loss_text(measured, POWER),
        "Beside keepalived by hand": _ratio_text,
        "Handover on request": _handover_text,
        "Downloads across power loss": _download_text,
        "How soon the peer knows clients": _soft_text,
    }
    return head + "\n".join(f"## {title}\n\n{body(measured)}" for title, body in parts.items())


def _three(values: Sequence[float], digits: int = 2) -> list[str]:
    """Return median, 95th percentile and maximum."""
    if not values:
        return ["-", "-", "-"]
    return [report.number(each, digits) for each in (median(values), high(values), max(values))]


def _heads(*names: str) -> list[str]:
    return [f"{name}, {which}" for name in names for which in ("p50", "p95", "max")]


def _failures(rows: Rows, way: str) -> str:
    """Return how many attempts failed, by the way they did."""
    counted: dict[str, int] = {}
    for row in rows:
        for name, count in row["seen"][way]["failed"].items():
            counted[name] = counted.get(name, 0) + count
    attempts = report.number(sum(row["seen"][way]["attempts"] for row in rows), 0)
    return f"{', '.join(f'{count} {name}' for name, count in counted.items()) or '0'} of {attempts}"


def _loss_text(measured: Measured, kind: str) -> str:
    lines = [
        [
            f"{advert_ms} ms",
            _WAY_NAMES[way],
            *_three(seen(rows, way, "back_s")),
            *_three(seen(rows, way, "gap_s")),
            _failures(rows, way),
        ]
        for advert_ms in ADVERTS_MS
        if (rows := of(measured, kind, advert_ms))
        for way in (SNAT, DR, PLAIN)
    ]
    note = (
        f"\nSeconds. Clients connect every {EVERY_S * 1000:g} ms, whatever became of those before, ask and are "
        "answered. Back: from the moment before the cable is pulled to the first answer of a client that began to "
        "connect afterwards. Gap: the longest time in which nobody was answered. Failed are connections that were open "
        "when it happened; those of `l7_snat` end with their machine, and new ones only wait. The switch floods "
        "nothing to the two machines: where it does, the standby serves `l4_dr` at once, before it has the address.\n"
    )
    return report.table(["advert", "way", *_heads("back", "gap"), "failed"], lines) + note


def _ratio_text(measured: Measured) -> str:
    lines = [
        [f"{kind} loss", f"{advert_ms} ms", _WAY_NAMES[way], *(_ratio(rows, way, key) for key in ("back_s", "gap_s"))]
        for kind in (LINK, POWER)
        for advert_ms in ADVERTS_MS
        if (rows := of(measured, kind, advert_ms))
        for way in (SNAT, DR)
    ]
    note = (
        "\nRatios within a run, below 1 is sooner; median and range. keepalived by hand runs on the same two machines, "
        "with an address of its own and the same advertisement interval, and loses link and power in the same moments; "
        "behind it is a HAProxy (`keepalived/plain.conf`, `haproxy/pair_plain.cfg`). Its priorities are 150 and 100, "
        "as in most guides: that costs up to 0.6 of an interval, where Equipoise's 250 and 240 cost less than 0.1.\n"
    )
    return report.table(["what", "advert", "way", "back", "gap"], lines) + note


def _ratio(rows: Rows, way: str, key: str) -> str:
    pairs = zip(seen(rows, way, key), seen(rows, PLAIN, key), strict=True)
    return report.spread([ours / theirs for ours, theirs in pairs if theirs], 2)


def _handover_text(measured: Measured) -> str:
    lines = []
    for how, name in ((API, "API"), (COMMAND, "`equipoise cluster handover`")):
        rows = of(measured, "handover", how=how)
        for what, key in (("the peer has the address", "address_s"), ("it is answered", "answered_s")):
            lines.append([name, what, *_three([row[key] * 1000 for row in rows], 0)])
    ways = [
        [
            _WAY_NAMES[way],
            *_three([gap * 1000 for gap in seen(rows, way, "gap_s")], 0),
            *_three([took * 1000 for took in seen(rows, way, "slowest_s")], 0),
            _failures(rows, way),
        ]
        for rows in [[*of(measured, "handover", how=API), *of(measured, "handover", how=COMMAND)]]
        if rows
        for way in (SNAT, DR, GATEWAY)
    ]
    between = (
        "\nFrom the request on, in ms; the address is there when the peer's kernel says so. The command has to start "
        "Python first.\n\n"
    )
    note = (
        "\nIn ms, both ways of asking together. Gap: the longest time in which nobody was answered. Slowest: of the "
        "clients of a run the one that waited longest, from its first packet to its answer; a first packet that comes "
        "while the address moves is dropped, and TCP sends it again after 1 s.\n"
    )
    asked = report.table(["asked by", "until", "p50", "p95", "max"], lines)
    return asked + between + report.table(["way", *_heads("gap", "slowest"), "failed"], ways) + note


def _download_text(measured: Measured) -> str:
    lines = [
        [
            f"{advert_ms} ms",
            str(len(found)),
            *_three([each["resumed_s"] for each in found]),
            *_three([each["stall_s"] for each in found]),
            str(sum(each["wrong_bytes"] for each in found)),
            str(sum(each["reset"] for each in found)),
        ]
        for advert_ms in ADVERTS_MS
        if (found := downloads(of(measured, POWER, advert_ms)))
    ]
    note = (
        f"\nSeconds. Two downloads of 16 MiB in each run, from nodes with links of {LINK_MBIT} Mbit/s, each at least "
        "1 s old when it happens: what began half a second before may be unknown to the other machine, and is reset. "
        "Goes on: from power loss to the end of the longest pause between two pieces; what is on its way still "
        "arrives, and then the node has to send again, at times that TCP doubles.\n"
    )
    heads = ["advert", "downloads", *_heads("goes on", "pause"), "wrong bytes", "resets"]
    return report.table(heads, lines) + note


def _soft_text(measured: Measured) -> str:
    lines = [[_WHERE[where], _FROM[where], *_soft_line(measured, where)] for where in _WHERE]
    note = (
        f"\nSeconds until the last of {report.number(measured['effort']['entries'], 0)} entries is in the table of the "
        "other machine. All clients have addresses of their own. Real ones come as fast as they are served, and are "
        "told of while they come; `came` says for how long. A process that starts lies between the last answer and the "
        "first look, so what takes less than some 0.01 s is shown as that; what is not there after "
        f"{WITHIN_S:g} s counts as that. Each run begins with empty tables of HAProxy and the kernel; "
        "that those of the kernel were emptied, the machines have told each other before.\n"
    )
    return report.table(["table", "measured", "runs", "p50", "p95", "max", "came, s"], lines) + note


def _soft_line(measured: Measured, where: str) -> Iterable[str]:
    rows = [row for row in measured["soft"] if row["where"] == where]
    came = [row["came_s"] for row in rows if row["came_s"] is not None]
    return [str(len(rows)), *_three([row["took_s"] for row in rows]), report.spread(came, 1)]
