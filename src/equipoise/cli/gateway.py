"""`equipoise gateway`: the processes that carry DICOM."""

from typing import Annotated

import typer

from equipoise.cli.output import JSON_HELP, echo_json
from equipoise.cli.surroundings import surroundings


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Look after the processes that carry DICOM.")

    @group.callback()
    def gateway() -> None:
        pass  # without it typer would take the only command for the group itself

    group.command()(replace)
    app.add_typer(group, name="gateway", rich_help_panel="Operate")


def replace(context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False) -> None:
    """Start a new process for each gateway on the same sockets; the old ones end when their work has ended.

    No caller notices.  Used after an upgrade of Equipoise or of Python.
    """
    pids = surroundings(context).client().replace_gateways()
    if as_json:
        echo_json({"pids": pids})
        return
    for pid in pids:
        typer.echo(f"gateway {pid} serves")
