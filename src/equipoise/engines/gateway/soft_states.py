"""The supervisor's side of what two machines tell each other of clients: it asks gateways, and gives to them.

A gateway of another version may not know how; it is neither asked nor told.  Leaves out the way to the other machine.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from equipoise.base.errors import EngineError
from equipoise.engines.base import MOST_SHARED
from equipoise.engines.gateway.messages import Kept, KeptClient, Recall, Share
from equipoise.engines.gateway.worker import Worker
from equipoise.plan.soft import SoftEntry, SoftState, soft_table

_AT_ONCE = 4096  # entries of a message: a gateway merges so many in a few milliseconds, and then serves its clients
_PREFIX = soft_table("gateway", "persistence", "")

Tell = Callable[[SoftState], None]


class Listening:
    """Who is told what gateways learn, if anybody is."""

    def __init__(self) -> None:
        self._tell: Tell | None = None

    def set(self, tell: Tell | None, processes: Iterable[Worker]) -> None:
        """Have somebody else told, or nobody."""
        self._tell = tell
        for process in processes:
            if process.shares:
                process.channel.send(Share(on=tell is not None))

    def ask(self, process: Worker) -> None:
        """Ask a process that was not there before."""
        if self._tell is not None and process.shares:
            process.channel.send(Share(on=True))

    def heard(self, kept: Kept) -> None:
        """Pass on what a gateway learned."""
        if self._tell is not None and any(kept.tables.values()):
            self._tell(_state_of(kept))


async def all_known(processes: Sequence[Worker]) -> SoftState:
    """Return the tables of all services, each the youngest entries first.  Raises: EngineError."""
    state: dict[str, tuple[SoftEntry, ...]] = {}
    for process in processes:
        for task in process.tasks if process.shares else ():
            answer, _ = await process.channel.ask(Recall(service=task.name, most=MOST_SHARED))
            if isinstance(answer, Kept):
                state |= {table: entries for table, entries in _state_of(answer).items() if entries}
    return state


async def give(state: SoftState, processes: Iterable[Worker]) -> frozenset[str]:
    """Give each service's entries to the process that has it; return the services that none has.

    Raises: EngineError.
    """
    having = {task.name: process for process in processes for task in process.tasks}
    tables = {name.removeprefix(_PREFIX): entries for name, entries in state.items() if name.startswith(_PREFIX)}
    for service, entries in tables.items():
        process = having.get(service)
        if process is not None and process.shares:
            for part in _parts([(entry.key, entry.node, entry.left_s) for entry in entries[:MOST_SHARED]]):
                await process.tell(Kept(tables={service: part}))
    return frozenset(tables.keys() - having.keys())


def _state_of(kept: Kept) -> Mapping[str, tuple[SoftEntry, ...]]:
    return {f"{_PREFIX}{name}": tuple(SoftEntry(*entry) for entry in entries) for name, entries in kept.tables.items()}


def _parts(entries: Sequence[KeptClient]) -> Iterator[tuple[KeptClient, ...]]:
    for start in range(0, len(entries), _AT_ONCE):
        yield tuple(entries[start : start + _AT_ONCE])


def refuse_unserved(unserved: frozenset[str], wanted: Iterable[str]) -> None:
    """Raise EngineError where a service of the plan has no gateway at the moment."""
    if missing := sorted(unserved.intersection(wanted)):
        raise EngineError(f"no gateway has {', '.join(missing)} now, one is being started: give it the clients then")
