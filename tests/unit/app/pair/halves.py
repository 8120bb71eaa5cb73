"""Two halves of a pair in one process: real files, real TLS between loopback addresses, real documents.

Stand-ins are the supervisor around each half, its engines, and keepalived, which would need two machines: here a
`Segment` says who has which addresses.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

from equipoise.__main__ import Servers
from equipoise.app.document import DocumentStore
from equipoise.app.engines import Engines
from equipoise.app.inputs import Inputs, own_facts
from equipoise.app.nodes import NodeBook
from equipoise.app.offline import Preview
from equipoise.app.pair.pair import Pair, Wiring
from equipoise.app.wiring import catalogue
from equipoise.base.clock import SystemClock
from equipoise.base.errors import EquipoiseError
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.cluster.here import write_here
from equipoise.cluster.identity import own_identity, store_peer
from equipoise.config.cluster import Here
from equipoise.config.loading import Document, load
from equipoise.engines.base import Observation, Refusal
from equipoise.engines.keepalived.groups import GroupNow
from equipoise.engines.keepalived.runner import KeepalivedEngine
from equipoise.plan.diff import diff
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Plan
from equipoise.plan.soft import SoftEntry, SoftState
from equipoise.plan.states import NodeState, NodeStates
from equipoise.sim.ports import free_port
from equipoise.state.events import Event
from tests.unit.engines.running import eventually

FIRST, SECOND = "127.0.0.1", "127.0.0.2"
OPPOSITE = {FIRST: SECOND, SECOND: FIRST}
TABLE = "gateway/persistence/ct"


@cache
def _read(text: str) -> Document:
    """Read a document once for both machines, with the check alone that it needs: models take long to make."""
    known = catalogue()
    few = {name: check for name, check in known.checks.items() if name in ("dicom_echo", "tcp")}
    return load(text, "site.yaml", replace(known, checks=few))


def document(site: str = "here", port: int | None = None, nodes: str = "a", more: str = "") -> str:
    """Return a document; its name says which it is."""
    return "\n".join(
        [
            f"site: {site}",
            *([f"cluster: {{port: {port}{more}}}"] if port is not None else []),
            "services:",
            "  ct:",
            "    protocol: dicom",
            "    listen: 192.0.2.100:104",
            "    nodes:",
            *(f"      {name}: {{address: 192.0.2.{ord(name)}}}" for name in nodes),
            "",
        ]
    )


class Engine:
    """It learns of clients what it is told to, and keeps what a peer knows."""

    name = "gateway"
    adopted = 0

    def __init__(self) -> None:
        self.known: dict[str, SoftEntry] = {}
        self.states: NodeStates = {}
        self.problem: str | None = None
        self.tell: Callable[[SoftState], None] | None = None
        self.merged = 0

    def learn(self, *entries: SoftEntry) -> None:
        self.known |= {entry.key: entry for entry in entries}
        if self.tell is not None:
            self.tell({TABLE: entries})

    def render(self, plan: Plan) -> str:
        return plan.digest

    async def check(self, artifact: str) -> list[Refusal]:
        return []

    async def apply(self, artifact: str) -> None: ...

    async def set_nodes(self, states: NodeStates) -> None:
        self.states = states

    async def observe(self) -> Observation:
        return Observation()

    async def adopt(self) -> Mapping[str, NodeState]:
        return {}

    def prepare(self, states: NodeStates) -> None: ...

    async def undo_start(self) -> None: ...

    async def watch(self) -> None: ...

    def leave(self) -> None: ...

    async def stop(self, drain_s: float) -> None: ...

    def hurry(self) -> None: ...

    async def fault(self) -> str | None:
        return self.problem

    def share(self, tell: Callable[[SoftState], None] | None) -> None:
        self.tell = tell

    async def soft_state(self) -> SoftState:
        return {TABLE: tuple(self.known.values())}

    async def merge(self, state: SoftState) -> None:
        self.merged += 1
        for entry in state[TABLE]:
            self.known[entry.key] = entry


class Segment:
    """What VRRP does between two machines: who has the addresses of each group."""

    def __init__(self) -> None:
        self.machines: list[Keepalived] = []

    def settle(self) -> None:
        """Have each group at one machine that can have it; where it is, it stays."""
        for name in {group for machine in self.machines for group in machine.now}:
            able = [each for each in self.machines if name in each.now and each.can_have(name)]
            holders = [each for each in able if each.now[name].state == "master"]
            for machine in self.machines:
                if name in machine.now:
                    machine.become(name, is_master=machine in (holders or able)[:1])


class Keepalived(Engine):
    """It has the addresses of a group, or has them not, as the real one does."""

    name = "keepalived"

    def __init__(self, segment: Segment) -> None:
        super().__init__()
        self.now: dict[str, GroupNow] = {}
        self.told_fault: str | None = None
        self.given: set[str] = set()
        self.is_stopped = self.is_deaf = False
        self.on_change: Callable[[], None] = lambda: None
        self._segment = segment
        segment.machines.append(self)

    @property
    def groups(self) -> tuple[GroupNow, ...]:
        return tuple(self.now.values())

    def hosts_of(self, names: frozenset[str]) -> frozenset[str]:
        return frozenset(host for name in names for host in self._hosts[name])

    def follow(self, plan: Plan) -> None:
        groups = plan.cluster.groups if plan.cluster is not None else ()
        self.now = {group.name: self.now.get(group.name, GroupNow(group.name, "backup")) for group in groups}
        self._hosts = {group.name: tuple(each.host for each in group.addresses) for group in groups}
        self._segment.settle()

    def can_have(self, name: str) -> bool:
        return self.told_fault is None and name not in self.given and not self.is_stopped and not self.is_deaf

    def become(self, name: str, *, is_master: bool) -> None:
        before = self.now[name]
        fault = not self.can_have(name)
        state = "master" if is_master else "fault" if fault else "backup"
        self.now[name] = replace(before, state=state, holds=self._hosts[name] if is_master else ())
        if before.state != state:
            self.on_change()

    async def set_fault(self, reason: str | None) -> None:
        if reason != self.told_fault:
            self.told_fault = reason
            self._segment.settle()

    async def give(self, groups: Collection[str], reason: str = "") -> None:
        self.given |= set(groups)
        self._segment.settle()

    async def keep(self, groups: Collection[str]) -> None:
        self.given -= set(groups)
        self._segment.settle()

    async def stop(self, drain_s: float) -> None:
        self.is_stopped = True
        self._segment.settle()

    async def soft_state(self) -> SoftState:
        return {}


class Ahead(SystemClock):
    """The machine's clocks, so far ahead."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


