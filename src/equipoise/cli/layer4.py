"""`equipoise layer4`: what goes with services that the kernel carries.  Needs no supervisor."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.base.errors import EquipoiseError
from equipoise.cli.output import JSON_HELP, echo_json

if TYPE_CHECKING:
    from equipoise.app.prepare_node.apply import Done
    from equipoise.app.prepare_node.wanted import Wanted

_FINDING = 2


class System(StrEnum):
    """What a node runs."""

    LINUX = "linux"
    WINDOWS = "windows"


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Prepare nodes for services with `mode: l4_dr`.")
    group.callback()(_layer4)
    group.command("prepare-node")(prepare_node)
    app.add_typer(group, name="layer4", rich_help_panel="Configure")


def _layer4() -> None:
    """Prepare nodes for services with `mode: l4_dr`."""


def prepare_node(
    site: Annotated[
        Path | None, typer.Argument(metavar="SITE.yaml", help="The site's configuration; without it, `--vip`.")
    ] = None,
    node: Annotated[
        str | None, typer.Argument(metavar="NODE", help="The node's name there, as `pacs-a` or `SERVICE/pacs-a`.")
    ] = None,
    *,
    vip: Annotated[
        list[str] | None,
        typer.Option("--vip", metavar="ADDRESS", help="A virtual address, where no site is given; again for more."),
    ] = None,
    interface: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Where packets come in.  By default all of a Linux node; of a Windows node the one with its address.",
        ),
    ] = None,
    system: Annotated[System, typer.Option("--for", help="What the node runs: linux or windows.")] = System.LINUX,
    apply: Annotated[bool, typer.Option("--apply", help="Do it, on this Linux machine, as root.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back, on this Linux machine, as root.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Print what a node needs to take packets by direct routing (`mode: l4_dr`), as a script to run there.

    The node must have the virtual addresses, and must not answer for them.  Name the site's file and the node, and the
    addresses are those of all its services with `mode: l4_dr`; or name the addresses with `--vip`.  Printing changes
    nothing, needs no rights, and the script needs no Equipoise on the node.

    Exit code 0: done, or printed; 2: done, with a remark; 1: an error.
    """
    if (apply or undo) and system is System.WINDOWS:
        raise EquipoiseError("--apply and --undo are for the Linux machine that this runs on; print the script instead")
    if apply and undo:
        raise EquipoiseError("--apply and --undo are opposites; give one of them")
    if undo:
        from equipoise.app.prepare_node.apply import undo as take_back

        _tell(take_back(), as_json)
        return
    wanted = _wanted(site, node, vip or [])
    if apply:
        from equipoise.app.prepare_node.apply import apply as prepare

        _tell(prepare(wanted, interface), as_json)
        return
    _print(wanted, interface, system, as_json)


def _wanted(site: Path | None, node: str | None, vip: list[str]) -> "Wanted":
    from equipoise.app.prepare_node.wanted import of_site, of_words

    if site is not None and node is not None and not vip:
        return of_site(site, node)
    if site is None and vip:
        return of_words(vip)
    raise EquipoiseError("say which addresses: `SITE.yaml NODE`, or `--vip ADDRESS` without a site")


def _print(wanted: "Wanted", interface: str | None, system: System, as_json: bool) -> None:
    from equipoise.app.prepare_node import linux, windows

    script = (windows if system is System.WINDOWS else linux).script(wanted, interface)
    if not as_json:
        typer.echo(script.rstrip())
        return
    found: dict[str, Any] = {
        "for": system,
        "addresses": wanted.addresses,
        "ports": wanted.ports,
        "services": wanted.services,
        "script": script,
    }
    if system is System.LINUX:
        values = linux.settings(wanted, interface)
        found["settings"] = {name.replace("/", "."): value for name, value in values.items()}
        found["files"] = {
            linux.SETTINGS_FILE: linux.settings_file(values),
            linux.UNIT_FILE: linux.unit_file(wanted.addresses),
        }
    echo_json(found)


def _tell(done: "Done", as_json: bool) -> None:
    if as_json:
        echo_json({"changed": done.changed, "unchanged": done.unchanged, "remarks": done.remarks})
    else:
        for what, lines in (("changed", done.changed), ("was so", done.unchanged), ("remark", done.remarks)):
            for line in lines:
                typer.echo(f"{what:8} {line}")
        if not (done.changed or done.unchanged):
            typer.echo("nothing of it was here")
    raise typer.Exit(_FINDING if done.remarks else 0)
