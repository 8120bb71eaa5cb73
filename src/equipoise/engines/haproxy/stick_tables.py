"""Which node each client keeps, carried over a reload: HAProxy's new worker begins with empty tables.

A machine alone has no `peers`: for the old worker to teach the new one by them, something must be open that keeps it
until then.  In a pair they do it (`render_peers.py`), usually before we look; as they know the time left, what is there
by then stays as it is, and only what is missing is given here.
Nodes have other numbers where the configuration changed, so entries go by name; those of nodes that left are dropped.
The time that an entry lives begins anew.  Source: docs/adr/0010-haproxy.md; HAProxy's management guide, `show table`.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from equipoise.engines.haproxy.artifact import Pool
from equipoise.engines.haproxy.runtime import ask, tell
from equipoise.engines.haproxy.servers import servers

MOST_ENTRIES = 100_000  # of one table: 5 s of work at a reload; more clients than a hospital has
_READ_S = 10.0
_CHUNK = 1000  # then others of our loop have their turn
# Addresses alone: nothing else may become a command.
_ENTRY = re.compile(r"\bkey=([0-9A-Fa-f.:]+) .*?\bserver_id=(\d+)")

Remembered = Mapping[str, Mapping[str, str]]  # by service: a client's address to its node's name


async def remember(worker_socket: Path, pools: Sequence[Pool]) -> dict[str, dict[str, str]]:
    """Return which node every client keeps now, by service.  Raises: EngineError."""
    names = await _names(worker_socket)
    remembered = {}
    for pool in pools:
        if pool.table is not None:
            entries = await _entries(worker_socket, pool.table)
            numbers = {number: name for (service, number), name in names.items() if service == pool.service}
            remembered[pool.service] = {key: numbers[number] for key, number in entries if number in numbers}
    return remembered


async def carry_over(worker_socket: Path, mark: str, pools: Sequence[Pool], remembered: Remembered) -> int:
    """Give the worker that runs `mark` what was remembered and it does not know; return how many entries.

    Raises: EngineError.
    """
    carried = 0
    numbers = {(service, name): number for (service, number), name in (await _names(worker_socket)).items()}
    for pool in pools:
        entries = remembered.get(pool.service, {})
        if pool.table is None or not entries:
            continue
        known = {key for key, _ in await _entries(worker_socket, pool.table)}
        commands = [
            f"set table {pool.table} key {key} data.server_id {numbers[pool.service, name]}"
            for key, name in entries.items()
            if key not in known and (pool.service, name) in numbers
        ]
        for start in range(0, len(commands), _CHUNK):
            await tell(worker_socket, mark, commands[start : start + _CHUNK])
            await asyncio.sleep(0)
        carried += len(commands)
    return carried


async def _entries(worker_socket: Path, table: str) -> list[tuple[str, int]]:
    return list(entries(await ask(worker_socket, f"show table {table}", _READ_S, most_lines=MOST_ENTRIES)))


async def _names(worker_socket: Path) -> dict[tuple[str, int], str]:
    return {(row.service, row.number): row.node for row in servers(await ask(worker_socket, "show servers state"))}


def entries(lines: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield clients and numbers of their nodes from an answer to `show table`."""
    for line in lines:
        if (entry := _ENTRY.search(line)) is not None:
            yield entry[1], int(entry[2])
