"""`equipoise status`: services, nodes, connections and verdicts with their reasons."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.cli.output import JSON_HELP, echo_json, show
from equipoise.cli.surroundings import Surroundings, surroundings
from equipoise.cli.watching import WATCH_HELP, watch

if TYPE_CHECKING:
    from rich.console import RenderableType

_FINDING = 2


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Watch")(status)


def status(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    watching: Annotated[bool, typer.Option("--watch", "-w", help=WATCH_HELP)] = False,
) -> None:
    """Show how things stand: what is wrong first, then every service and node.

    Exit code 0: every service is up, here or at the peer of a pair; 2: one is down, degraded or waiting; 1: no
    supervisor.
    """
    around = surroundings(context)
    if watching:
        watch(around.client().status, lambda document: _view(document, around), as_json=as_json)
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
