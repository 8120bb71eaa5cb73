"""`--watch`: read a document of the supervisor again each second and show it, until Ctrl-C.

While there is no supervisor, what was seen last stays under a line that says that it is old.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

from equipoise.base.errors import EquipoiseError
from equipoise.cli.output import complain, console, echo_json, show

if TYPE_CHECKING:
    from rich.console import RenderableType

Document: TypeAlias = dict[str, Any]
Read: TypeAlias = Callable[[], Document]
View: TypeAlias = "Callable[[Document], RenderableType]"

WATCH_HELP = "Show it again each second, until Ctrl-C."
_REFRESH_S = 1.0


def watch(read: Read, view: View, *, as_json: bool) -> None:
    """Show what `read` returns until Ctrl-C, as `view` draws it or as a JSON document a line."""
    try:
        if as_json:
            _repeat_json(read)
        else:
            _repeat_view(read, view)
    except KeyboardInterrupt:
        return


def _repeat_json(read: Read) -> None:
    """Print a document a line; while there is no supervisor, say so on stderr."""
    while True:
        try:
            echo_json(read())
        except EquipoiseError as error:
            complain(str(error))
        time.sleep(_REFRESH_S)


def _repeat_view(read: Read, view: View) -> None:
    from rich.live import Live

    out, seen = console(), None
    with ExitStack() as stack:
        live = stack.enter_context(Live(console=out, auto_refresh=False)) if out.is_terminal else None
        while True:
            seen, shown = _look(read, view, seen)
            if live:
                live.update(shown, refresh=True)
            else:
                show(shown)
            time.sleep(_REFRESH_S)


def _look(read: Read, view: View, seen: Document | None) -> "tuple[Document | None, RenderableType]":
    """Return what is there now, or what was there last under a line that says that it is old."""
    from equipoise.cli.status_view import outdated

    try:
        document = read()
    except EquipoiseError as error:
        return seen, outdated(str(error), None if seen is None else view(seen))
    return document, view(document)
