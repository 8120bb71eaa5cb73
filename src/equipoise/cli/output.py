"""How a command speaks: findings on stdout, complaints on stderr, colour only for a terminal that wants it."""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import typer

from equipoise.base.errors import EquipoiseError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, RenderableType

# A pipe has no width, unless COLUMNS says so; a reason cut in two lines is hard to search for.
_PIPE_WIDTH = 240

JSON_HELP = "Print JSON, for programs."


def console() -> "Console":
    """Return a console on stdout: plain where it is no terminal or NO_COLOR is set."""
    from rich.console import Console

    has_width = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    width = None if has_width else _PIPE_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def show(what: "RenderableType") -> None:
    """Print it; in a pipe without the spaces that fill up the lines of a table."""
    out = console()
    if out.is_terminal:
        out.print(what)
        return
    with out.capture() as printed:
        out.print(what)
    for line in printed.get().splitlines():
        typer.echo(line.rstrip())


def complain(text: str) -> None:
    """Say on stderr what went wrong, a line each."""
    for line in text.splitlines():
        typer.echo(f"equipoise: {printable(line)}", err=True)


def echo_json(value: Any) -> None:
    """Print one JSON document on one line."""
    typer.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))


def printable(text: str) -> str:
    r"""Return `text` with what would steer a terminal shown as escapes: AE titles come from strangers.

    >>> printable("CT\x1b[2J")
    'CT\\x1b[2J'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def read_document(path: "Path") -> str:
    """Return the text of a site's file.  Raises: EquipoiseError."""
    from equipoise.config.tree import MAX_DOCUMENT_BYTES

    try:
        with path.open("rb") as file:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise EquipoiseError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > MAX_DOCUMENT_BYTES:
        raise EquipoiseError(f"{path} has more than {MAX_DOCUMENT_BYTES} bytes, the most that a site's file may have")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise EquipoiseError(
            f"{path}:{line}: byte 0x{content[error.start]:02X} is not UTF-8; save it as UTF-8"
        ) from None
