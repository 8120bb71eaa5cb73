"""`equipoise events`: what happened, and what happens."""

import json
from datetime import datetime
from typing import Annotated, Any

import typer

from equipoise.base.errors import EquipoiseError
from equipoise.cli.output import echo_json, printable
from equipoise.cli.surroundings import surroundings

_RED, _GREEN = "red", "green"
_COLOUR = {
    "node.down": _RED,
    "node.unresolved": _RED,
    "node.refused": _RED,
    "gateway.lost": _RED,
    "haproxy.lost": _RED,
    "plan.refused": _RED,
    "task.failed": _RED,
    "events.dropped": _RED,
    "node.up": _GREEN,
    "node.accepted": _GREEN,
    "plan.applied": _GREEN,
    "listener.ready": _GREEN,
    "receiver.failed": "yellow",
    "listener.waiting": "yellow",
    "node.override": "yellow",
}
_KIND_WIDTH = 19  # supervisor.stopping, the longest


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Watch")(events)


def events(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with each new event, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON document a line, as in the journal.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many of the last ones.")] = 50,
) -> None:
    """Show what happened: nodes up and down, plans, gateways, associations and HL7 senders that ended."""
    client = surroundings(context).client()
    try:
        for event in client.follow(limit) if follow else client.events(limit):
            _show(event, as_json=as_json)
    except KeyboardInterrupt:
        return
    if follow:
        raise EquipoiseError("the supervisor ended; the engines may go on serving, see `equipoise status`")


def _show(event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        echo_json(event)
    else:
        typer.secho(to_text(event), fg=_COLOUR.get(str(event.get("kind"))))


def to_text(event: dict[str, Any]) -> str:
    """Return one line for a person: local time, kind, fields."""
    fields = [f"{name}={_value(value)}" for name, value in event.items() if name not in {"at", "kind"}]
    return " ".join([_local_time(str(event.get("at", ""))), f"{event.get('kind', '?'):<{_KIND_WIDTH}}", *fields])


def _local_time(at: str) -> str:
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return printable(at)


def _value(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case str():
            return _quoted(value)
        case list():
            return "[" + ", ".join(_value(one) for one in value) + "]"
        case dict():
            return "(" + " ".join(f"{name}={_value(one)}" for name, one in value.items() if one is not None) + ")"
    return str(value)


def _quoted(text: str) -> str:
    if text and text.isprintable() and not set(text) & set(" \"'=[](),"):
        return text
    return printable(json.dumps(text, ensure_ascii=False))
