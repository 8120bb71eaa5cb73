"""How a pair looks to a person: whether it would survive losing a machine, what is wrong, then who has what.

Words carry the meaning, colour only repeats it; every line may be folded, none is cut.
"""

from collections.abc import Iterator
from datetime import datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from equipoise.cli.cluster_findings import Document, Finding, Survival, findings
from equipoise.cli.output import printable

_HEADLINE = {
    Survival.NO: ("WOULD NOT SURVIVE the loss of a machine", "bold red"),
    Survival.PERHAPS: ("MAY NOT SURVIVE the loss of a machine", "bold red"),
    Survival.YES: ("would survive the loss of either machine", "green"),
}
# RFC 5798 section 6.1: three adverts may be missing, and up to one more passes as the skew of the priority.
_ADVERTS_MISSED = 3
_CLOCK_OFF_S = 1.0  # IHE Consistent Time: what the clocks of a site may differ by
_UNITS = (("day", 86400, 172800), ("hour", 3600, 7200), ("minute", 60, 120))  # a unit, its seconds, used from


def view(document: Document, now_s: float) -> RenderableType:
    """Return the whole picture; `now_s` is the wall clock, for ages."""
    found = findings(document)
    parts: list[RenderableType] = [_headline(document, found)]
    for number, finding in enumerate(found):
        if number:  # the first one is in the headline
            parts.append(Text(printable(finding.seen), style="yellow"))
        parts.append(Padding(Text(f"-> {printable(finding.do)}"), (0, 0, 0, 2)))
    if rows := list(_rows(document, now_s)):
        parts += [Text(), _table(rows)]
    return Group(*parts)


def how_long(seconds: float) -> str:
    """Return a duration in words.

    >>> how_long(3 * 86400 + 5), how_long(90), how_long(1.2)
    ('3 days', '90 seconds', '1 second')
    """
    for unit, size_s, from_s in _UNITS:
        if seconds >= from_s:
            return f"{int(seconds // size_s)} {unit}s"
    whole = max(0, int(seconds))
    return f"{whole} second{'' if whole == 1 else 's'}"


def _headline(document: Document, found: tuple[Finding, ...]) -> Text:
    said, style = _HEADLINE[found[0].survival if found else Survival.YES]
    line = Text.assemble((printable(document["site"] or "this machine"), "bold"), ": ", (said, style))
    if found:
        joint = ", but " if found[0].survival is Survival.YES else ": "
        line.append(f"{joint}{printable(found[0].seen)}")
    return line


def _table(rows: list[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column("what", no_wrap=True, style="dim")
    table.add_column("how it is", overflow="fold")
    for what, how in rows:
        table.add_row(what, Text(printable(how)))
    return table


def _rows(document: Document, now_s: float) -> Iterator[tuple[str, str]]:
    if invited := document["invitation"]:
        yield "invited", f"{invited['peer']}, for another {how_long(invited['expires_s'])}"
    if not document["configured"]:
        return
    for group in document["groups"]:
        yield "addresses", _holder(document, group, now_s)
    yield "here", _here(document)
    yield "peer", _peer(document, now_s)
    yield "document", _revision(document)
    yield "state", _lag(document)
    yield "failover", _failover(document, now_s)


def _holder(document: Document, group: Document, now_s: float) -> str:
    what = f"{', '.join(group['addresses'])} (at home on the {group['name']})"
    since = f" for {_ago(group['here_since'], now_s)}" if group["here_since"] else ""
    why = f": {group['reason']}" if group["reason"] else ""
    match group["holder"]:
        case "here":
            return f"{what}: here{since}{why}"
        case "peer":
            there = f", for {_ago(group['there_since'], now_s)}" if group["there_since"] else ""
            return f"{what}: on the peer, {document['peer']['address']}{there}{why}"
        case "both":
            return f"{what}: ON BOTH, here{since}{why}"
        case "nobody":
            return f"{what}: NOWHERE; here {group['here']}{since}{why}"
    if group["here"] == "backup":  # it would take them if it did not hear another machine have them
        return f"{what}: on another machine, not here{since}{why}"
    return f"{what}: not known where; here {group['here']}{since}{why}"


def _here(document: Document) -> str:
    silence_s = _ADVERTS_MISSED * document["advert_ms"] / 1000
    return (
        f"{document['address']}, the {document['role']}; the two hear each other on {document['interface']}, and one "
        f"takes over after some {silence_s:.2g} s of silence"
    )


def _peer(document: Document, now_s: float) -> str:
    peer = document["peer"]
    said = [f"{peer['address']}, the {peer['role']}" if peer["role"] else str(peer["address"])]
    if peer["version"]:
        said.append(f"version {peer['version']}")
    if peer["connected"]:
        said.append(f"connected for {_ago(peer['since'], now_s)}" if peer["since"] else "connected")
    elif peer["heard_s"] is not None:
        said.append(f"NOT CONNECTED, last heard {how_long(peer['heard_s'])} ago")
    else:
        said.append("NOT CONNECTED, never heard" if document["joined"] else "not joined")
    off_s = peer["clock_off_s"]
    if off_s is not None and abs(off_s) > _CLOCK_OFF_S:
        said.append(f"its clock is {how_long(abs(off_s))} {'ahead of' if off_s > 0 else 'behind'} ours")
    return ", ".join(said)


def _revision(document: Document) -> str:
    revision = document["revision"]
    ours, theirs = revision["ours"], revision["theirs"]
    match revision["relation"]:
        case "same":
            return f"revision {ours} on both"
        case "ahead":
            return f"revision {ours} here, {theirs} on the peer, which is to get ours"
        case "behind":
            return f"revision {ours} here, {theirs} on the peer, which we are to get"
        case "conflict":
            return f"CONFLICT: revision {ours} here, {theirs} on the peer"
    return f"revision {ours} here, not known on the peer"


def _lag(document: Document) -> str:
    lag = document["lag"]
    overrides = {"same": "overrides are the same", "differ": "overrides DIFFER"}.get(lag["overrides"])
    if lag["pending"]:
        behind = f", {lag['behind_s']:.1f} s behind" if lag["behind_s"] else ""
        said = f"{lag['pending']} entries of persistence and flows on their way to the peer{behind}"
    elif document["peer"]["connected"]:
        said = "persistence and flows have reached the peer"
    else:
        said = "persistence and flows do not reach the peer"
    return f"{said}; {overrides or 'whether overrides are the same is not known'}"


def _failover(document: Document, now_s: float) -> str:
    last = document["last_failover"]
    if last is None:
        return "none that this machine remembers"
    where = "came here" if last["to"] == "here" else "went to the peer"
    return (
        f"{_ago(last['at'], now_s)} ago ({_local(last['at'])}): addresses of the {last['group']} {where}: "
        f"{last['reason']}"
    )


def _ago(at: str, now_s: float) -> str:
    return how_long(now_s - datetime.fromisoformat(at).timestamp())


def _local(at: str) -> str:
    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
