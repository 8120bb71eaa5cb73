"""`equipoise demo`: a simulated site and the balancer in front of it, on this machine alone.

No root, no package, no address but the loopback's; everything that it starts ends with it.
"""

import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.base.units import format_duration, parse_duration
from equipoise.cli.output import complain, console
from equipoise.cli.surroundings import surroundings

if TYPE_CHECKING:
    from rich.console import Console

    from equipoise.sim.demonstration import Demonstration
    from equipoise.sim.outcome import Outcome
    from equipoise.sim.site import Scene

_SHORTEST_S = 8.0  # a quarter of it must be long enough for two failed checks
_ROUND_S = 40.0  # until Ctrl-C, the story begins again after so long
_STEP_S = 0.25
_LINE_EVERY_S = 2.0
_SEED = 20310304
_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Try")(demo)


def _duration_s(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if seconds < _SHORTEST_S:
        raise typer.BadParameter(f"{text} is too short for the story; give at least {format_duration(_SHORTEST_S)}")
    return seconds


def _template(text: str) -> str:
    from equipoise.config.words import nearest
    from equipoise.templates.reader import names

    if text not in names():
        raise typer.BadParameter(f"there is no template {text!r}; {nearest(text, names())}")
    return text


def demo(
    context: typer.Context,
    lasts_s: Annotated[
        float | None,
        typer.Option("--for", metavar="DURATION", parser=_duration_s, help="Work so long; without it, until Ctrl-C."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(metavar="NAME", parser=_template, help="Play the services of this site template."),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep site.yaml, logs and what was stored in this directory, made new."),
    ] = None,
) -> None:
    """See it work: three simulated servers, the balancer, senders and viewers; no root, nothing to install.

    Each server has an archive and a receiver of HL7 messages.  One server is killed, one is drained, both return.  With
    a template, browsers log in to the web portal, too, and modalities ask for their worklist.  Exit code 0: every
    object that a sender was told is stored and every message that one was told is taken was found unharmed, messages
    came in order, no request failed on a node that was up, and work went on throughout.
    """
    clock = surroundings(context).clock
    with ExitStack() as stack:
        stack.enter_context(_interruptible())
        outcome = _perform(stack, clock, lasts_s, template, keep)
        problems = _show(outcome)
    raise typer.Exit(1 if problems else 0)


def _perform(stack: ExitStack, clock: Any, lasts_s: float | None, template: str | None, keep: Path | None) -> "Outcome":
    """Run the demonstration; what `stack` is told to close is closed in every case."""
    # pynetdicom takes a second to import, which no other command needs.
    from equipoise.cli.client import Client
    from equipoise.sim.demonstration import Demonstration
    from equipoise.sim.peers import speak_quietly
    from equipoise.sim.site import NODES, Places, Site
    from equipoise.sim.story import beats

    speak_quietly()
    # Not below TMPDIR: Unix socket paths are limited to 107 bytes, and some systems give each user a long one.
    short = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="equipoise-", dir="/tmp")))
    work = _work_directory(short, keep)
    site = Site(Places(work=work, short=short), scene=_scene(template))
    stack.callback(_close, site)
    story = beats(NODES, lasts_s or _ROUND_S)
    bounded = story if lasts_s is None else takewhile(lambda beat: beat.at_s < lasts_s, story)
    demonstration = Demonstration(site, Client(short / "run" / "api.sock"), clock, story=bounded, seed=_SEED)
    stack.callback(demonstration.stop)
    out = console()
    out.print(f"Starting {_cast(site.scene, template)}, and the balancer in front of them …")
    return _work(demonstration, out, lasts_s)


def _scene(template: str | None) -> "Scene | None":
    from equipoise.sim.scene import TemplateScene
    from equipoise.sim.site import NODES

    return TemplateScene(template, NODES) if template else None


def _cast(scene: "Scene", template: str | None) -> str:
    if template is None:
        return "three servers, each with an archive on a shared store and an HL7 receiver"
    services = ", ".join(scene.services)
    return f"three servers with a shared store, for the services of {template} ({services})"


def _work(demonstration: "Demonstration", out: "Console", lasts_s: float | None) -> "Outcome":
    demonstration.start()
    try:
        if out.is_terminal:
            _show_live(demonstration, out, lasts_s)
        else:
            _show_lines(demonstration, out, lasts_s)
    except KeyboardInterrupt:
        out.print(f"Interrupted after {demonstration.elapsed_s:.0f} s.")
    out.print("Stopping the devices and reading back what the archives hold …")
    return demonstration.finish(expect_whole_story=lasts_s is not None)


def _steps(demonstration: "Demonstration", lasts_s: float | None) -> Iterator[None]:
    while not demonstration.failed and (lasts_s is None or demonstration.elapsed_s < lasts_s):
        demonstration.step()
        yield
        time.sleep(_STEP_S)


def _show_live(demonstration: "Demonstration", out: "Console", lasts_s: float | None) -> None:
    from rich.live import Live

    from equipoise.cli.demo_view import live_view

    with Live(console=out, auto_refresh=False) as live:
        for _ in _steps(demonstration, lasts_s):
            live.update(live_view(demonstration.progress(), lasts_s), refresh=True)


def _show_lines(demonstration: "Demonstration", out: "Console", lasts_s: float | None) -> None:
    from equipoise.cli.demo_view import plain_line

    told, next_line_s = 0, _LINE_EVERY_S
    for _ in _steps(demonstration, lasts_s):
        progress = demonstration.progress()
        for text in progress.told[told:]:
            out.print(text)
        told = len(progress.told)
        if progress.elapsed_s >= next_line_s:
            out.print(plain_line(progress))
            next_line_s += _LINE_EVERY_S


def _show(outcome: "Outcome") -> list[str]:
    from equipoise.cli.demo_view import summary

    out, problems = console(), outcome.problems()
    out.print(summary(outcome))
    for problem in problems:
        complain(problem)
    if not problems:
        web = ", no request failed on a node that was up" if outcome.tally.pages else ""
        what = "object and HL7 message" if outcome.messages is not None else "object"
        out.print(f"Good: every acknowledged {what} was found unharmed{web}, and work went on throughout.")
    return problems


def _work_directory(short: Path, keep: Path | None) -> Path:
    if keep is None:
        return short
    try:
        keep.mkdir(parents=True)
    except FileExistsError:
        raise typer.BadParameter(
            f"{keep} is there already; name a directory that is not", param_hint="--keep"
        ) from None
    return keep.absolute()


def _close(site: Any) -> None:
    for number in _INTERRUPTIONS:
        signal.signal(number, signal.SIG_IGN)  # the end takes seconds, and must not be left half done
    for text in site.close():
        complain(text)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the work as Ctrl-C does."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in _INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
