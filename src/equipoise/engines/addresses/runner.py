"""The engine of addresses: those that services listen on are put on this machine, and taken away again.

They outlive the supervisor: a file says which of them are ours.  An address that was there before stays, and is never
removed.  Leaves out who of two balancers has an address: that is keepalived's to say.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping

from equipoise.base.clock import Clock
from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.engines.addresses import questions
from equipoise.engines.addresses.conflicts import KnownConflicts
from equipoise.engines.addresses.holding import Change, Holding, Restored
from equipoise.engines.addresses.record import Record
from equipoise.engines.addresses.render import Artifact, render
from equipoise.engines.addresses.segment import announce
from equipoise.engines.base import Observation, Refusal, SharesNothing
from equipoise.plan.model import ManagedAddress, Plan
from equipoise.plan.states import NodeState, NodeStates
from equipoise.state.events import Event
from equipoise.state.hindrances import Hindrances
from equipoise.state.network_events import AddressAdded, AddressRemoved

_CONFLICTS_EVERY_S = 60.0
_ANNOUNCE_AGAIN_S = (1.0, 2.0)  # after 1 s and after 3 s: a switch or a busy host may miss the first


class AddressesEngine(SharesNothing):
    """The addresses that this instance manages; none where `network.manage_addresses` is off.

    Args:
        directories: Where the record of ours is.
        tasks: Runs announcements and the look for conflicts.
        clock: Tells when to look for conflicts.
        emit: Takes events.
    """

    name = "addresses"

    def __init__(self, directories: Directories, tasks: Tasks, clock: Clock, emit: Callable[[Event], None]) -> None:
        self._holding = Holding(Record(directories))
        self._tasks = tasks
        self._clock = clock
        self._emit = emit
        self._artifact = Artifact()
        self._found: frozenset[ManagedAddress] = frozenset()
        self._known = KnownConflicts()
        self._asking: asyncio.Task[None] | None = None
        self._ask_at_s = clock.monotonic()
        self._hindrances = Hindrances(emit)
        self._lock = asyncio.Lock()
        self._closing = False

    # Engine

    def render(self, plan: Plan) -> Artifact:
        """Say which addresses are to be here."""
        return render(plan)

    async def check(self, artifact: Artifact) -> list[Refusal]:
        """Return why addresses cannot be put here; asks the segment for those that are new, which takes 1.5 s."""
        settled = self._settled()
        new = [each for each in artifact.wanted if each.address not in settled]
        return await asyncio.to_thread(questions.refusals, new, bool(self._holding.ours))

    async def apply(self, artifact: Artifact) -> None:
        """Have these addresses here and no others of ours.  Raises: EngineError; then all is as it was."""
        async with self._lock:
            if self._closing:
                raise EngineError("the balancer is being stopped")
            change = await asyncio.to_thread(self._holding.change, artifact.addresses, self._settled())
            self._artifact = artifact
        await self._tell(change, "the plan does not name it any more")

    async def set_nodes(self, states: NodeStates) -> None:
        """Do nothing: addresses are here whatever nodes do."""

    async def observe(self) -> Observation:
        """Return nothing: addresses count nothing."""
        return Observation()

    # Life

    async def adopt(self) -> Mapping[str, NodeState]:
        """Take over the addresses that the supervisor before us put here; they say nothing of nodes."""
        try:
            await asyncio.to_thread(self._holding.adopt)
        except EngineError as error:  # no reason not to serve: they are taken for another's, and stay
            self._hindrances.say("know which addresses are ours", str(error))
        self._found = self._holding.ours
        return {}

    @property
    def adopted(self) -> int:
        """How many processes were taken over: addresses need none."""
        return 0

    def prepare(self, states: NodeStates) -> None:
        """Do nothing, as `set_nodes` does."""

    async def undo_start(self) -> None:
        """Have those addresses here that were found, and no others of ours."""
        self.leave()
        await self._end_with(self._found, "the balancer could not start")

    async def watch(self) -> None:
        """Put back what vanished, and now and then have a look for other machines with our addresses."""
        if self._closing or self._lock.locked() or not self._holding.ours:
            return
        async with self._lock:
            try:
                restored = await asyncio.to_thread(self._holding.restore, self._artifact.addresses)
            except EngineError as error:
                restored = Restored((), str(error))
        self._hindrances.say("put an address back", restored.hindered)
        await self._tell(Change(added=restored.back), "")
        self._look_for_conflicts(at_once=bool(restored.back))  # somebody may have taken it in the meantime

    def leave(self) -> None:
        """Let go: the addresses stay, for the next supervisor."""
        self._closing = True

    async def stop(self, drain_s: float) -> None:
        """Remove our addresses at once: whoever drains has ended by now."""
        self.leave()
        await self._end_with(frozenset(), "the balancer was stopped")

    def hurry(self) -> None:
        """Do nothing: a stop waits for nothing."""

    async def fault(self) -> str | None:
        """Return None: it brings traffic here, and carries none."""
        return None

    # Inside

    def _settled(self) -> frozenset[ManagedAddress]:
        """Return what is ours and was wanted already: where it vanished, that keeps no other change from being made."""
        return self._artifact.addresses & self._holding.ours

    async def _end_with(self, addresses: frozenset[ManagedAddress], reason: str) -> None:
        async with self._lock:  # what is just being added is removed as well
            try:
                change = await asyncio.to_thread(self._holding.change, addresses)
            except EngineError as error:
                self._hindrances.say("take addresses away", str(error))
                return
        await self._tell(change, reason)

    async def _tell(self, change: Change, reason: str) -> None:
        """Tell the segment and the journal; the segment again, soon."""
        await self._announce(change.added)
        for each in change.added:
            self._emit(AddressAdded(address=each.host, interface=each.interface))
        for each in change.removed:
            self._emit(AddressRemoved(address=each.host, interface=each.interface, reason=reason))
        if change.added and not self._closing:
            self._tasks.spawn("addresses.announce", self._announce_again(change.added))

    async def _announce_again(self, addresses: Collection[ManagedAddress]) -> None:
        for pause_s in _ANNOUNCE_AGAIN_S:
            await asyncio.sleep(pause_s)
            await self._announce([each for each in addresses if each in self._holding.ours])

    async def _announce(self, addresses: Collection[ManagedAddress]) -> None:
        for interface in sorted({each.interface for each in addresses}):
            hosts = [each.host for each in addresses if each.interface == interface]
            try:
                await asyncio.to_thread(announce, interface, hosts)
            except EngineError as error:  # they are here all the same, and neighbours ask when they need them
                self._hindrances.say(f"announce addresses on {interface}", str(error))
            else:
                self._hindrances.say(f"announce addresses on {interface}", None)

    def _look_for_conflicts(self, at_once: bool) -> None:
        now_s = self._clock.monotonic()
        is_due = at_once or now_s >= self._ask_at_s
        if is_due and (self._asking is None or self._asking.done()):
            self._ask_at_s = now_s + _CONFLICTS_EVERY_S
            self._asking = self._tasks.spawn("addresses.conflicts", self._ask_for_conflicts())

    async def _ask_for_conflicts(self) -> None:
        addresses = self._artifact.addresses & self._holding.ours
        try:
            found = await asyncio.to_thread(questions.conflicts, addresses)
        except EngineError as error:
            self._hindrances.say("look for others with our addresses", str(error))
            return
        self._hindrances.say("look for others with our addresses", None)
        for event in self._known.news(found):
            self._emit(event)
