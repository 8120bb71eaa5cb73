"""The command `equipoise`: finds the command groups beside it, and gives exit codes their meaning.

0 good; 1 an error, wrong use of a command, or no supervisor; 2 a finding.  Every module of this package that has a
`register(app)` is a command group.

Source: DESIGN, "Commands".
"""

import os
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from equipoise import __version__, cli
from equipoise.base.clock import SystemClock
from equipoise.base.errors import EquipoiseError
from equipoise.base.paths import directories
from equipoise.cli.output import complain
from equipoise.cli.surroundings import Servers, Surroundings

# The class of all wrong uses of a command.  typer 0.2x carries its own click and gives the class no name.
_UsageError: type[Any] = typer.BadParameter.mro()[1]

_EPILOG = """
[bold]Examples[/bold]
  equipoise demo --for 20s           see it work, on simulated archives
  equipoise check site.yaml          is this configuration good?
  equipoise run site.yaml            be the balancer, in the foreground
  equipoise status --watch           what goes on, and what is wrong
  equipoise node drain '*/pacs-a'    take a machine out of all its services
  equipoise plan site.yaml           what would `apply` change?
  equipoise cluster status           would the pair survive a machine's loss?

Exit codes: 0 good; 1 error, wrong use, no supervisor; 2 a finding (something
is down, a probe failed, a plan has changes).

EQUIPOISE_RUNTIME_DIR and EQUIPOISE_STATE_DIR choose the directories.
"""


class Commands(TyperGroup):
    """A group whose errors are one line on stderr and exit code 1; 2 is kept for findings."""

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        """Read the group's own options."""
        with _errors_in_words():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _errors_in_words():
            return super().invoke(ctx)


@contextmanager
def _errors_in_words() -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        error.exit_code = 1
        raise
    except BrokenPipeError:
        raise  # `equipoise events | head`: typer ends quietly
    except EquipoiseError as error:
        complain(str(error))
        raise typer.Exit(1) from None
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
        raise typer.Exit(1) from None


def build(servers: Servers) -> typer.Typer:
    """Return the whole command line; `run` is served by `servers`."""
    app = typer.Typer(
        cls=Commands,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,  # a bug's traceback as it is, without the values of variables
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback(epilog=_EPILOG)
    def equipoise(
        context: typer.Context,
        version: Annotated[
            bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
        ] = False,
    ) -> None:
        """Equipoise, a load balancer for medical imaging."""
        context.obj = Surroundings(
            directories=directories(os.environ, is_root=os.geteuid() == 0), clock=SystemClock(), servers=servers
        )

    for found in pkgutil.iter_modules(cli.__path__):
        module = import_module(f"{cli.__name__}.{found.name}")
        if register := getattr(module, "register", None):
            register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"equipoise {__version__}")
        raise typer.Exit(0)
