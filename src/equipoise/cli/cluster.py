"""`equipoise cluster`: two machines that take over from each other, made, looked at, and ended.

Leaves out the waiting for the second machine (`cluster_join.py`) and how the status looks (`cluster_view.py`).
"""

import sys
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.base.errors import EquipoiseError
from equipoise.cli.cluster_findings import findings
from equipoise.cli.cluster_join import invite, join_with
from equipoise.cli.output import JSON_HELP, echo_json, printable, show
from equipoise.cli.surroundings import Surroundings, surroundings
from equipoise.cli.watching import WATCH_HELP, watch

if TYPE_CHECKING:
    from rich.console import RenderableType

_FINDING = 2
_LOOK_S, _SETTLES_S = 0.25, 2.0  # the two machines tell each other how they are several times a second

_Json = Annotated[bool, typer.Option("--json", help=JSON_HELP)]


class Role(StrEnum):
    """Which of the two a machine is, and which group of addresses is at home there."""

    PRIMARY = "primary"
    SECONDARY = "secondary"


class Take(StrEnum):
    """Whose document."""

    OURS = "ours"
    THEIRS = "theirs"


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="A pair of machines: make it, look at it, hand over, end it.")
    for command in (status, join, leave, sync, handover):
        group.command()(command)
    app.add_typer(group, name="cluster", rich_help_panel="Operate")


def status(
    context: typer.Context,
    as_json: _Json = False,
    watching: Annotated[bool, typer.Option("--watch", "-w", help=WATCH_HELP)] = False,
) -> None:
    """Say whether the pair would survive the loss of either machine now, and who has which address since when.

    The first line answers; where it is no, it says why, and the next one what to do.  Both machines can be asked.

    Exit code 0: all is well; 2: a finding: the peer is not joined or does not answer, a fault here or there, an address
    that both machines have or neither, a service at an address that does not move, documents in conflict, overrides
    that differ for long; 1: no supervisor.
    """
    around = surroundings(context)
    if watching:
        watch(around.client().cluster, lambda document: _view(document, around), as_json=as_json)
        return
    document = _settled(around)
    if as_json:
        echo_json(document)
    else:
        show(_view(document, around))
    raise typer.Exit(_FINDING if findings(document) else 0)


def _settled(around: Surroundings) -> dict[str, Any]:
    """Return the status; what may be over in a moment, as in the middle of a handover, is looked at again."""
    ends_s = around.clock.monotonic() + _SETTLES_S
    while True:
        document = around.client().cluster()
        if around.clock.monotonic() > ends_s or not any(each.passing for each in findings(document)):
            return document
        time.sleep(_LOOK_S)


def join(
    context: typer.Context,
    peer: Annotated[str, typer.Argument(metavar="PEER", help="The other machine: ADDRESS, or ADDRESS:PORT.")],
    *,
    token: Annotated[str | None, typer.Option(metavar="T", help="What the other machine printed.")] = None,
    role: Annotated[Role | None, typer.Option(help="Which of the two this machine is.")] = None,
    address: Annotated[
        str | None, typer.Option(metavar="OWN", help="This machine's address; by default the one that leads to PEER.")
    ] = None,
    interface: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Where the two hear each other; by default the one that leads to PEER."),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the command for the other, and end.")] = False,
    as_json: _Json = False,
) -> None:
    """Make this machine and PEER a pair: first without a token, on the machine whose document both are to have.

    It prints the command for the other machine, with a token that works once, and waits until that was run there.  The
    other one then has this machine's document, and keeps its own among its revisions.

    Exit code 0: joined, or invited and not waited for; 2: invited, but nobody came; 1: an error.
    """
    _require_address(_without_port(peer), "PEER", "the other machine")
    if address is not None:
        _require_address(address, "--address", "this machine")
    around = surroundings(context)
    wanted = {"peer": peer, "token": token, "role": role, "address": address, "interface": interface}
    if token is not None:
        join_with(around, wanted, as_json=as_json)
        return
    joined = invite(around, wanted, wait=not no_wait, as_json=as_json)
    raise typer.Exit(0 if joined or no_wait else _FINDING)


def leave(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: _Json = False,
) -> None:
    """End the pair: this machine gives up the addresses, and its peer serves on alone.

    `equipoise cluster handover` first moves what is here with the least loss.  To undo it, join again.  While an
    invitation is open, that alone is taken back.

    Exit code 0: both know; 2: the peer could not be told, so it has to leave by itself; 1: an error, or not wanted.
    """
    client = surroundings(context).client()
    document = client.cluster()
    invited = document["invitation"]
    if not yes and document["configured"] and invited is None:
        _ask_whether_to_leave(document)
    left = client.change_cluster("leave")
    if as_json:
        echo_json(left)
    elif invited is not None:
        typer.echo(f"the invitation of {printable(invited['peer'])} was taken back, and nothing else was changed")
    elif left["peer_knows"]:
        typer.echo(f"left; {printable(left['peer'])} knows, and serves on alone")
    else:
        typer.secho(
            f"left; {printable(left['peer'])} could not be told: run `equipoise cluster leave` there too", fg="yellow"
        )
    raise typer.Exit(0 if left["peer_knows"] or invited is not None else _FINDING)


