"""`equipoise run`: the balancer, in the foreground."""

from pathlib import Path
from typing import Annotated

import typer

from equipoise.cli.surroundings import surroundings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Serve")(run)


def run(
    context: typer.Context,
    site: Annotated[Path, typer.Argument(metavar="SITE.yaml", help="The site's configuration; `apply` replaces it.")],
) -> None:
    """Be the balancer, in the foreground.

    SIGTERM and Ctrl-C let open work end for `drain_timeout` and stop the engines, a second one stops at once.  SIGHUP
    reads SITE.yaml again.  SIGUSR2 ends the supervisor alone: the engines go on, and the next `run` takes them over.
    """
    from equipoise.app.daemon import run as serve  # the engines, FastAPI and uvloop: for this command alone

    around = surroundings(context)
    raise typer.Exit(serve(site, around.directories, around.servers))