class Half:
    """One machine: the supervisor as far as a pair needs it, and its half of the pair."""

    def __init__(self, state: Path, text: str, segment: Segment) -> None:
        state.mkdir(exist_ok=True)
        self.directories = Directories(runtime=state, state=state)
        self.file = state / "site.yaml"
        if not self.file.exists():
            self.file.write_text(text)
        self.clock = Ahead()
        self.store = DocumentStore(self.file, state, self.clock)
        self.bugs: list[BaseException] = []
        self.events: list[Event] = []
        self.hindered: list[str] = []
        self.tasks = Tasks(self._task_failed)
        self.book = NodeBook(state / "overrides.json")
        self.engine, self.keepalived = Engine(), Keepalived(segment)
        engines = Engines([self.engine], last=[self.keepalived])
        wiring = Wiring(self.directories, self.clock, self.tasks, Servers())
        self.pair = Pair(self, self.book, engines, cast(KeepalivedEngine, self.keepalived), wiring)
        self.refuses = ""  # a word that no document may have here
        self.takes_s = 0.0
        self.changes = 0
        self._segment = segment
        self._engines = engines
        self._changing = asyncio.Lock()
        self._inputs: Inputs | None = None
        self._plan = Plan(site="", services=(), gateway_workers=1, drain_timeout_s=1.0, digest="")

    async def start(self) -> None:
        await self._in_force(await self._read(self.store.read(), own_facts(self.directories)))

    async def end(self) -> None:
        """End alone, as after a crash or an upgrade; keepalived goes on."""
        await self.pair.close()
        await self.tasks.cancel_all()
        if self.keepalived in self._segment.machines:
            self._segment.machines.remove(self.keepalived)

    # What a pair asks its supervisor for

    @property
    def plan(self) -> Plan:
        return self._plan

    @property
    def document(self) -> str:
        return self._inputs.text if self._inputs is not None else ""

    def alone(self) -> Plan:
        return self._inputs.compiled_alone() if self._inputs is not None else self._plan

    async def preview(self, document: str) -> Preview:
        plan = (await self._read(document)).compiled()
        return Preview(plan.digest, diff(self._plan, plan), ())

    async def would_change(self, document: str) -> None:
        await self.preview(document)

    async def change(self, document: str, *, force: bool) -> Preview:
        async with self._changing:
            inputs = await self._read(document)
            await asyncio.sleep(self.takes_s)
            changes = diff(self._plan, inputs.compiled())
            self.store.replace(document)
            self.changes += 1
            await self._in_force(inputs)
            return Preview(self._plan.digest, changes, ())

    async def read_again(self) -> None:
        async with self._changing:
            await self._in_force(await self._read(self.document, own_facts(self.directories)))

    async def tell_states(self) -> None:
        await self._engines.set_nodes(self.book.states())

    def emit(self, event: Event) -> None:
        self.events.append(event)

    # What an operator does

    async def apply(self, text: str, *, force: bool = False) -> Preview:
        return await self.pair.apply(text, force=force)

    async def override(self, pattern: str, action: str, weight: int | None = None) -> None:
        self.pair.overridden(self.book.override(pattern, action, weight))
        await self.tell_states()

    def said(self, *kinds: str) -> list[dict[str, Any]]:
        return [event.fields() for event in self.events if event.kind in kinds]

    def shown(self) -> dict[str, str]:
        return {key: state.state for key, state in self.engine.states.items()}

    # Inside

    async def _read(self, text: str, known: HostFacts | None = None) -> Inputs:
        if self.refuses and self.refuses in text:
            raise EquipoiseError(f"{self.refuses} cannot be served here")
        known = known or (self._inputs.facts if self._inputs is not None else HostFacts())
        return Inputs(_read(text), known, text)

    async def _in_force(self, inputs: Inputs) -> None:
        self._inputs, self._plan = inputs, inputs.compiled()
        self.keepalived.follow(self._plan)
        self.book.configure(self._plan, {}, forget=True)
        await self.tell_states()
        await self.pair.configure()

    def _task_failed(self, name: str, failure: BaseException) -> None:
        if isinstance(failure, EquipoiseError):
            self.hindered.append(str(failure))
        else:
            self.bugs.append(failure)


