"""`equipoise doctor`: what is wrong with this machine, and with what the site asks of it.  Changes nothing."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equipoise.base.errors import EquipoiseError
from equipoise.cli.output import JSON_HELP, echo_json, printable
from equipoise.cli.surroundings import Surroundings, surroundings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from equipoise.app.doctor.facts import Running
    from equipoise.app.doctor.findings import Finding

_FINDING = 2
_SUPERVISOR_S = 1.0  # one that hangs must not keep the doctor from looking at the rest
# Plain characters: a terminal of another character set must not keep the doctor from speaking.
_MARKS = {"ok": ("ok", None), "warning": ("!", "yellow"), "problem": ("X", "red")}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Watch")(doctor)


def doctor(
    context: typer.Context,
    site: Annotated[
        Path | None,
        typer.Argument(metavar="SITE.yaml", help="The site's configuration; by default what the supervisor serves."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Find what is wrong with this machine and with what the site asks of it, before people notice.

    Looks at clock, ports, rights, limits, kernel settings, names, disk and certificates.  Changes nothing and needs no
    root; ask as the user that runs the balancer.

    Exit code 0: all is well; 2: a warning or a problem; 1: it could not look.
    """
    from equipoise.app.doctor.examine import examine

    around = surroundings(context)
    findings = examine(site, _running(around), around.directories, around.clock)
    if as_json:
        echo_json([{"item": each.item, "level": each.level, "seen": each.seen, "do": each.do} for each in findings])
    else:
        _show(findings)
    raise typer.Exit(_FINDING if any(each.level != "ok" for each in findings) else 0)


def _running(around: Surroundings) -> "Running | None":
    from equipoise.app.doctor.deadline import answers_within

    answer = answers_within(_SUPERVISOR_S, {"supervisor": lambda: _asked(around)}, around.clock).get("supervisor")
    return None if answer is None else answer.value


def _asked(around: Surroundings) -> "Running | None":
    from equipoise.app.doctor.facts import Running

    try:
        who, status = around.client().identity(), around.client().status()
    except EquipoiseError:
        return None
    listen = {endpoint for service in status["services"].values() for endpoint in service.get("listen", ())}
    return Running(int(who["pid"]), str(who["version"]), str(who["site"]), frozenset(listen))


def _show(findings: "Sequence[Finding]") -> None:
    width = max(len(each.item) for each in findings)
    for each in findings:
        mark, colour = _MARKS[each.level]
        typer.secho(f"{mark:2} {each.item:{width}}  {printable(each.seen)}", fg=colour)
        if each.do:
            typer.echo(f"{'':{width + 3}}  -> {printable(each.do)}")
    counts = {level: sum(each.level == level for each in findings) for level in _MARKS}
    typer.echo(f"{counts['problem']} problem(s), {counts['warning']} warning(s), {counts['ok']} in order")
