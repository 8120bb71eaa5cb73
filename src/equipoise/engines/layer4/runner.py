"""The engine of layer 4: what a plan means is checked by the kernel, given to it, and read from it.

The kernel carries the traffic, with or without a supervisor.  This one keeps who takes work up to date: at once where a
node's state changes, and now and then where balancing follows connections or a node starts slowly.
Source: docs/adr/0012-layer-4.md.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from equipoise.base.clock import Clock
from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.engines.base import Observation, Refusal
from equipoise.engines.layer4 import conntrackd, transaction
from equipoise.engines.layer4.artifact import FAMILIES, Artifact, Pool
from equipoise.engines.layer4.balance import Balance, refusing
from equipoise.engines.layer4.counting import Counting
from equipoise.engines.layer4.guardian import Guardian
from equipoise.engines.layer4.kernel import Kernel
from equipoise.engines.layer4.record import Record
from equipoise.engines.layer4.refusals import refusals
from equipoise.engines.layer4.render import render
from equipoise.engines.layer4.sharing import Sharing
from equipoise.engines.layer4.transaction import Filling
from equipoise.plan.model import Plan
from equipoise.plan.soft import SoftState
from equipoise.plan.states import NodeState, NodeStates, node_key
from equipoise.state.events import Event
from equipoise.state.hindrances import Hindrances
from equipoise.state.network_events import Layer4Restored, Layer4Started

USUAL_RUNTIME = Path("/run/equipoise")
_TICK_S = 0.5
_AFTER_FAILURE_S = 5.0
_LONGEST_PAUSE_S = 60.0
_DRAIN_LOOK_S = 0.2
_RULES = "rules of layer 4"


def table_name(directories: Directories) -> str:
    """Return the name of the tables of this instance: `equipoise`, and for another one on the same machine, its own."""
    if directories.runtime == USUAL_RUNTIME:
        return "equipoise"
    return f"equipoise-{blake2b(str(directories.runtime).encode(), digest_size=4).hexdigest()}"


class Layer4Engine:
    """The kernel's rules of this instance; there are none where no service needs them.

    Args:
        directories: Where node states are written down.
        tasks: Runs the looks at live flows.
        clock: Time.
        emit: Takes events.
    """

    name = "layer4"

    def __init__(self, directories: Directories, tasks: Tasks, clock: Clock, emit: Callable[[Event], None]) -> None:
        self._record = Record(directories.runtime / "layer4.json")
        self._tracking = directories.runtime / "conntrackd.conf"
        self._tasks = tasks
        self._clock = clock
        self._emit = emit
        self._kernel = Kernel(table_name(directories))
        self._guardian = Guardian(self._kernel, emit)
        self._artifact = Artifact()
        self._balances: dict[str, Balance] = {}
        self._held: dict[str, Filling] = {}  # what the kernel holds
        self._states: NodeStates = {}
        self._counting = Counting(self._kernel, clock)
        self._lock = asyncio.Lock()
        self._sharing = Sharing(self._kernel, tasks, clock, self._lock, self._guardian.wrote)
        self._hindrances = Hindrances(emit)
        self._was_there = self._closing = False
        self._stale: set[str] = set()  # services of which the kernel was not told yet
        self._to_end: set[int] = set()  # marks of nodes that are cut, whose connections are still tracked
        self._ticks: asyncio.Task[None] | None = None
        self._hurried = asyncio.Event()

    # Engine

    def render(self, plan: Plan) -> Artifact:
        """Say what the plan means for the kernel."""
        return render(plan, self._kernel.name)

    async def check(self, artifact: Artifact) -> list[Refusal]:
        """Return what would not work, or what the kernel would refuse."""
        if not artifact:
            return []
        return await asyncio.to_thread(
            refusals,
            artifact,
            self._kernel,
            self._fillings(artifact.pools, self._started(artifact)),
            self._artifact.interfaces,
        )

    async def apply(self, artifact: Artifact) -> None:
        """Have the kernel carry this; flows that are open stay where they are.  Raises: EngineError."""
        async with self._lock:
            if self._closing:
                raise EngineError("the balancer is being stopped")
            await asyncio.to_thread(conntrackd.keep, self._tracking, artifact.tracking)
            if not (artifact or self._artifact or self._was_there):
                return  # without a look, which needs a right that a balancer without layer 4 need not have
            if artifact and artifact.digest == self._artifact.digest:
                self._artifact, self._balances = artifact, self._started(artifact)
                self._sharing.carry(artifact.pools)
                self._stale |= {pool.service for pool in artifact.pools}  # weights may have changed
                await self._tell()
            else:
                await self._load(artifact)

    async def set_nodes(self, states: NodeStates) -> None:
        """Take nodes in or out, now.  Raises: EngineError."""
        self._states = dict(states)
        async with self._lock:  # who waited finds that what it brought, or what came later, was told already
            await self._tell()

    async def observe(self) -> Observation:
        """Read what is live and what has passed."""
        pools = self._artifact.pools
        try:
            if pools and not self._counting.is_fresh:
                await self._counting.look(pools, self._guardian.whole, whole=True)
        except EngineError as error:
            return Observation(problems={pool.service: str(error) for pool in pools})
        return self._counting.observation(pools, self._guardian.problems())

    # Life

    async def adopt(self) -> Mapping[str, NodeState]:
        """Find the rules of an earlier supervisor; return the states that its nodes had."""
        try:
            self._was_there = bool(await asyncio.to_thread(self._kernel.found))
        except EngineError:  # where layer 4 is used, the check of the plan says why
            return {}
        return self._record.read() if self._was_there else {}

    @property
    def adopted(self) -> int:
        """How many were taken over: one set of rules, or none."""
        return int(self._was_there)

    def prepare(self, states: NodeStates) -> None:
        """Have these node states ready for the first plan, telling nobody yet."""
        self._states = dict(states)

    async def undo_start(self) -> None:
        """Take away rules that were made by this start."""
        self.leave()
        if self._artifact and not self._was_there:
            await self._remove()

    async def watch(self) -> None:
        """Follow neighbours, tell of tables that are full, and remove what plans have left over."""
        if self._closing or not self._artifact:
            return
        self._begin_to_follow()
        await self._counting.look((), self._guardian.whole)  # counters alone: else nobody may have read them for long
        await asyncio.to_thread(self._guardian.look, self._counting.counts.passed)
        async with self._lock:  # not when a plan is applied: it may be taken back, and then its flows are wanted
            if not self._closing and (text := transaction.leftovers(self._artifact, self._guardian.whole)):
                await self._clear_away(text)

    def leave(self) -> None:
        """Let go: the kernel goes on."""
        self._closing = True
        self._sharing.leave()
        if self._ticks is not None:
            self._ticks.cancel()

    async def stop(self, drain_s: float) -> None:
        """Take no new flow, let live ones go on for so long, and take the rules away."""
        self._closing = True
        async with self._lock:  # what is just being written is written before
            self.leave()
            if not self._artifact:
                return
            try:
                now = {service: refusing(held) for service, held in self._held.items()}
                await self._write(now)
                await self._empty(drain_s)
            finally:
                await self._remove()

    def hurry(self) -> None:
        """Have a stop that is under way end at once."""
        self._hurried.set()

    # For a peer

    async def fault(self) -> str | None:
        """Return why rules are not what they should be, after what was tried to mend them; None where they are."""
        return self._hindrances.why(_RULES)

    def share(self, tell: Callable[[SoftState], None] | None) -> None:
        """Have `tell` called with flows and clients that are new, and with those that are gone; None: no more."""
        self._sharing.share(tell)

    async def soft_state(self) -> SoftState:
        """Return flows and clients that packets made known here.  Raises: EngineError."""
        return await self._sharing.everything()

    async def merge(self, state: SoftState) -> None:
        """Take over what a peer knows; what packets say here has precedence.  Raises: EngineError."""
        await self._sharing.merge(state)

    # Inside

    def _states_of(self, pool: Pool) -> dict[str, NodeState]:
        found = {member.name: self._states.get(node_key(pool.service, member.name)) for member in pool.members}
        return {name: state for name, state in found.items() if state is not None}

    def _started(self, artifact: Artifact) -> dict[str, Balance]:
        """Return a balance for each pool; those that there were go on."""
        now_s, found = self._clock.monotonic(), {}
        for pool in artifact.pools:
            balance = Balance.after(self._balances.get(pool.service), pool, now_s)
            balance.see(self._states_of(pool), now_s)
            found[pool.service] = balance
        return found

    def _fillings(self, pools: Iterable[Pool], balances: Mapping[str, Balance] | None = None) -> dict[str, Filling]:
        """Return what the kernel is to hold now for these pools, by what was counted last."""
        balances, now_s = balances or self._balances, self._clock.monotonic()
        return {
            pool.service: balances[pool.service].filling(
                self._counting.busy(pool), self._counting.next_slot(pool), now_s
            )
            for pool in pools
        }

    async def _load(self, artifact: Artifact) -> None:
        """Write the rules of a plan.

        Raises: EngineError, with the old ones in force; or with the new ones, where the kernel is not read afterwards.
        """
        found = await asyncio.to_thread(self._kernel.found)
        if not artifact:
            await asyncio.to_thread(self._kernel.load, transaction.removal(self._kernel.name, found))
            self._artifact, self._balances, self._held = artifact, {}, {}
            self._was_there = False
            self._sharing.carry(())
            self._hindrances.say(_RULES, None)
            return
        await self._counting.restart(artifact.pools, found)
        balances = self._started(artifact)
        fillings = self._fillings(artifact.pools, balances)
        numbers = await asyncio.to_thread(self._kernel.interfaces, artifact.interfaces)
        gone = [name for name, number in numbers.items() if number is None]
        before = await asyncio.to_thread(self._kernel.generation)
        await asyncio.to_thread(self._kernel.load, transaction.structure(artifact, fillings, found, gone))
        if not self._artifact:
            self._emit(Layer4Started(services=tuple(pool.service for pool in artifact.pools), adopted=bool(found)))
        self._artifact, self._balances, self._held = artifact, balances, fillings
        self._sharing.carry(artifact.pools)
        await asyncio.to_thread(self._guardian.guard, artifact, numbers, before)
        self._to_end = set(transaction.newly_cut(artifact, {}, fillings))
        with suppress(EngineError):  # the plan is in force all the same, and the next look tries again
            await self._end_cut()
        self._record.keep(self._artifact.pools, self._states)
        self._begin_to_follow()

    async def _clear_away(self, leftovers: str) -> None:
        """Remove what nothing leads to; not before what another program changed is mended.  Raises: EngineError."""
        before = await asyncio.to_thread(self._kernel.generation)
        if not await asyncio.to_thread(self._guardian.suspects):
            await asyncio.to_thread(self._kernel.load, leftovers)
            await asyncio.to_thread(self._guardian.guard, self._artifact, self._guardian.interfaces, before)

    async def _tell(self) -> None:
        """Have the kernel hold what node states mean now.  Raises: EngineError."""
        if not self._artifact:
            return
        now_s = self._clock.monotonic()
        self._stale |= {
            pool.service
            for pool in self._artifact.pools
            if self._balances[pool.service].see(self._states_of(pool), now_s)
        }
        await self._write(self._fillings([pool for pool in self._artifact.pools if pool.service in self._stale]))
        await self._end_cut()
        self._record.keep(self._artifact.pools, self._states)

    async def _write(self, changed: Mapping[str, Filling]) -> None:
        """Have the kernel hold this for some services; what it holds already is not written.  Raises: EngineError."""
        self._stale |= changed.keys()
        now = {**self._held, **changed}
        if text := transaction.nodes(self._artifact, self._held, now):
            await asyncio.to_thread(self._kernel.load, text)
            await asyncio.to_thread(self._guardian.wrote)
        newly = transaction.newly_cut(self._artifact, self._held, now)
        self._to_end = (self._to_end | newly) & transaction.newly_cut(self._artifact, {}, now)
        self._held = now
        self._stale -= changed.keys()

    async def _end_cut(self) -> None:
        """End what is open on nodes that are newly cut, where the kernel tracks connections.  Raises: EngineError."""
        if self._to_end:
            await asyncio.to_thread(self._kernel.end, frozenset(self._to_end))
            self._to_end.clear()

    # Following what is live

    async def _follow(self) -> None:
        """Look again and again whether the rules are what they should be, and write slots that follow what is live.

        The latter rarely, where counting takes long.
        """
        failures, next_s = 0, float("-inf")
        while True:
            try:
                await self._mend()
                if self._clock.monotonic() >= next_s and await self._rebalance():
                    next_s = self._clock.monotonic() + min(self._counting.pause_s, _LONGEST_PAUSE_S)
                failures = 0
                self._hindrances.say(_RULES, None)
            except EngineError as error:
                failures += 1
                if failures > 1:  # the first may come of what the next look mends
                    self._hindrances.say(_RULES, str(error))
                    await asyncio.sleep(_AFTER_FAILURE_S)
            await asyncio.sleep(_TICK_S)

    def _begin_to_follow(self) -> None:
        if self._ticks is None or self._ticks.done():  # done: a bug ended it, which was reported
            self._ticks = self._tasks.spawn("layer4.balance", self._follow())

    async def _mend(self) -> None:
        """Write anew what another program changed, and tell what was not taken.  Raises: EngineError."""
        suspects = await asyncio.to_thread(self._guardian.suspects)
        if not (suspects or self._stale or self._to_end):
            return
        async with self._lock:  # what looked wrong may have been a plan that is just applied
            if self._closing or not self._artifact:
                return
            if (reason := await asyncio.to_thread(self._guardian.lost)) is not None:
                self._sharing.carry(self._artifact.pools, anew=True)
                await self._load(self._artifact)
                self._emit(Layer4Restored(reason=reason))
                return
            if self._guardian.touched:  # what we filled may have been flushed; to write it once more changes nothing
                await asyncio.to_thread(self._kernel.load, transaction.elements(self._artifact, self._held))
                await asyncio.to_thread(self._guardian.wrote)
                self._guardian.touched = False
            await self._tell()

    async def _rebalance(self) -> bool:
        """Count where balancing follows what is live, and write the slots that follow; say whether it was needed.

        Raises: EngineError.
        """
        artifact = self._artifact
        moving = [pool for pool in artifact.pools if self._balances[pool.service].is_moving]
        if not moving:
            return False
        await self._counting.look(moving, self._guardian.whole)  # without the lock: node states never wait for it
        async with self._lock:
            if artifact is self._artifact and not self._closing:
                await self._write(self._fillings(moving))
        return True

    # The end

    async def _empty(self, drain_s: float) -> None:
        """Wait until nothing is live, for so long at the most."""
        ends_s = self._clock.monotonic() + drain_s
        while self._clock.monotonic() < ends_s and not self._hurried.is_set():
            await self._counting.look(self._artifact.pools, self._guardian.whole)
            if not any(sum(self._counting.live(pool).values()) for pool in self._artifact.pools):
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), _DRAIN_LOOK_S)

    async def _remove(self) -> None:
        await asyncio.to_thread(self._kernel.load, transaction.removal(self._kernel.name, FAMILIES))
        self._artifact = Artifact()
        self._sharing.carry(())
        self._record.forget()