@dataclass
class Two:
    """Both machines, and the segment between them."""

    first: Half
    second: Half
    segment: Segment
    port: int

    @property
    def both(self) -> tuple[Half, Half]:
        return self.first, self.second

    async def meet(self) -> None:
        """Wait until each has heard the other."""
        await eventually(lambda: all(half.said("cluster.peer_connected") for half in self.both), "the meeting")

    async def agree(self, text: str) -> None:
        """Wait until both have this document, and know that they do."""
        await eventually(lambda: all(half.document == text for half in self.both), "the document on both")
        for half in self.both:
            await until_status(half, lambda now: now["revision"]["relation"] == "same")

    async def restarted(self, half: Half) -> Half:
        """End a supervisor and start the next one with the same files."""
        await half.end()
        again = Half(half.directories.state, "", self.segment)
        if half is self.first:
            self.first = again
        else:
            self.second = again
        await again.start()
        return again


async def until_status(half: Half, look: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Wait until a status has what is looked for, and return it."""
    deadline_s = asyncio.get_running_loop().time() + 20
    while not look(now := await half.pair.status()):
        assert asyncio.get_running_loop().time() < deadline_s, now
        await asyncio.sleep(0.02)
    return now


@contextlib.asynccontextmanager
async def alone(directory: Path, first: str, second: str) -> AsyncIterator[Two]:
    """Give two machines that do not know each other."""
    segment = Segment()
    halves = [Half(directory / name, text, segment) for name, text in (("first", first), ("second", second))]
    two = Two(halves[0], halves[1], segment, 0)
    try:
        for half in two.both:
            await half.start()
        yield two
    finally:
        await asyncio.gather(*(half.end() for half in two.both))
        assert [bug for half in two.both for bug in half.bugs] == []


def make_known(directory: Path) -> None:
    """Write the files that joining makes."""
    states = {FIRST: directory / "first", SECOND: directory / "second"}
    identities = {address: own_identity(state, address, SystemClock()) for address, state in states.items()}
    for address, role in ((FIRST, "primary"), (SECOND, "secondary")):
        peer = OPPOSITE[address]
        store_peer(states[address], identities[peer].certificate)
        write_here(states[address], Here(peer=peer, address=address, interface="lo", role=role))


@contextlib.asynccontextmanager
async def joined(
    directory: Path, first: str = "", second: str = "", more: str = "", nodes: str = "a"
) -> AsyncIterator[Two]:
    """Give two machines that know each other, and both have one document unless told otherwise."""
    port = free_port(FIRST, SECOND)
    make_known(directory)
    text = document(port=port, more=more, nodes=nodes)
    async with alone(directory, first or text, second or first or text) as two:
        two.port = port
        yield two
