"""How two machines become a pair, as seen from a command line: inviting and waiting, or coming with a token."""

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import typer

from equipoise.cli.output import console, echo_json, printable

if TYPE_CHECKING:
    from equipoise.cli.surroundings import Surroundings

_LOOK_S = 0.5
_SETTLES_S = 5.0  # an invitation is gone as soon as it was used, and the pair there once the plan is new
_NEXT = "`equipoise cluster status` says whether the pair would survive the loss of a machine"


def join_with(around: "Surroundings", wanted: dict[str, Any], *, as_json: bool) -> None:
    """Come to the machine that gave a token.  Raises: EquipoiseError."""
    done = around.client().change_cluster("join", **wanted)
    if as_json:
        echo_json(done)
        return
    peer, kept = printable(done["peer"]), around.directories.state / "revisions"
    typer.echo(f"joined {peer}; this machine is the {done['role']}")
    typer.echo(f"revision {done['revision']}, the document of {peer}, is in force here; the one before is in {kept}")
    typer.echo(_NEXT)


def invite(around: "Surroundings", wanted: dict[str, Any], *, wait: bool, as_json: bool) -> bool:
    """Print the command for the other machine and wait until it came; return whether it did."""
    invitation = around.client().change_cluster("join", **wanted)
    peer, left_s = wanted["peer"], invitation["expires_s"]
    if as_json:
        echo_json(invitation)
    else:
        typer.echo(f"run this on {peer}, where `equipoise run` serves already, within {_clock(left_s)} minutes:\n")
        typer.echo(f"  {printable(invitation['command'])}\n")
        typer.echo("the token works once; whoever has it can join, so keep it to yourself")
    if not wait:
        return False
    try:
        document = _wait(around, peer, quiet=as_json)
    except KeyboardInterrupt:
        if not as_json:
            typer.echo("not waiting any more; the invitation stays open, and `equipoise cluster status` tells the rest")
        return False
    _tell(peer, document, as_json=as_json)
    return bool(document["joined"])


def _wait(around: "Surroundings", peer: str, *, quiet: bool) -> dict[str, Any]:
    """Return the status once the invitation is gone: somebody came with the token, or it ended."""
    from rich.live import Live
    from rich.text import Text

    out = console()
    with ExitStack() as stack:
        shows = out.is_terminal and not quiet
        live = stack.enter_context(Live(console=out, auto_refresh=False, transient=True)) if shows else None
        while (invited := (document := around.client().cluster())["invitation"]) is not None:
            if live:
                left = _clock(invited["expires_s"])
                live.update(Text(f"waiting for {peer}, {left} left; Ctrl-C leaves the invitation open"), refresh=True)
            time.sleep(_LOOK_S)
    ends_s = around.clock.monotonic() + _SETTLES_S
    while not document["joined"] and around.clock.monotonic() < ends_s:
        time.sleep(_LOOK_S)
        document = around.client().cluster()
    return document


def _tell(peer: str, document: dict[str, Any], *, as_json: bool) -> None:
    if not document["joined"]:
        if as_json:
            echo_json({"state": "expired", "peer": peer})
        else:
            typer.echo(f"{peer} did not come, and the token is of no use any more; join again for a new one")
        return
    role, revision = document["role"], (document["revision"] or {}).get("ours")
    if as_json:
        echo_json({"state": "joined", "peer": peer, "role": role, "revision": revision})
        return
    typer.echo(f"{peer} has joined; this machine's document is for both from now on, as revision {revision}")
    typer.echo(_NEXT)


def _clock(seconds: float) -> str:
    """Return minutes and seconds.

    >>> _clock(599.2)
    '9:59'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
