"""What HAProxy counts, from `show stat`: connections, bytes, and what its own checks say of nodes.

Every worker is asked, the one that serves and old ones that still have connections.  A new worker counts from zero, so
that what the workers before it counted is added here.
Source: HAProxy's management guide, section 9.1 (fields) and 9.3 (`show stat`).
"""

import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from equipoise.base.errors import EngineError
from equipoise.engines.base import NodeCount, Observation
from equipoise.engines.haproxy import master
from equipoise.engines.haproxy.files import Files
from equipoise.engines.haproxy.runtime import Worker, ask, ask_worker
from equipoise.plan.states import node_key

_CHECKS = {  # field check_status, where what HAProxy says would not do
    "L4TOUT": "did not take the connection in time",
    "L6TOUT": "did not finish TLS in time",
    "L7TOUT": "did not answer in time",
    "L4CON": "connection failed",
    "L6RSP": "TLS failed",
    "L7RSP": "answered something else than HTTP",
    "SOCKERR": "no socket for the check",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One server, or one frontend, of one worker.

    Attributes:
        refused: Why HAProxy's own check holds the server to be down; None where it does not.
    """

    proxy: str
    name: str
    connections: int
    bytes_in: int
    bytes_out: int
    refused: str | None

    @property
    def is_frontend(self) -> bool:
        """Whether these are clients' connections."""
        return self.name == "FRONTEND"


def rows(lines: Sequence[str]) -> list[Row]:
    """Return the rows of servers and frontends in an answer to `show stat`; lines that are none are left out."""
    table = [line for line in lines if "," in line]
    if not table:
        return []
    reader = csv.DictReader([table[0].removeprefix("# "), *table[1:]])
    return [_row(fields) for fields in reader if fields.get("svname") not in (None, "BACKEND")]


def _row(fields: Mapping[str, str]) -> Row:
    return Row(
        proxy=fields["pxname"],
        name=fields["svname"],
        connections=_number(fields["scur"]),
        bytes_in=_number(fields["bin"]),
        bytes_out=_number(fields["bout"]),
        refused=_reason(fields) if fields["status"].startswith("DOWN") else None,
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _reason(fields: Mapping[str, str]) -> str:
    """Return in plain words why a check failed."""
    kind, said = fields.get("check_status", "").removeprefix("* "), fields.get("last_chk", "")
    if kind == "L7STS":
        return f"answered HTTP {fields.get('check_code', '')}"
    if kind.endswith("TOUT"):
        return _CHECKS.get(kind, "did not answer in time")
    plain = f"{said[:1].lower()}{said[1:]}" if said[1:2].islower() else said  # "SSL" stays as it is
    known = _CHECKS.get(kind)
    if known is None or kind == "L4CON":
        return plain or known or fields.get("check_desc", "") or "its check fails"
    return f"{known}: {plain}" if plain else known


class Tally:
    """Counters of all workers there have been: those of a worker that is gone stay, as they were seen last."""

    def __init__(self) -> None:
        self._bytes: dict[int, dict[str, tuple[int, int]]] = {}  # by worker, then by SERVICE/NODE
        self._gone: dict[str, tuple[int, int]] = {}

    def take(self, workers: Mapping[int, Sequence[Row]], services: Collection[str]) -> Observation:
        """Take what every worker counts now, and return the sum; of other services nothing is kept."""
        for pid in self._bytes.keys() - workers.keys():
            self._add_gone(self._bytes.pop(pid))
        self._gone = {key: value for key, value in self._gone.items() if key.split("/")[0] in services}
        everything = [row for counted in workers.values() for row in counted if row.proxy in services]
        for pid, counted in workers.items():
            servers = _servers(row for row in counted if row.proxy in services)
            self._bytes[pid] = {key: (row.bytes_in, row.bytes_out) for key, row in servers}
        counts = [Observation(nodes={key: NodeCount(bytes_in=i, bytes_out=o)}) for key, (i, o) in self._gone.items()]
        counts += [_observed(row) for row in everything]
        return _sum(counts)

    def _add_gone(self, counted: Mapping[str, tuple[int, int]]) -> None:
        for key, (bytes_in, bytes_out) in counted.items():
            before = self._gone.get(key, (0, 0))
            self._gone[key] = (before[0] + bytes_in, before[1] + bytes_out)


def refused(counted: Iterable[Row]) -> dict[str, str]:
    """Return by "SERVICE/NODE" why HAProxy's own checks hold nodes to be down."""
    return {key: row.refused for key, row in _servers(counted) if row.refused is not None}


def _servers(counted: Iterable[Row]) -> Iterator[tuple[str, Row]]:
    return ((node_key(row.proxy, row.name), row) for row in counted if not row.is_frontend)


def _observed(row: Row) -> Observation:
    if row.is_frontend:
        return Observation(connections={row.proxy: row.connections})
    count = NodeCount(row.connections, 0, row.bytes_in, row.bytes_out)
    return Observation(nodes={node_key(row.proxy, row.name): count})


def _sum(counts: Sequence[Observation]) -> Observation:
    nodes: dict[str, NodeCount] = {}
    connections: dict[str, int] = {}
    for count in counts:
        for key, node in count.nodes.items():
            nodes[key] = nodes.get(key, NodeCount()) + node
        for service, number in count.connections.items():
            connections[service] = connections.get(service, 0) + number
    return Observation(nodes, connections)


class Counting:
    """What HAProxy counted so far; `serving` is the worker that was asked last."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._tally = Tally()
        self.serving: Worker | None = None

    async def observe(self, services: Collection[str], takes_part: Callable[[str], bool]) -> Observation:
        """Return what these services count; nodes that take no part are refused by nobody.  Raises: EngineError."""
        if not services:
            return Observation()
        mine, counted = await self._serving()
        observed = self._tally.take({mine.pid: counted, **await self._old()}, services)
        reasons = {key: reason for key, reason in refused(counted).items() if takes_part(key)}
        nodes = {key: _with_reason(count, reasons.get(key)) for key, count in observed.nodes.items()}
        return replace(observed, nodes=nodes)

    async def refused(self) -> dict[str, str]:
        """Return by "SERVICE/NODE" why HAProxy's own checks hold nodes to be down.  Raises: EngineError."""
        return refused((await self._serving())[1])

    async def _serving(self) -> tuple[Worker, list[Row]]:
        self.serving, lines = await ask_worker(self._files.worker_socket, "show stat")
        return self.serving, rows(lines)

    async def _old(self) -> dict[int, list[Row]]:
        """Return what old workers count; one that ends at this moment is left out."""
        counted: dict[int, list[Row]] = {}
        with suppress(EngineError):
            for pid in (await master.family(self._files)).old:
                with suppress(EngineError):
                    counted[pid] = rows(await ask(self._files.master_socket, f"@!{pid} show stat"))
        return counted


def _with_reason(count: NodeCount, reason: str | None) -> NodeCount:
    return count if reason is None else replace(count, refused=reason)
