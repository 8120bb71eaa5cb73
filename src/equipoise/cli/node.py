"""`equipoise node`: take nodes out of work and back, by hand.  What is changed here outlives restarts."""

from typing import Annotated

import typer

from equipoise.base.errors import EquipoiseError
from equipoise.cli.output import JSON_HELP, echo_json, printable
from equipoise.cli.surroundings import surroundings

_Pattern = Annotated[
    str, typer.Argument(metavar="SERVICE/NODE", help="'*' stands for any: '*/pacs-a' is one machine in all services.")
]
_Json = Annotated[bool, typer.Option("--json", help=JSON_HELP)]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Take nodes out of work and back, or change their weight.")
    for command in (drain, enable, disable, weight):
        group.command()(command)
    app.add_typer(group, name="node", rich_help_panel="Operate")


def drain(context: typer.Context, pattern: _Pattern, as_json: _Json = False) -> None:
    """Send no new work; what is open goes on to its end."""
    _override(context, pattern, "drain", "drains", as_json=as_json)


def enable(context: typer.Context, pattern: _Pattern, as_json: _Json = False) -> None:
    """Take back drain and disable; the node works again when its check passes."""
    _override(context, pattern, "enable", "enabled", as_json=as_json)


def disable(context: typer.Context, pattern: _Pattern, as_json: _Json = False) -> None:
    """Send no new work, and end what is open after its current message."""
    _override(context, pattern, "disable", "disabled", as_json=as_json)


def weight(
    context: typer.Context,
    pattern: _Pattern,
    number: Annotated[int | None, typer.Argument(metavar="N", min=0, max=256)] = None,
    as_json: _Json = False,
) -> None:
    """Change the share of new work to N; without N, back to what the configuration says."""
    done = "has the weight of the configuration" if number is None else f"has weight {number}"
    _override(context, pattern, "weight", done, weight=number, as_json=as_json)


def _override(
    context: typer.Context, pattern: str, action: str, done: str, *, weight: int | None = None, as_json: bool
) -> None:
    if pattern.count("/") != 1 or not all(pattern.split("/")):
        raise EquipoiseError(f"{pattern!r} is not SERVICE/NODE; write for example pacs-dicom/pacs-a or '*/pacs-a'")
    changed = surroundings(context).client().override(pattern, action, weight)
    if as_json:
        echo_json({"changed": changed})
        return
    for name in changed:
        typer.echo(f"{printable(name)} {done}")
