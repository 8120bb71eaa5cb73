"""Write the generated pages of docs/reference, or with --check say which of them are out of date.

    python -m tools.reference [--check]

Everything comes from the code: settings from the models, events from their classes, commands from the command line,
policies from their modules, site templates from their files.  Leaves out checks.md, which people write.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import typer.main

from equipoise.__main__ import Servers
from equipoise.app.wiring import catalogue
from equipoise.base.paths import replace_file
from equipoise.cli.main import build
from equipoise.config.schema import reference_files
from equipoise.policy.catalogue import policies
from equipoise.state import cluster_events, events, network_events
from equipoise.templates.model import Template
from equipoise.templates.reader import Templates

DIRECTORY = Path(__file__).parents[1] / "docs" / "reference"
_JSON_TYPES = {str: "text", int: "number", float: "number", bool: "true or false", NoneType: "null"}


def pages() -> Mapping[str, str]:
    """Return every generated page by its file name."""
    return {
        **reference_files(catalogue()),
        "events.md": _events_page(),
        "commands.md": _commands_page(),
        "policies.md": _policies_page(),
        "templates.md": _templates_page(),
    }


def outdated() -> list[str]:
    """Return the names of the pages that are not what the code gives now."""
    return [name for name, text in pages().items() if _read(DIRECTORY / name) != text]


def main(arguments: list[str]) -> int:
    """Do what the command line says; return the exit code."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write(f"{__doc__}\n")
        return 1
    stale = outdated()
    if arguments and stale:
        sys.stderr.write(f"out of date in docs/reference: {', '.join(stale)}; run `make docs`\n")
        return 1
    for name in stale:
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        replace_file(DIRECTORY / name, pages()[name].encode(), mode=0o644)
        sys.stdout.write(f"wrote docs/reference/{name}\n")
    return 0


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _generated(title: str, source: str, text: str) -> str:
    return f"# {title}\n\nGenerated from `{source}`; change that, then run `make docs`.\n\n{text}\n"


# Events

_EVENTS_INTRODUCTION = """Every event is a line of JSON: `at`, when it happened (RFC 3339, UTC), `kind`, and the fields
below. `equipoise events --json` shows them, and the state directory keeps them in `events.jsonl`. A name that ends in
`_s` is in seconds, in `_ms` in milliseconds. A reader that cannot keep up with `equipoise events --follow` gets a line
of kind `events.missed` with a `count`; the journal has what it missed.
"""


_EVENT_MODULES = (events, network_events, cluster_events)


def _events_page() -> str:
    kinds = sorted(_event_classes(), key=lambda event: event.kind)
    parts = [_EVENTS_INTRODUCTION, *(f"- [`{event.kind}`](#{_anchor(event.kind)})" for event in kinds), ""]
    for event in kinds:
        parts += [f"## `{event.kind}`\n", inspect.getdoc(event) or "", "", *_fields(event), ""]
    parts += ["## Parts of events\n"]
    for part in sorted(_part_classes(), key=lambda part: part.__name__):
        parts += [f"### {part.__name__}\n", inspect.getdoc(part) or "", "", *_fields(part), ""]
    files = "` and `".join(f"src/{module.__name__.replace('.', '/')}.py" for module in _EVENT_MODULES)
    return _generated("Events", files, "\n".join(parts).rstrip())


def _event_classes() -> Iterator[type[events.Event]]:
    """Yield every kind of event; what several share, a class without a `kind`, is none."""
    for value in _classes():
        if issubclass(value, events.Event) and hasattr(value, "kind"):
            yield value


def _part_classes() -> Iterator[type]:
    """Yield what stands within events, such as the messages of an association."""
    for value in _classes():
        if is_dataclass(value) and not issubclass(value, events.Event):
            yield value


def _classes() -> Iterator[type]:
    """Yield each class where it is written, not where it is imported."""
    for module in _EVENT_MODULES:
        for value in vars(module).values():
            if inspect.isclass(value) and value.__module__ == module.__name__:
                yield value


def _fields(event: type) -> list[str]:
    hints = get_type_hints(event)
    rows = [f"| `{name}` | {_json_type(hints[name])} |" for name in (each.name for each in fields(event))]
    return ["| field | type |", "|---|---|", *rows]


def _json_type(hint: Any) -> str:
    if get_origin(hint) is UnionType:
        return " or ".join(_json_type(each) for each in get_args(hint))
    if get_origin(hint) is tuple:
        return f"list of {_json_type(get_args(hint)[0])}"
    return _JSON_TYPES.get(hint) or str(hint.__name__)


