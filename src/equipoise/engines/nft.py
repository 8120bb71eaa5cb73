"""The program nft: a text is one transaction, which the kernel takes whole or not at all.  Blocks.

Leaves out reading the maps of layer 4, which it does too slowly where there are many flows (`layer4/kernel_tables.py`).
"""

import os
import re
from collections.abc import Iterator, Sequence

from equipoise.base.errors import EngineError, EquipoiseError
from equipoise.base.processes import Ended, find_program, run_to_end

_WAIT_S = 30.0
_SAID = re.compile(r"(?:/dev/stdin|-):\d+:\d+-\d+: Error: (?P<why>.*)")
_NO_RIGHT = "Operation not permitted"


def program() -> str:
    """Return the path of nft.  Raises: EngineError where there is none."""
    found = find_program("nft")
    if found is None:
        raise EngineError("packet rules need the program nft, and there is none here; install it: apt install nftables")
    return found


def run(text: str, *, only_check: bool = False) -> None:
    """Put a transaction into force, or see whether it could be.  Raises: EngineError, with nothing changed."""
    ended = _ended([*(["--check"] if only_check else []), "--file", "-"], text)
    if ended.code:
        raise EngineError(_in_words(ended.output, text))


def listed(family: str, table: str) -> str:
    """Return a table as nft prints it; nothing where there is none.  Raises: EngineError."""
    ended = _ended(["list", "table", family, table])
    return "" if ended.code else ended.output


def _ended(options: Sequence[str], given: str = "") -> Ended:
    command, environment = [program(), *options], {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
    try:
        return run_to_end(command, _WAIT_S, environment, given=given.encode())
    except (OSError, EquipoiseError) as error:
        raise EngineError(f"nft cannot be asked: {error}") from None


def _in_words(output: str, text: str) -> str:
    """Return what nft said, with the line that it minds, for people."""
    if _NO_RIGHT in output:
        return (
            "the kernel lets this user change no packet rules; start as root, or add "
            "packaging/equipoise.service.d/layer4.conf to the systemd unit, which grants CAP_NET_ADMIN"
        )
    said = list(_findings(output, text))
    return f"the kernel does not take the packet rules: {'; '.join(said) or output.strip()[:500]}"


def _findings(output: str, text: str) -> Iterator[str]:
    """Yield each complaint once, with the beginning of its line; one is followed by many that follow from it."""
    lines = text.splitlines()
    for found in list(_SAID.finditer(output))[:3]:
        number = int(found.group().split(":")[1])
        line = lines[number - 1] if 0 < number <= len(lines) else ""
        yield f"{found['why']} in `{line[:160]}`"
