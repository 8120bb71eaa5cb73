"""`equipoise probe`: one health check, by hand, explained.  Needs no supervisor.

The settings of a check are its options: `called_ae` of `dicom_echo` is `--called-ae`.  Those of `node_tls` are options
of every check: `--ca`, `--verify`, `--server-name`; with one of them, or with `--tls true`, the check speaks TLS.
"""

import asyncio
import os
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

import typer
from typer.core import TyperCommand

from equipoise.base.errors import ConfigError, EquipoiseError, Problem
from equipoise.cli.output import JSON_HELP, echo_json, printable
from equipoise.cli.surroundings import surroundings

if TYPE_CHECKING:
    from equipoise.config.base import CheckParams, Strict
    from equipoise.health.base import Check
    from equipoise.plan.model import NodeTls

_Settings = TypeVar("_Settings", bound="Strict")

_FINDING = 2
_FILES = frozenset({"ca", "cert", "key"})  # of node_tls
_ONLY_WHEN_REPEATED = frozenset({"interval", "rise", "fall", "port"})  # one check by hand has no use for them


class ProbeCommand(TyperCommand):
    """A command whose help lists the checks that there are, with their settings."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        from equipoise.health.catalogue import checks

        described = [_described(check) for check in checks().values() if _by_hand(check)]
        tls = f"TLS, with every check: {', '.join(f'--{_dashed(name)}' for name in _tls_names())}"
        self.epilog = "\n\n".join(["[bold]Checks and their settings[/bold]", *described, tls])
        super().format_help(ctx, formatter)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        cls=ProbeCommand,
        rich_help_panel="Watch",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(probe)


def probe(
    context: typer.Context,
    check: Annotated[str, typer.Argument(metavar="CHECK", help="The check's name, as in `health.check`.")],
    target: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Whom to ask; IPv6 as '[ADDRESS]:PORT'.")],
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Run one health check by hand and explain what it saw.

    Example: equipoise probe dicom_echo 10.0.0.11:104 --called-ae PACS --timeout 2s

    Example: equipoise probe http pacs-a.example:8443 --path /health --status 200 --tls true --ca ca.pem

    Exit code 0: passed; 2: failed; 1: it could not be tried.
    """
    from equipoise.health.runner import probe_once

    found = _find(check)
    host, port = _target(target)
    params, node_tls = _params(found, context.args)
    clock = surroundings(context).clock
    outcome = asyncio.run(probe_once(found, params, host, port, clock, node_tls=node_tls))
    if as_json:
        said = {"check": check, "target": target, "settings": _settings(params), "ok": outcome.ok}
        echo_json({**said, "reason": outcome.reason, "took_ms": outcome.took_ms})
    else:
        _explain(check, target, params, outcome)
    raise typer.Exit(0 if outcome.ok else _FINDING)


def _explain(check: str, target: str, params: "CheckParams", outcome: Any) -> None:
    word = "passed" if outcome.ok else "FAILED"
    line = f"{check} {target}: {word} in {outcome.took_ms:.0f} ms: {printable(outcome.reason)}"
    typer.secho(line, fg="green" if outcome.ok else "red")
    settings = ", ".join(f"{name} {_shown(value)}" for name, value in _settings(params).items() if value is not None)
    typer.echo(f"  asked with: {printable(settings)}")


def _find(name: str) -> "Check":
    from equipoise.health.catalogue import checks

    known = checks()
    if name not in known:
        raise EquipoiseError(f"there is no check {name!r}; there are: {', '.join(sorted(known))}")
    if not _by_hand(known[name]):
        raise EquipoiseError(f"{name} is made of other checks; probe each of them by itself")
    return known[name]


def _by_hand(check: "Check") -> bool:
    """Say whether the settings of a check can be written as options."""
    from equipoise.config.parts import has_parts

    return not has_parts(check.params)


def _target(text: str) -> tuple[str, int]:
    from equipoise.config.fields import split_port

    try:
        host, port = split_port(text)
    except ValueError as error:
        raise EquipoiseError(str(error)) from None
    if port is None or not host:
        raise EquipoiseError(f"{text!r} is not HOST:PORT; write for example 10.0.0.11:104 or '[2001:db8::11]:104'")
    return host, port


def _params(check: "Check", arguments: list[str]) -> "tuple[CheckParams, NodeTls | None]":
    """Return the settings that the options say, and how TLS is spoken.  Raises: EquipoiseError."""
    settings: dict[str, Any] = {}
    tls: dict[str, str] = {}
    for name, value in _options(arguments):
        if name in _tls_names():
            tls[name] = os.path.abspath(value) if name in _FILES else value
        elif name in _offered(check):
            settings[name] = _listed(value) if _is_list(check.params.model_fields[name].annotation) else value
        else:
            raise EquipoiseError(f"{check.name} has no setting --{_dashed(name)}; {_described(check)}")
    return _checked(check, check.params, settings), _node_tls(check, tls) if tls else None


def _checked(check: "Check", model: "type[_Settings]", settings: Mapping[str, Any]) -> "_Settings":
    from equipoise.config.loading import check_settings

    try:
        return check_settings(model, settings)
    except ConfigError as error:
        said = (": ".join(_said(problem)) for problem in error.problems)
        raise EquipoiseError(f"{check.name}: {'; '.join(said)}") from None


def _said(problem: Problem) -> Iterable[str]:
    return (f"--{_dashed(problem.path)}", problem.message) if problem.path else (problem.message,)


def _node_tls(check: "Check", settings: Mapping[str, str]) -> "NodeTls":
    from equipoise.config import securing
    from equipoise.plan.model import NodeTls

    return NodeTls(**dict(_checked(check, securing.NodeTls, settings)), fingerprint="by hand")


def _tls_names() -> list[str]:
    from equipoise.config import securing

    return list(securing.NodeTls.model_fields)


def _options(arguments: list[str]) -> Iterable[tuple[str, str]]:
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if not option.startswith("--"):
            raise EquipoiseError(f"{word!r} is no option; settings are written --name VALUE")
        if not equals:
            following = next(words, None)
            if following is None:
                raise EquipoiseError(f"{option} needs a value")
            value = following
        yield option.removeprefix("--").replace("-", "_"), value


def _offered(check: "Check") -> list[str]:
    return [name for name in check.params.model_fields if name not in _ONLY_WHEN_REPEATED]


def _described(check: "Check") -> str:
    defaults = check.params.model_construct().model_dump(mode="json")
    options = (f"--{_dashed(name)} ({_default(name, defaults)})" for name in _offered(check))
    return f"{check.name}: {', '.join(options)}"


def _default(name: str, defaults: Mapping[str, Any]) -> str:
    return _shown(defaults[name]) if name in defaults else "required"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _is_list(annotation: Any) -> bool:
    if get_origin(annotation) in {Union, UnionType}:
        return any(_is_list(one) for one in get_args(annotation))
    return get_origin(annotation) in {list, set, frozenset, tuple}


def _listed(value: str) -> list[str]:
    return [one.strip() for one in value.split(",")]


def _settings(params: "CheckParams") -> Mapping[str, Any]:
    return {name: value for name, value in params.model_dump(mode="json").items() if name not in _ONLY_WHEN_REPEATED}
