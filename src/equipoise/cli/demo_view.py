"""How a demonstration is shown: while it runs, on a terminal or in a log, and its summary."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from equipoise.base.units import format_size
from equipoise.cli.output import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from equipoise.sim.demonstration import NodeView, Progress
    from equipoise.sim.hl7_interfaces import MessageTally
    from equipoise.sim.ledger import Tally
    from equipoise.sim.outcome import Outcome, Phase

_COLOURS = {"up": "green", "down": "bold red", "drain": "yellow", "disabled": "yellow"}
_STORY_LINES = 12


def live_view(progress: "Progress", until_s: float | None) -> "RenderableType":
    """Return what a terminal shows, again and again."""
    end = "until Ctrl-C" if until_s is None else f"of {until_s:g} s"
    title = Text(f"Equipoise demo  {progress.elapsed_s:.0f} s {end}", style="bold")
    story = Text("\n".join(progress.told[-_STORY_LINES:]), style="dim")
    return Group(title, Text(_counts(progress)), _node_table(progress.nodes), story)


def plain_line(progress: "Progress") -> str:
    """Return one line for a log."""
    return f"{progress.elapsed_s:5.1f} s  {_counts(progress)}; {_nodes_line(progress.nodes)}"


def _nodes_line(nodes: "tuple[NodeView, ...]") -> str:
    """Say how each node is; machines that serve several services in their worst state, with the sum of what is open."""
    machines: dict[str, list[NodeView]] = {}
    for node in nodes:
        machines.setdefault(node.name.rpartition("/")[2], []).append(node)
    states = {name: sorted({node.state for node in of} - {"up"}) or ["up"] for name, of in machines.items()}
    open_now = {name: sum(node.connections for node in of) for name, of in machines.items()}
    return ", ".join(f"{name} {'/'.join(states[name])} {open_now[name]} open" for name in machines)


def summary(outcome: "Outcome") -> "RenderableType":
    """Return the table at the end."""
    table = Table(title="Summary", title_justify="left", show_header=False, title_style="bold")
    table.add_column("what", no_wrap=True)
    table.add_column("how it was", overflow="fold")
    for what, how in _rows(outcome):
        table.add_row(what, "\n".join(printable(line) for line in how.splitlines()))
    return table


def _rows(outcome: "Outcome") -> list[tuple[str, str]]:
    tally, audit = outcome.tally, outcome.audit
    return [
        ("objects sent", f"{tally.sent}"),
        ("objects acknowledged", f"{tally.acknowledged} ({format_size(tally.bytes_acknowledged)})"),
        ("  of these found unharmed", f"{len(audit.unharmed)}, every element and pixel as sent"),
        ("  missing, harmed", f"{len(audit.missing)}, {len(audit.harmed)}"),
        ("  taken in by", _counted(audit.by_archive)),
        ("stored, sender got no answer", f"{audit.unacknowledged}"),
        ("given up by their sender", f"{tally.given_up}"),
        *((f"acknowledged {phase.title}", _phase(phase)) for phase in outcome.phases),
        ("associations", f"{tally.associations} opened, {tally.retries} of them to try again"),
        ("associations failed", _failures(tally)),
        ("queries answered", f"{tally.queries}"),
        (
            "studies retrieved",
            f"{tally.studies_retrieved}, {tally.objects_compared} objects compared with what was sent",
        ),
        ("  different", f"{len(tally.differences)}"),
        *_message_rows(outcome),
        *_web_rows(outcome),
        ("status asked", f"{outcome.status_answers} times"),
    ]


def _message_rows(outcome: "Outcome") -> list[tuple[str, str]]:
    if outcome.messages is None:
        return []
    tally, audit = outcome.messages.tally, outcome.messages.audit
    again = f", {tally.again} of them again, after no answer" if tally.again else ""
    return [
        ("HL7 messages sent", f"{tally.sent + tally.again}{again}"),
        ("HL7 messages acknowledged", f"{tally.acknowledged}"),
        ("  of these at a receiver", f"{len(audit.unharmed)}, every byte as sent"),
        ("  lost, harmed", f"{len(audit.lost)}, {len(audit.harmed)}"),
        ("  out of order", f"{len(audit.out_of_order)}"),
        ("  delivered twice", f"{len(audit.duplicated)}, and {audit.repeated} that their sender had sent twice"),
        ("  at which receiver", _counted(audit.by_receiver)),
    ]


def _web_rows(outcome: "Outcome") -> list[tuple[str, str]]:
    tally = outcome.tally
    rows = [("worklists answered", f"{tally.worklists}, each as scheduled")] if tally.worklists else []
    if tally.log_ins:
        cut, failed = len(outcome.pages_cut), len(tally.failed_pages)
        moved, lost = len(outcome.sessions_moved), len(tally.lost_sessions)
        rows += [
            ("pages of the portal", f"{tally.pages}, each from the node that has the session"),
            ("  failed", f"{failed - cut}, and {cut} that were open on a node when it was killed"),
            ("sessions", f"{tally.log_ins} begun; {lost - moved} lost, and {moved} whose node was killed or drained"),
        ]
    return rows


def _counts(progress: "Progress") -> str:
    tally = progress.tally
    return (
        f"sent {tally.sent}, acknowledged {tally.acknowledged} ({format_size(tally.bytes_acknowledged)}), "
        f"stored {progress.stored}; associations {tally.associations}, failed {sum(tally.failures.values())}; "
        f"queries {tally.queries}, retrieved {tally.studies_retrieved} studies"
        f"{_message_counts(progress.messages)}{_web_counts(tally)}"
    )


def _message_counts(tally: "MessageTally | None") -> str:
    if tally is None:
        return ""
    again = f", sent again {tally.again}" if tally.again else ""
    return f"; HL7 messages {tally.sent}, acknowledged {tally.acknowledged}{again}"


def _web_counts(tally: "Tally") -> str:
    if not tally.log_ins:
        return ""
    failed = f", failed {len(tally.failed_pages)}" if tally.failed_pages else ""
    return f"; worklists {tally.worklists}; pages {tally.pages}{failed}, log-ins {tally.log_ins}"


def _phase(phase: "Phase") -> str:
    messages = f" objects, {phase.messages} messages" if phase.messages is not None else ""
    return f"{phase.acknowledged}{messages} in {phase.length_s:.1f} s"


def _failures(tally: "Tally") -> str:
    """Say it plainly: an association that is open on a node when it is killed cannot be saved, its objects can."""
    if not tally.failures:
        return "none"
    reasons = "\n".join(f"{count}: {reason}" for reason, count in sorted(tally.failures.items()))
    return f"{reasons}\n(what is open on a node when it is killed fails; a sender tries again)"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _node_table(nodes: "tuple[NodeView, ...]") -> Table:
    table = Table()
    for name in ("node", "state", "check"):
        table.add_column(name)
    for name in ("open", "in", "out"):
        table.add_column(name, justify="right")
    for node in nodes:
        state = Text(node.state, style=_COLOURS.get(node.state, ""))
        sizes = (format_size(node.bytes_in), format_size(node.bytes_out))
        table.add_row(node.name, state, printable(node.check), str(node.connections), *sizes)
    return table
