"""The engine of HAProxy: what a plan means is checked by it, given to it, and read from it; it outlives the supervisor.

It runs as a master with a worker.  Where only nodes change it is told through its runtime socket; where the structure
changes a new worker takes the listening sockets over from the old one, which goes on with what is open.
Source: docs/adr/0010-haproxy.md.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress

from equipoise.base.clock import Clock
from equipoise.base.errors import EngineError, EquipoiseError
from equipoise.base.paths import Directories
from equipoise.base.processes import has_ended, run_to_end
from equipoise.base.tasks import Tasks
from equipoise.engines.base import Observation, Refusal, SharesNothing
from equipoise.engines.haproxy import blame
from equipoise.engines.haproxy.artifact import Artifact
from equipoise.engines.haproxy.files import Files
from equipoise.engines.haproxy.instance import Instance
from equipoise.engines.haproxy.program import Program, find_program
from equipoise.engines.haproxy.render import render
from equipoise.engines.haproxy.states import forgotten_again, shown
from equipoise.engines.haproxy.statistics import Counting
from equipoise.engines.haproxy.telling import Drains, Telling
from equipoise.engines.sockets import check_listener
from equipoise.plan.model import Endpoint, Plan
from equipoise.plan.states import NodeState, NodeStates
from equipoise.state.events import Event, HaproxyLost, NodeAccepted, NodeRefused
from equipoise.state.hindrances import Hindrances

_CHECK_S = 30.0
_QUICK_DEATH_S = 10.0  # a HAProxy that ends sooner is started again only after a pause
_PAUSES_S = (0.0, 0.5, 1.0, 2.0, 5.0)
_SILENT_LOOKS = 3
_TELL = "tell HAProxy of its nodes"


class HaproxyEngine(SharesNothing):  # with a peer it shares by itself: see render_peers.py
    """The one HAProxy of this instance; none runs where no service needs it.

    Args:
        directories: Where its files, sockets and log are.
        tasks: Runs restarts and the ends of drains.
        clock: Tells how long nodes drain, and how long a process lived.
        emit: Takes events.
    """

    name = "haproxy"

    def __init__(self, directories: Directories, tasks: Tasks, clock: Clock, emit: Callable[[Event], None]) -> None:
        self._files = Files(directories)
        self._instance = Instance(self._files, clock, emit)
        self._tasks = tasks
        self._clock = clock
        self._emit = emit
        self._hindrances = Hindrances(emit)
        self._artifact = Artifact()
        self._before = Artifact()  # its files stay: another engine may refuse, and the change is taken back
        self._states: NodeStates = {}
        self._telling = Telling()
        self._drains = Drains(clock)
        self._drain_end: asyncio.Task[None] | None = None
        self._counting = Counting(self._files)
        self._refused_nodes: dict[str, str] = {}  # by HAProxy's own checks; a Refusal is of a plan
        self._lock = asyncio.Lock()
        self._closing = self._restarting = False
        self._hurried = asyncio.Event()
        self._silent = self._quick_deaths = 0

    # Engine

    def render(self, plan: Plan) -> Artifact:
        """Say what the plan means for HAProxy."""
        return render(plan)

    async def check(self, artifact: Artifact) -> list[Refusal]:
        """Return what HAProxy would refuse: ports, certificates, and its configuration as it reads it itself."""
        if not artifact:
            return []
        try:
            program = await self._program()
            self._files.create()
            held = self._files.endpoints() if self._instance.is_alive else frozenset()
            refusals = [refusal for place in sorted({*artifact.listen} - held) if (refusal := _listen(place))]
            refusals += await asyncio.to_thread(self._files.write_parts, artifact)
            return refusals or await asyncio.to_thread(self._ask_program, program, artifact)
        except EngineError as error:
            return [Refusal(str(error))]

    async def apply(self, artifact: Artifact) -> None:
        """Have HAProxy serve this: by a start, a reload, or where only nodes differ by telling it.

        Raises: EngineError; what served before serves on, as long as there is a HAProxy at all.
        """
        async with self._lock:
            if self._closing:
                raise EngineError("the balancer is being stopped")
            if not artifact:
                await self._retire()
            elif self._instance.runs(artifact.digest):
                self._artifact = artifact
                await self._tell()
            else:
                await self._load(artifact)

    async def set_nodes(self, states: NodeStates) -> None:
        """Take nodes in or out: at once in the worker that serves, and in the file that the next one reads."""
        self._states = dict(states)
        async with self._lock:  # who waited finds that what it brought, or what came later, was told already
            await self._tell()

    async def observe(self) -> Observation:
        """Read what all workers count, those included that only end what is open."""
        pools = self._artifact.pools
        try:
            return await self._counting.observe([pool.service for pool in pools], self._takes_part)
        except EngineError as error:
            if self._instance.is_alive:
                return Observation(problems={pool.service: str(error) for pool in pools})
            return Observation(unserved={pool.service: "HAProxy does not run; it is started again" for pool in pools})

    # Life

    async def adopt(self) -> Mapping[str, NodeState]:
        """Take over a HAProxy that serves already; return the node states that it has.

        Nodes in maintenance are told as down: whether they were disabled is known to others.  Raises: EngineError.
        """
        states = await self._instance.adopt()
        self._expect_end()
        self._drains.adopt([key for key, state in states.items() if state.state == "down"])
        return states

    @property
    def adopted(self) -> int:
        """How many were taken over: one, or none."""
        return int(self._instance.is_adopted)

    def prepare(self, states: NodeStates) -> None:
        """Have these node states ready for the first plan, telling nobody yet."""
        self._states = dict(states)

    async def undo_start(self) -> None:
        """End what was started, leave alone what was adopted."""
        self.leave()
        if not self._instance.is_adopted:
            await self._instance.end()

    async def watch(self) -> None:
        """Look whether HAProxy runs and answers, what its own checks say, and tell it what it has not taken."""
        if self._is_under_change:
            return
        worker = self._instance.worker
        try:
            refused, silence = await self._counting.refused(), ""
        except EngineError as error:
            refused, silence = {}, str(error)
        if self._is_under_change or self._instance.worker is not worker:
            return
        self._silent = self._silent + 1 if silence else 0
        if not self._instance.is_alive:  # without its master a worker may answer for a moment more
            self._lose(f"it ended: {self._instance.last_words()}")
        elif self._silent >= _SILENT_LOOKS:
            self._lose(silence)
        elif not silence:
            await self._look_at_answer(refused)

    @property
    def _is_under_change(self) -> bool:
        return self._closing or self._restarting or self._lock.locked() or not self._artifact

    async def _look_at_answer(self, refused: Mapping[str, str]) -> None:
        self._look_at_checks({key: reason for key, reason in refused.items() if self._takes_part(key)})
        self._files.trim_log()
        if self._counting.serving != self._instance.worker:  # loaded anew by somebody else, or by us and too late
            self._instance.worker = self._counting.serving
            self._telling.forget()
        if self._telling.is_behind:
            await self._tell_again()
        if self._artifact.is_shared:
            await self._forget_again()

    def leave(self) -> None:
        """Let go: HAProxy serves on, and waits for the next supervisor."""
        self._closing = True
        if self._drain_end is not None:
            self._drain_end.cancel()

    async def stop(self, drain_s: float) -> None:
        """Accept nothing more, let open work go on for so long, end the rest, and every process."""
        self.leave()
        async with self._lock:  # what is just being started is stopped as well
            await self._instance.stop(drain_s, self._hurried)

    def hurry(self) -> None:
        """Have a stop that is under way end at once."""
        self._hurried.set()

    async def fault(self) -> str | None:
        """Return why HAProxy serves nobody, within 3 s; None where it serves, or no service needs it."""
        return await self._instance.fault() if self._artifact else None

    # Inside

    def _takes_part(self, key: str) -> bool:
        """Say whether a node is in by our word, so that HAProxy's check alone keeps it out."""
        return key in self._states and self._states[key].state == "up"

    async def _program(self) -> Program:
        return await asyncio.to_thread(find_program, os.environ)

    def _ask_program(self, program: Program, artifact: Artifact) -> list[Refusal]:
        """Return what HAProxy says of the configuration.  Raises: EngineError."""
        self._files.write_candidate(self._text(artifact))
        command = [program.path, "-c", "-f", str(self._files.candidate)]
        try:
            ended = run_to_end(command, _CHECK_S, self._files.environment())
        except (OSError, EquipoiseError) as error:
            raise EngineError(f"HAProxy cannot be asked about its configuration: {error}") from None
        finally:
            self._files.drop_candidate()
        return blame.refusals(ended.output, artifact) if ended.code else []

    def _text(self, artifact: Artifact) -> str:
        over = self._drains.over(artifact.drain_timeout_s)
        return artifact.text(lambda line: shown(line, self._states, over))

    async def _load(self, artifact: Artifact) -> None:
        """Start, or have loaded anew.  Raises: EngineError, with the old configuration in its place."""
        self._files.create()
        self._drains.see(self._states)
        before = self._files.configured() if self._instance.is_alive else None
        await asyncio.to_thread(self._files.write_missing, artifact)
        try:
            await asyncio.to_thread(self._files.write_configuration, self._text(artifact))
        except EngineError:  # on a full disk HAProxy starts with the node states of before, and is told those of now
            if self._instance.is_alive or artifact.digest not in (self._files.configured() or ""):
                raise
        try:
            if self._instance.is_alive:
                with suppress(EngineError):
                    await self._counting.observe([pool.service for pool in self._artifact.pools], self._takes_part)
                await self._instance.reload(artifact.digest, artifact.pools)
            else:
                await self._instance.start(await self._program(), artifact.digest)
                self._expect_end()
        except EngineError:
            if before is not None:
                await asyncio.to_thread(self._files.write_configuration, before)
            raise
        self._before, self._artifact = self._artifact, artifact
        self._telling.forget()
        await self._tell()
        self._files.remove_unused(self._artifact, self._before)

    async def _retire(self) -> None:
        """Have nothing served any more; what is open goes on to its end by itself."""
        self._before, self._artifact = self._artifact, Artifact()
        self._refused_nodes = {}
        self._instance.retire()

    async def _tell(self) -> None:
        """Tell the worker what is news, and write it down for the next one.  Raises: EngineError."""
        artifact = self._artifact
        if not artifact or not self._instance.is_alive:
            return
        self._drains.see(self._states)
        states, over = self._states, self._drains.over(artifact.drain_timeout_s)
        news, cut = self._telling.news(artifact.pools, states, over), self._telling.cut(artifact.pools, states)
        # Until all of it is told and written down: a disk that is full now may have room at the next look.
        self._telling.forget()
        await self._instance.tell(artifact.digest, news)
        await self._instance.cut_old(cut)
        self._expect_drain_end()
        try:
            await asyncio.to_thread(self._files.write_configuration, self._text(artifact))
        except EngineError as error:
            raise EngineError(f"HAProxy was told of its nodes, but the next one would not know: {error}") from None
        self._telling.took(artifact.pools, states, over)

    def _expect_end(self) -> None:
        """Have it noticed at once when HAProxy ends by itself, not only at the next look."""
        if self._instance.pid:
            self._tasks.spawn("haproxy.end", self._look_at_end(self._instance.pid))

    async def _look_at_end(self, pid: int) -> None:
        await has_ended(pid)
        if pid == self._instance.pid:
            await self.watch()

    def _expect_drain_end(self) -> None:
        if self._drain_end is not None:
            self._drain_end.cancel()
        self._drain_end = None
        left_s = self._drains.next_end_s(self._artifact.drain_timeout_s)
        if left_s is not None and not self._closing:
            self._drain_end = self._tasks.spawn("haproxy.drain", self._end_drain(left_s))

    async def _end_drain(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._drain_end = None  # else telling would end this task
        await self._tell_again()

    async def _tell_again(self) -> None:
        async with self._lock:
            try:
                if self._artifact and self._instance.runs_other_than(self._artifact.digest):
                    await self._load(self._artifact)  # a change that was taken back has come into force after all
                else:
                    await self._tell()
            except EngineError as error:  # the next look tries again
                self._hindrances.say(_TELL, str(error))
            else:
                self._hindrances.say(_TELL, None)

    async def _forget_again(self) -> None:
        over = self._drains.over(self._artifact.drain_timeout_s)
        commands = [each for pool in self._artifact.pools for each in forgotten_again(pool, self._states, over)]
        with suppress(EngineError):  # the next look tries again
            await self._instance.tell(self._artifact.digest, commands)

    def _look_at_checks(self, refused: Mapping[str, str]) -> None:
        for key in sorted(refused.keys() - self._refused_nodes.keys()):
            service, node = key.split("/")
            self._emit(NodeRefused(service=service, node=node, reason=refused[key]))
        for key in sorted(self._refused_nodes.keys() - refused.keys()):
            service, node = key.split("/")
            if self._takes_part(key):  # else our own word took it out in the meantime
                self._emit(NodeAccepted(service=service, node=node))
        self._refused_nodes = dict(refused)

    def _lose(self, reason: str) -> None:
        self._emit(HaproxyLost(pid=self._instance.pid, reason=reason))
        self._restarting, self._silent = True, 0
        quick = self._clock.monotonic() - self._instance.since_s < _QUICK_DEATH_S
        self._quick_deaths = self._quick_deaths + 1 if quick else 0
        self._tasks.spawn("haproxy.restart", self._restart())

    async def _restart(self) -> None:
        """Start HAProxy anew, until it serves; what is left of the old one ends first."""
        lost = self._instance.pid
        try:
            while not self._closing:
                await asyncio.sleep(_PAUSES_S[min(self._quick_deaths, len(_PAUSES_S) - 1)])
                try:
                    async with self._lock:
                        await self._instance.end_lost(lost)
                        if self._artifact and not self._closing and not self._instance.is_alive:
                            await self._load(self._artifact)
                except EngineError as error:
                    self._quick_deaths += 1
                    self._emit(HaproxyLost(pid=lost, reason=f"not started again yet: {error}"))
                else:
                    return
        finally:
            self._restarting = False


def _listen(place: Endpoint) -> Refusal | None:
    try:
        check_listener(place)
    except EngineError as error:
        return Refusal(str(error))
    return None
