"""`equipoise plan` and `equipoise apply`: what a site's file would change, and changing it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from equipoise.cli.client import NoSupervisorError
from equipoise.cli.output import JSON_HELP, complain, echo_json, printable, read_document
from equipoise.cli.surroundings import Surroundings, surroundings

if TYPE_CHECKING:
    from equipoise.plan.diff import Change

_FINDING = 2
_COLOUR = {"add": "green", "remove": "red", "change": "yellow"}

_Site = Annotated[Path, typer.Argument(metavar="SITE.yaml", help="The site's configuration.")]


class Preview(Protocol):
    """What a document changes, said by the supervisor or worked out here."""

    @property
    def digest(self) -> str:
        """Return the digest of its plan."""

    @property
    def changes(self) -> "Sequence[Change]":
        """Return the differences."""

    @property
    def warnings(self) -> Sequence[str]:
        """Return what is allowed but probably not meant."""


class Applied(Preview, Protocol):
    """What a document has changed, and what became of it in a pair."""

    @property
    def revision(self) -> int | None:
        """Return its number; None where there is no pair."""

    @property
    def peer_said(self) -> str | None:
        """Return why the peer has it not; nothing where it has."""


def register(app: typer.Typer) -> None:
    """Add both commands."""
    app.command(rich_help_panel="Configure")(plan)
    app.command(rich_help_panel="Configure")(apply)


def plan(
    context: typer.Context, site: _Site, as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False
) -> None:
    """Show what SITE.yaml would change, and change nothing.

    Asked of the supervisor; without one, compared with the plan that was applied last.  Exit code 0: nothing would
    change; 2: something would; 1: the file cannot be used.
    """
    preview, against = _preview(surroundings(context), site)
    _show(preview, as_json=as_json, nothing=f"nothing to change: {site} is what {against}")
    raise typer.Exit(_FINDING if preview.changes else 0)


def apply(
    context: typer.Context,
    site: _Site,
    force: Annotated[bool, typer.Option("--force", help="Even if it takes away much at once.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Put SITE.yaml into force, in every engine or in none.

    The supervisor writes it over the file that it was started with and keeps the old one among its revisions.  In a
    pair the peer gets it too.  Exit code 0: it is in force; 2: here, but not on the peer; 1: nothing was changed.
    """
    preview = surroundings(context).client().apply(read_document(site), str(site), force=force)
    if as_json:
        echo_json(_json(preview) | {"revision": preview.revision, "peer": preview.peer_said})
    else:
        _show(preview, as_json=False, nothing=f"nothing to change: plan {preview.digest} runs already")
        _show_applied(preview)
    raise typer.Exit(_FINDING if preview.peer_said else 0)


def _show_applied(preview: Applied) -> None:
    if preview.changes:
        typer.echo(f"plan {preview.digest} is in force")
    if preview.revision is None:
        return
    if preview.peer_said:
        why = printable(preview.peer_said)
        typer.secho(f"revision {preview.revision}, here alone: {why}", fg="yellow")
    else:
        typer.echo(f"revision {preview.revision}, on both machines")


def _preview(around: Surroundings, site: Path) -> tuple[Preview, str]:
    document = read_document(site)
    try:
        return around.client().preview(document, str(site)), "runs"
    except NoSupervisorError:
        from equipoise.app.offline import preview

        complain("no supervisor answers; compared with the plan that was applied last")
        return preview(document, str(site), around.directories), "was applied last"


def _show(preview: Preview, *, as_json: bool, nothing: str) -> None:
    if as_json:
        echo_json(_json(preview))
        return
    for warning in preview.warnings:
        complain(f"warning: {warning}")
    if not preview.changes:
        typer.echo(nothing)
    for change in preview.changes:
        typer.secho(printable(change.to_text()), fg=_COLOUR[change.what])


def _json(preview: Preview) -> dict[str, Any]:
    changes = [change.to_json() for change in preview.changes]
    return {"plan": preview.digest, "changes": changes, "warnings": list(preview.warnings)}