# Commands

_COMMANDS_INTRODUCTION = """Exit codes: 0 good; 1 error, wrong use of a command, or no supervisor; 2 a finding:
something is down, a probe failed, a plan has changes. Errors are lines on standard error.

`EQUIPOISE_RUNTIME_DIR` and `EQUIPOISE_STATE_DIR` choose the directories, and with them the instance that is asked.
"""


def _commands_page() -> str:
    command_line = typer.main.get_command(build(Servers()))
    parts = [_COMMANDS_INTRODUCTION]
    for path, command in sorted(_commands(command_line, "equipoise"), key=lambda found: found[0]):
        parts += _command(path, command)
    return _generated("Commands", "src/equipoise/cli", "\n".join(parts).rstrip())


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every command that is no group; typer's classes are click's, which have no types of their own here."""
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
        return
    for name, each in below.items():
        yield from _commands(each, f"{path} {name}")


def _command(path: str, command: Any) -> list[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    words = [each.metavar if each.required else f"[{each.metavar}]" for each in arguments]
    usage = " ".join([path, *(["[OPTIONS]"] if options else []), *words])
    parts = [f"## `{path}`\n", f"    {usage}\n", _joined(command.help), ""]
    rows = [f"| `{each.metavar}` | {each.help or 'optional'} |" for each in arguments]
    rows += [f"| {_option(each)} | {each.help}{_default(each)} |" for each in options]
    return [*parts, "| argument, option | meaning |", "|---|---|", *rows, ""] if rows else parts


def _option(option: Any) -> str:
    value = "" if option.is_flag else f" {option.metavar or 'VALUE'}"
    return ", ".join(f"`{word}{value}`" for word in option.opts)


def _default(option: Any) -> str:
    return "" if option.is_flag or option.default is None else f" Default: {option.default}."


def _joined(text: str) -> str:
    """Return paragraphs, each on one line."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.strip()))


# Policies

_POLICIES_INTRODUCTION = """What `balance` of a service says: how a node is picked for a new association. A node of
weight 0 takes none, `backup` nodes take some only while no other can, and nodes that are full are passed over.
Persistence comes first.
"""


def _policies_page() -> str:
    parts = [_POLICIES_INTRODUCTION]
    for name in sorted(policies()):
        text = inspect.getdoc(importlib.import_module(f"equipoise.policy.{name}")) or ""
        about = _joined(text).removeprefix(f"Policy `{name}`: ")
        parts += [f"## `{name}`\n", about[0].upper() + about[1:], ""]
    return _generated("Policies", "src/equipoise/policy", "\n".join(parts).rstrip())


# Site templates

_TEMPLATES_INTRODUCTION = """What `use` in a site's file can name; [how to use them](../howto/templates.md). A part
named `web`, in an entry named `pacs`, becomes the service `pacs-web`. Behind each value stands where it is from: a
document, or *ours*, where no public source says it. `equipoise template show NAME` shows the file itself, with its
comments.
"""


def _templates_page() -> str:
    parts = [_TEMPLATES_INTRODUCTION, *(f"- [`{name}`](#{_anchor(name)})" for name in Templates()), ""]
    for template in Templates().values():
        parts += _template(template)
    return _generated("Site templates", "src/equipoise/templates", "\n".join(parts).rstrip())


def _template(template: Template) -> list[str]:
    asked = [f"| `{name}` | {ask.about} | {_asked_default(ask.default)} |" for name, ask in template.asks.items()]
    documents = [f"- *{word}*: {document}" for word, document in template.documents.items()]
    values = [f"| `{path}` | `{value}` | {source} |" for path, value, source in _values(template)]
    return [
        f"## `{template.name}`\n",
        f"**{template.title}.** {template.about}\n",
        *("| it asks for | what it is | default |", "|---|---|---|", *asked, ""),
        *("| value | | from |", "|---|---|---|", *values, ""),
        *(*documents, ""),
    ]


def _asked_default(default: str | None) -> str:
    return "required" if default is None else f"`{default}`"


def _values(template: Template) -> Iterator[tuple[str, str, str]]:
    """Yield each value of the services with its path and its source."""
    for path, value in _leaves(template.services, ""):
        shown = ", ".join(value) if isinstance(value, list) else str(value)
        word, _, place = template.sources.get(f"services.{path}", "").partition(": ")
        yield path, shown, f"*{word}*: {place}" if place else "asked for"


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield path, value
        return
    for name, each in value.items():
        yield from _leaves(each, f"{path}.{name}" if path else name)


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
