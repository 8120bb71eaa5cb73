"""How `status` looks to a person: what is wrong and what to do about it first, then every service with its nodes.

Words carry the meaning, colour only repeats it, so pipes and NO_COLOR lose nothing.  Reasons are folded, never cut.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from equipoise.base.units import format_days, format_size
from equipoise.cli.output import printable
from equipoise.config.fields import split_port
from equipoise.state.events import EXPIRING_DAYS

_STYLE = {
    "up": "green",
    "degraded": "yellow",
    "waiting": "yellow",
    "drain": "yellow",
    "disabled": "yellow",
    "down": "red",
}
_NOT_BY_HAND = ("all_of", "script")  # what they ask is a list or a program of the site's: one line cannot say it
_WORST_FIRST = ("down", "waiting", "degraded", "up")
_NOT_A_CODE = {  # of HL7: what stands in the place of an acknowledgement's code
    "answered": "answered without a code",
    "committed": "committed",
    "none": "that asked for no answer",
    "no_node": "rejected, for no receiver took work",
    "full": "rejected, for receivers were full",
    "closed": "not answered (the sender's connection was closed)",
}

Document = dict[str, Any]


def view(document: Document, now_s: float) -> RenderableType:
    """Return the whole picture; `now_s` is the wall clock, for ages."""
    services = sorted(document["services"].items(), key=lambda item: _rank(item[1]["state"]))
    wrong = [line for name, service in services for line in _wrong(name, service, now_s)]
    parts: list[RenderableType] = [_headline(document), *wrong]
    for name, service in services:
        parts += [Text(), _service_line(name, service)]
        if said := _messages(service.get("messages", {})):
            parts.append(Padding(Text(printable(said)), (0, 0, 0, 2)))
        parts.append(Padding(_node_table(service, now_s), (0, 0, 0, 2)))
    return Group(*parts)


def outdated(reason: str, last: RenderableType | None) -> RenderableType:
    """Return what was seen last under a line that says why there is nothing newer."""
    notice = Text(f"NO SUPERVISOR: {printable(reason)}", style="bold red")
    if last is None:
        return notice
    return Group(notice, Text("The engines go on with what they were given.  What was seen last:"), Text(), last)


def _rank(state: str) -> int:
    return _WORST_FIRST.index(state) if state in _WORST_FIRST else 0


def _headline(document: Document) -> Text:
    services = document["services"].values()
    troubled = sum(service["state"] != "up" for service in services)
    said = f"{troubled} of {len(services)} services in trouble" if troubled else f"all {len(services)} services up"
    if len(services) == 1:
        said = "its service is in trouble" if troubled else "its service is up"
    there = sum(bool(service.get("at_peer")) for service in services)
    if there:
        said += ", at the peer" if there == len(services) else f", {there} of them at the peer"
    return Text.assemble(
        (printable(document["site"]), "bold"),
        f", plan {document['plan']}: ",
        (said, "bold red" if troubled else "green"),
    )


def _wrong(name: str, service: Document, now_s: float) -> Iterator[Text]:
    """Yield a line for each thing that is wrong, with what to do."""
    if service["state"] != "up":
        yield Text.assemble(
            (f"{printable(name)} is {service['state'].upper()}", f"bold {_STYLE.get(service['state'], 'red')}"),
            f": {printable(_why(service))}",
        )
    for key, file in service.get("tls", {}).items():
        if (said := _certificate_trouble(file, now_s)) is not None:
            yield Text(f"  {printable(f'{name} {key}: {said}')}", style="yellow")
    for node_name, node in service["nodes"].items():
        for said in _node_trouble(f"{name}/{node_name}", service, node, now_s):
            yield Text(f"  {printable(said)}")


def _certificate_trouble(file: Document, now_s: float) -> str | None:
    if file.get("problem"):
        return f"{file['problem']}"
    if file["days_left"] is None or file["days_left"] >= EXPIRING_DAYS:
        return None
    left_s = datetime.fromisoformat(file["not_after"]).timestamp() - now_s  # `days_left` is rounded down
    when = f"ended {format_days(left_s)} ago" if left_s <= 0 else f"ends in {format_days(left_s)}"
    return f"the certificate {when} ({file['path']}); have it renewed and put in its place, it is taken up by itself"


def _why(service: Document) -> str:
    if reason := service.get("reason"):
        return str(reason)
    if service["state"] == "waiting":
        return "an address of it is not on this machine; add it there, or correct `listen`"
    working = sum(node["state"] == "up" for node in service["nodes"].values())
    return f"{working} of {len(service['nodes'])} nodes take work"


def _node_trouble(key: str, service: Document, node: Document, now_s: float) -> Iterator[str]:
    if node.get("rested"):
        yield f"{key} is rested for failures in its traffic: {node['rested']}"
    if node["state"] in {"drain", "disabled"}:
        word = "drained" if node["state"] == "drain" else "disabled"
        yield f"{key} was {word} by an operator; `equipoise node enable {key}` takes that back"
    if node["state"] != "down":
        return
    check = node["check"]
    if refused := node.get("refused"):
        yield f"{key} is refused by HAProxy's own check: {refused}"
        if check is not None and check["ok"]:
            return
    if check is None:
        yield f"{key} ({node['address']}) is down: not checked yet, or its name does not resolve"
    elif check["ok"]:
        yield f"{key} is down: its last check passed, it is up again after a few more"
    else:
        yield f"{key} is down: {check['reason']} ({_age(check['at'], now_s)} ago)"
        yield from _way_out(service, node, check)


def _way_out(service: Document, node: Document, check: Document) -> Iterator[str]:
    """Yield what to do about a check that failed."""
    steps = []
    if "this balancer" not in check["reason"]:  # else the reason says what to do here, and the node may be well
        steps.append("look whether it runs")
    if check["name"] not in _NOT_BY_HAND:
        probe = f"`equipoise probe {check['name']} {_target(service, node)}`"
        steps.append(f"ask it by hand, with the settings under health: {probe}")
    if steps:
        yield f"  {', then '.join(steps)}"


def _target(service: Document, node: Document) -> str:
    """Return HOST:PORT of a node; one without a port has the port that the service listens on."""
    if split_port(node["address"])[1] is not None:
        return str(node["address"])
    host = f"[{node['address']}]" if ":" in node["address"] else node["address"]
    port = service["listen"][0].rpartition(":")[2] if service["listen"] else "PORT"  # behind routes only clients know
    return f"{host}:{port}"


def _service_line(name: str, service: Document) -> Text:
    state = service["state"]
    return Text.assemble(
        (printable(name), "bold"),
        f"  {service['protocol']}  {', '.join(service['listen']) or 'by routes'}  ",
        (state.upper() if state != "up" else "up", f"bold {_STYLE.get(state, 'red')}"),
        _where(service),
        f"  {service['connections']} open",
    )


def _where(service: Document) -> str:
    """Return that the peer of a pair serves it now, where it does: its state here is what it would be here."""
    there = service.get("at_peer", [])
    if not there:
        return ""
    hosts = {split_port(each)[0] for each in service["listen"]}
    return "  at the peer" if hosts <= set(there) else f"  {', '.join(there)} at the peer"


def _messages(messages: Document) -> str:
    """Return what became of the messages that a service read, in words; nothing where there were none."""
    now = _counted({"under way": messages.get("in_flight", 0), "held": messages.get("held", 0)})
    parts = [_answers(messages.get("by_type", {})), now, _counted({"sent again": messages.get("resent", 0)})]
    if failed := _counted(messages.get("receivers_closed", {})):
        parts.append(f"receivers failed: {failed}")
    parts.append(_latency(messages.get("latency_ms", {})))
    said = "; ".join(filter(None, parts))
    return f"messages: {said}" if said else ""


def _answers(by_type: Document) -> str:
    """Return how many messages were answered in which way, of all types together, the most frequent first."""
    counts: dict[str, int] = {}
    for answers in by_type.values():
        for answer, count in answers.items():
            counts[answer] = counts.get(answer, 0) + count
    ordered = sorted(counts.items(), key=lambda item: (item[0] in _NOT_A_CODE, -item[1], item[0]))
    return _counted({_NOT_A_CODE.get(answer, f"answered {answer}"): count for answer, count in ordered})


def _counted(counts: Document) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def _latency(latency: Document) -> str:
    if not latency.get("count"):
        return ""
    if latency["p50"] is None:
        return "half took longer than is measured"
    if latency["p50"] == latency["p99"]:
        return f"99 % answered within {_duration(latency['p99'])}"
    late = "" if latency["p99"] is None else f", 99 % within {_duration(latency['p99'])}"
    return f"half answered within {_duration(latency['p50'])}{late}"


def _duration(milliseconds: float) -> str:
    return f"{milliseconds:g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:g} s"


def _node_table(service: Document, now_s: float) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("node", overflow="fold")
    table.add_column("address", overflow="fold")
    table.add_column("state", no_wrap=True)
    for heading in ("weight", "open", "in", "out"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("check", overflow="fold")
    for name, node in service["nodes"].items():
        table.add_row(
            Text(printable(name)),
            Text(printable(node["address"])),
            _state_text(node),
            str(node["weight"]),
            str(node["connections"]),
            format_size(node["bytes_in"]),
            format_size(node["bytes_out"]),
            _check_text(node["check"], now_s),
        )
    return table


def _state_text(node: Document) -> Text:
    if node["state"] == "up" and node.get("rested"):
        return Text("up, rested", style="yellow")
    return Text(node["state"], style=_STYLE.get(node["state"], "red"))


def _check_text(check: Document | None, now_s: float) -> Text:
    if check is None:
        return Text("not checked yet", style="dim")
    said = f"{check['name']} {'passed' if check['ok'] else 'FAILED'} {_age(check['at'], now_s)} ago: {check['reason']}"
    return Text(printable(said), style="" if check["ok"] else "red")


def _age(at: str, now_s: float) -> str:
    """Return how long ago a time in RFC 3339 is: `4 s`, `12 min`, `3 h`, `2 d`."""
    seconds = max(0, int(now_s - datetime.fromisoformat(at).timestamp()))
    for unit, size_s, from_s in (("d", 86400, 172800), ("h", 3600, 7200), ("min", 60, 120)):
        if seconds >= from_s:
            return f"{seconds // size_s} {unit}"
    return f"{seconds} s"
