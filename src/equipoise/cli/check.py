"""`equipoise check`: is this configuration good?  Needs no supervisor and changes nothing."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equipoise.base.errors import ConfigError, Problem
from equipoise.cli.output import JSON_HELP, complain, echo_json, read_document
from equipoise.cli.surroundings import surroundings

if TYPE_CHECKING:
    from equipoise.config.loading import Document
    from equipoise.config.models import Site

_FINDING = 2
_LOOKUPS_AT_ONCE = 16  # a resolver that does not answer takes half a minute for each name


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Configure")(check)


def check(
    context: typer.Context,
    site: Annotated[Path, typer.Argument(metavar="SITE.yaml", help="The site's configuration.")],
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Say whether SITE.yaml is good, and where it is not.  Changes nothing, asks no supervisor.

    Exit code 0: good; 2: good, with a warning; 1: it cannot be used.
    """
    try:
        found, warnings = _checked(read_document(site), str(site), surroundings(context).clock.wall())
    except ConfigError as error:
        if as_json:
            echo_json({"file": str(site), "good": False, "problems": [_json(problem) for problem in error.problems]})
            raise typer.Exit(1) from None
        raise
    if as_json:
        counts = {"services": len(found.services), "nodes": _node_count(found)}
        echo_json({"file": str(site), "good": True, **counts, "warnings": [_json(warning) for warning in warnings]})
    else:
        for warning in warnings:
            complain(f"warning: {warning}")
        typer.echo(f"{site}: good: {_summary(found, len(warnings))}")
    raise typer.Exit(_FINDING if warnings else 0)


def _checked(text: str, file: str, now_s: float) -> tuple["Site", list[Problem]]:
    from equipoise.app.certificates import ended, problems
    from equipoise.app.wiring import catalogue
    from equipoise.config.loading import load
    from equipoise.plan.compile import files_to_read

    document = load(text, file, catalogue())
    if wrong := problems(document):
        raise ConfigError(wrong)
    over = ended(document, files_to_read(document.site), now_s)
    return document.site, [*unresolved(document), *(each.problem for each in over)]


def unresolved(document: "Document") -> list[Problem]:
    """Return a warning for each node whose host name has no address now."""
    nodes = list(_host_names(document.site))
    names = sorted({name for _, name in nodes})
    with ThreadPoolExecutor(_LOOKUPS_AT_ONCE) as pool:
        reasons = dict(zip(names, pool.map(_why_unknown, names), strict=True))
    return [
        document.problem(
            f"{name!r} does not resolve here ({reason}); correct the name, add it to DNS or /etc/hosts, "
            "or write the IP address; until then the node takes no work",
            *path,
        )
        for path, name in nodes
        if (reason := reasons[name])
    ]


def _host_names(site: "Site") -> Iterator[tuple[tuple[str, ...], str]]:
    from equipoise.config.fields import numeric, split_port

    for service_name, service in site.services.items():
        for node_name, node in service.nodes.items():
            host, _ = split_port(node.address)
            if numeric(host) is None:
                yield ("services", service_name, "nodes", node_name, "address"), host


def _why_unknown(host: str) -> str | None:
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return error.strerror or str(error)
    except UnicodeError:
        return "not a valid name"
    return None


def _node_count(site: "Site") -> int:
    return sum(len(service.nodes) for service in site.services.values())


def _summary(site: "Site", warnings: int) -> str:
    parts = [_counted(len(site.services), "service"), _counted(_node_count(site), "node")]
    return ", ".join(parts + ([_counted(warnings, "warning")] if warnings else []))


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _json(problem: Problem) -> dict[str, str | int]:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "path": problem.path,
        "message": problem.message,
    }