def sync(
    context: typer.Context,
    take: Annotated[Take | None, typer.Option(help="Whose document both are to have, after a conflict.")] = None,
    as_json: _Json = False,
) -> None:
    """Make the documents of both machines the same, which else happens by itself.

    The higher revision wins.  Where both were given a document while they could not talk, the difference is shown and
    nothing is changed, until `--take` says whose document both are to have; the other one is kept among the revisions.

    Exit code 0: both have the same; 2: a conflict; 1: an error.
    """
    around = surroundings(context)
    done = around.client().change_cluster("sync", take=take)
    if as_json:
        echo_json(done)
    else:
        _show_sync(done, around)
    raise typer.Exit(_FINDING if done["result"] == "conflict" else 0)


def handover(
    context: typer.Context,
    group: Annotated[
        Role | None, typer.Option(help="The addresses that are at home on this one of the two; by default all.")
    ] = None,
    here: Annotated[bool, typer.Option("--here", help="Take them, instead of giving them to the peer.")] = False,
    as_json: _Json = False,
) -> None:
    """Give the addresses that this machine has to the peer, or with --here take those of the peer.

    For maintenance: what is open in `l7_snat` ends with its connection, and clients that connect meanwhile wait a
    moment.  A machine that could not serve them is not given any.
    """
    client = surroundings(context).client()
    done = client.change_cluster("handover", groups=[] if group is None else [group], here=here)
    if as_json:
        echo_json(done)
        return
    moved = [each for each in client.cluster()["groups"] if each["name"] in done["groups"]]
    addresses = ", ".join(address for each in moved for address in each["addresses"])
    who = "this machine" if here else "the peer"
    if not addresses:
        typer.echo("nothing to move: it is where it is wanted")
        return
    typer.echo(printable(f"{done['to']}, {who}, has {addresses} now, after {done['within_ms']:.0f} ms"))


def _view(document: dict[str, Any], around: Surroundings) -> "RenderableType":
    from equipoise.cli.cluster_view import view

    return view(document, around.clock.wall())


def _require_address(text: str, what: str, whose: str) -> None:
    from equipoise.config.fields import numeric

    if numeric(text) is None:
        raise EquipoiseError(f"{what}: {text!r} is no IP address; write that of {whose}, for example 10.0.0.3")


def _without_port(text: str) -> str:
    from equipoise.config.fields import split_port

    try:
        return split_port(text)[0]
    except ValueError as error:
        raise EquipoiseError(f"PEER: {error}") from None


def _ask_whether_to_leave(document: dict[str, Any]) -> None:
    """Say what leaving means.  Raises: EquipoiseError where nobody can be asked, or does not want it."""
    if not sys.stdin.isatty():
        raise EquipoiseError("leaving ends the pair, and nobody can be asked here; add --yes if that is meant")
    peer = document["peer"]
    typer.echo(
        f"This ends the pair with {printable(peer['address'])}.  Neither machine takes over from the other any more, "
        "and documents, overrides and persistence do not reach the other one."
    )
    here = [address for group in document["groups"] if group["here"] == "master" for address in group["addresses"]]
    if here:
        then = "the peer takes them" if peer["connected"] else "the peer does not answer, so perhaps NOBODY serves them"
        typer.echo(f"{printable(', '.join(here))}: given up here, and {then}.")
    if not typer.confirm("Leave?"):
        raise EquipoiseError("nothing was changed")


def _show_sync(done: dict[str, Any], around: Surroundings) -> None:
    match done["result"]:
        case "same":
            typer.echo(f"revision {done['ours']} is in force on both; there was nothing to do")
        case "sent":
            typer.echo(f"revision {done['ours']}, this machine's, is in force on both; the peer keeps the one before")
        case "taken":
            kept = around.directories.state / "revisions"
            typer.echo(f"revision {done['theirs']}, the peer's, is in force on both; the one before is in {kept}")
        case _:
            _show_conflict(done)


def _show_conflict(done: dict[str, Any]) -> None:
    from equipoise.plan.diff import Change, What

    typer.secho(
        "conflict: both machines were given a document while they could not talk: "
        f"revision {done['ours']} here, {done['theirs']} on the peer",
        fg="red",
    )
    typer.echo("what the peer's would change here:" if done["difference"] else "the two mean the same")
    for change in done["difference"]:
        text = Change(change["path"], What(change["what"]), change["old"], change["new"]).to_text()
        typer.echo(f"  {printable(text)}")
    typer.echo("nothing was changed; either of these settles it, and keeps the other document among the revisions:")
    typer.echo("  equipoise cluster sync --take ours      both get this machine's document")
    typer.echo("  equipoise cluster sync --take theirs    both get the peer's document")
