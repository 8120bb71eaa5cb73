"""`equipoise template`: the site templates that there are, and what each of them says.  Needs no supervisor."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.base.errors import EquipoiseError
from equipoise.cli import output
from equipoise.cli.output import JSON_HELP, echo_json

if TYPE_CHECKING:
    from equipoise.templates.model import Ask, Template

_Json = Annotated[bool, typer.Option("--json", help=JSON_HELP)]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Show the site templates that `use` in a site's file can name.")
    group.command("list")(list_templates)
    group.command()(show)
    app.add_typer(group, name="template", rich_help_panel="Configure")


def list_templates(as_json: _Json = False) -> None:
    """List the site templates, with what each is for and the services that it makes."""
    from equipoise.templates.reader import Templates

    templates = Templates().values()
    if as_json:
        echo_json([{"name": each.name, "title": each.title, "services": list(each.services)} for each in templates])
        return
    _print_table(templates)


def _print_table(templates: Any) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("template", "for", "services"):
        table.add_column(title, overflow="fold")
    for each in templates:
        table.add_row(each.name, each.title, " ".join(each.services))
    output.show(table)


def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The template's name, as `equipoise template list` says.")
    ],
    as_json: _Json = False,
) -> None:
    """Show a site template as it is: what it asks for, its services, and where each value is from.

    A comment behind a value names the document that says it, and `ours` where none does.
    """
    template = _find(name)
    if as_json:
        echo_json(_json(template))
        return
    typer.echo(template.text.rstrip())
    typer.echo(f"\n# To use it:\n{_example(template)}")


def _find(name: str) -> "Template":
    from equipoise.config.words import nearest
    from equipoise.templates.reader import Templates

    templates = Templates()
    if name not in templates:
        raise EquipoiseError(f"there is no template {name!r}; {nearest(name, templates)}")
    return templates[name]


def _example(template: "Template") -> str:
    """Return an entry of `use` with all that has no default, for a reader to copy."""
    given = {"vip": "10.0.0.100", "nodes": "{a: 10.0.0.11, b: 10.0.0.12}"}
    asked = [f"{name}: {given.get(name, '...')}" for name, ask in template.asks.items() if ask.default is None]
    entry = ", ".join([f"template: {template.name}", f"name: {template.name.split('_')[0]}", *asked])
    return f"# use:\n#   - {{{entry}}}"


def _json(template: "Template") -> dict[str, Any]:
    return {
        "name": template.name,
        "title": template.title,
        "about": template.about,
        "asks": {name: _ask(ask) for name, ask in template.asks.items()},
        "services": template.services,
        "documents": template.documents,
        "sources": template.sources,
    }


def _ask(ask: "Ask") -> dict[str, Any]:
    return {"about": ask.about, "default": ask.default, "takes_list": ask.takes_list}
