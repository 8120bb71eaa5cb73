"""What stands in the way of a pair, found before anything is changed.  Blocks."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from equipoise.base import processes, rights
from equipoise.base.errors import EngineError
from equipoise.engines import nft
from equipoise.engines.base import Refusal
from equipoise.engines.keepalived import presence, process
from equipoise.engines.keepalived.artifact import Artifact
from equipoise.engines.keepalived.files import Files

_OF_THE_SYSTEM = Path("/etc/keepalived/keepalived.conf")
_WHERE = ("cluster",)


def refusals(artifact: Artifact, files: Files) -> list[Refusal]:
    """Return why this machine cannot be one of the pair; where it can, nothing."""
    found = [*_programs(artifact), *_rights(), *_absent(artifact), *_same_number(artifact, files)]
    if found:
        return found
    try:
        said = process.complaints(files, artifact.configuration)
    except EngineError as error:
        return [Refusal(str(error), _WHERE)]
    return [Refusal(f"keepalived does not take its configuration: {line}", _WHERE) for line in said]


def _programs(artifact: Artifact) -> Iterator[Refusal]:
    for find in (process.program, nft.program):
        try:
            find()
        except EngineError as error:
            yield Refusal(str(error), _WHERE)
    for path in artifact.helpers:
        if not os.access(path, os.X_OK):
            yield Refusal(f"a pair needs the program {path}, and there is none here; install it: apt install procps")


def _rights() -> Iterator[Refusal]:
    if missing := rights.missing():
        yield Refusal(
            f"addresses cannot be shared with a peer without {' and '.join(missing)}; start as root, or add "
            "packaging/equipoise.service.d/layer4.conf to the systemd unit, which grants both",
            _WHERE,
        )


def _absent(artifact: Artifact) -> Iterator[Refusal]:
    there = presence.interfaces()
    doors = {each.interface for group in artifact.groups for each in group.addresses}
    if artifact.interface not in there:
        yield Refusal(
            f"there is no interface {artifact.interface!r} on this machine; see `ip link`", ("cluster", "interface")
        )
    for name in sorted(doors - there - {artifact.interface}):
        yield Refusal(f"there is no interface {name!r} on this machine; see `ip link`", ("network", "interface"))


def _same_number(artifact: Artifact, files: Files) -> Iterator[Refusal]:
    """Yield a number that the machine's own keepalived has on the same interface, where it runs and that is plain."""
    try:
        text = _OF_THE_SYSTEM.read_text(errors="replace")
    except OSError:
        return
    taken = {int(number) for number in re.findall(r"^\s*virtual_router_id\s+(\d+)", text, re.MULTILINE)}
    clash = [group.router_id for group in artifact.groups if group.router_id in taken]
    if clash and re.search(rf"^\s*interface\s+{re.escape(artifact.interface)}\s", text, re.MULTILINE) and _runs(files):
        yield Refusal(
            f"another keepalived runs on this machine and has the number {clash[0]} too, by {_OF_THE_SYSTEM}; write "
            "another one, or stop it: systemctl disable --now keepalived",
            ("cluster", "router_id"),
        )


def _runs(files: Files) -> bool:
    """Say whether a keepalived runs that is not ours."""
    lines = [processes.arguments(pid) for pid in processes.processes()]
    return any(
        words and Path(words[0]).name == "keepalived" and str(files.configuration) not in words for words in lines
    )
