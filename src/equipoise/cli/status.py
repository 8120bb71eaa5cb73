"""`equipoise status`: services, nodes, connections and verdicts with their reasons."""

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.base.errors import EquipoiseError
from equipoise.cli.output import JSON_HELP, complain, console, echo_json, show
from equipoise.cli.surroundings import Surroundings, surroundings

if TYPE_CHECKING:
    from rich.console import RenderableType

_REFRESH_S = 1.0
_FINDING = 2


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Watch")(status)


def status(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again each second, until Ctrl-C.")] = False,
) -> None:
    """Show how things stand: what is wrong first, then every service and node.

    Exit code 0: every service is up; 2: one is down, degraded or waiting; 1: no supervisor.
    """
    around = surroundings(context)
    if watch:
        _watch(around, as_json=as_json)
        return
    document = around.client().status()
    if as_json:
        echo_json(document)
    else:
        show(_view(document, around))
    raise typer.Exit(_FINDING if _troubled(document) else 0)


def _troubled(document: dict[str, Any]) -> bool:
    return any(service["state"] != "up" for service in document["services"].values())


def _view(document: dict[str, Any], around: Surroundings) -> "RenderableType":
    from equipoise.cli.status_view import view

    return view(document, around.clock.wall())


def _watch(around: Surroundings, *, as_json: bool) -> None:
    try:
        if as_json:
            _repeat_json(around)
        else:
            _repeat_view(around)
    except KeyboardInterrupt:
        return


def _repeat_json(around: Surroundings) -> None:
    """Print a document a line; while there is no supervisor, say so on stderr."""
    while True:
        try:
            echo_json(around.client().status())
        except EquipoiseError as error:
            complain(str(error))
        time.sleep(_REFRESH_S)


def _repeat_view(around: Surroundings) -> None:
    from rich.live import Live

    out, seen = console(), None
    with ExitStack() as stack:
        live = stack.enter_context(Live(console=out, auto_refresh=False)) if out.is_terminal else None
        while True:
            seen, shown = _look(around, seen)
            if live:
                live.update(shown, refresh=True)
            else:
                show(shown)
            time.sleep(_REFRESH_S)


def _look(around: Surroundings, seen: dict[str, Any] | None) -> tuple[dict[str, Any] | None, "RenderableType"]:
    """Return what is there now, or what was there last under a line that says that it is old."""
    from equipoise.cli.status_view import outdated

    try:
        document = around.client().status()
    except EquipoiseError as error:
        return seen, outdated(str(error), None if seen is None else _view(seen, around))
    return document, _view(document, around)
