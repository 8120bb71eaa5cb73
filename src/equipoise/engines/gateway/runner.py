"""The supervisor's side of the gateway: processes, listening sockets, take-over, hand-over, crash.

Each worker of the plan has one process that serves; others drain until they are empty.  The supervisor and every
process hold the listening sockets, so that none of them is missed when it dies.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec

from equipoise import __version__
from equipoise.base.clock import Clock
from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.engines.base import Observation, Refusal
from equipoise.engines.gateway import worker
from equipoise.engines.gateway.channel import Channel
from equipoise.engines.gateway.faults import fault
from equipoise.engines.gateway.messages import Happened, Kept, Learned, Message, Serve, ServiceTask, SetNodes, Stop
from equipoise.engines.gateway.render import Artifact, render
from equipoise.engines.gateway.sockets import open_listener
from equipoise.engines.gateway.soft_states import Listening, Tell, all_known, give, refuse_unserved
from equipoise.engines.gateway.worker import Worker
from equipoise.engines.sockets import check_listener
from equipoise.plan.model import Endpoint, Plan
from equipoise.plan.soft import SoftState
from equipoise.plan.states import NodeState, NodeStates
from equipoise.state.events import Event, GatewayLost, GatewayReplaced, GatewayStarted

_QUICK_DEATH_S = 10.0  # a gateway that ends sooner is started again only after a pause
_PAUSES_S = (0.0, 0.5, 1.0, 2.0, 5.0)
_SILENT_LOOKS = 3
MAX_LEARNED = 4096  # calling AEs of one service: as many as a gateway keeps
_LAST_WORDS_S = 5.0  # beyond its drain, for a gateway that is told to stop


class GatewayEngine:
    """All gateway processes of this instance.

    Args:
        directories: Where control sockets and the log are.
        tasks: Runs restarts.
        clock: Tells how long a process lived.
        emit: Takes events of ours.
        relay_events: Takes the gateways' events as JSON, as they come.

    Attributes:
        learned: By service, what its calling AEs are expected to move: gateways add to it, new ones get it.
    """

    name = "gateway"

    def __init__(
        self,
        directories: Directories,
        tasks: Tasks,
        clock: Clock,
        emit: Callable[[Event], None],
        relay_events: Callable[[tuple[msgspec.Raw, ...]], None],
    ) -> None:
        self._directories = directories
        self._tasks = tasks
        self._clock = clock
        self._emit = emit
        self._relay_events = relay_events
        self._sockets: dict[Endpoint, socket.socket] = {}
        self._serving: dict[int, Worker] = {}
        self._retiring: list[Worker] = []
        self._outdated: dict[int, Worker] = {}  # adopted of another version, until another one serves
        self._artifact = Artifact("", ())
        self._states: dict[str, NodeState] = {}
        self.learned: dict[str, dict[str, float]] = {}
        self._listening = Listening()
        self._lock = asyncio.Lock()
        self._closing = False
        self._quick_deaths = 0

    # Engine

    def render(self, plan: Plan) -> Artifact:
        """Say which worker has which services."""
        return render(plan)

    async def check(self, artifact: Artifact) -> list[Refusal]:
        """Return which sockets could not be opened."""
        problems = []
        for endpoint in sorted(_endpoints(artifact) - set(self._sockets)):
            try:
                check_listener(endpoint)
            except EngineError as error:
                problems.append(Refusal(str(error)))
        return problems

    async def apply(self, artifact: Artifact) -> None:
        """Open sockets, start what is missing, tell everybody.

        Raises: EngineError; some processes may have been told by then, so the old artifact is to be applied again.
        """
        async with self._lock:
            self._refuse_when_closing()
            await self._apply(artifact)

    async def set_nodes(self, states: NodeStates) -> None:
        """Take nodes in or out in every process, those that drain included."""
        self._states = dict(states)
        for process in self._all():
            process.channel.send(SetNodes(states=self._states, at_s=self._clock.monotonic()))

    async def observe(self) -> Observation:
        """Sum the counters of all processes; one that does not answer soon is left out."""
        processes = self._all()
        answers = await asyncio.gather(*(process.counters() for process in processes))
        return sum(answers, Observation())

    # Life

    async def adopt(self) -> Mapping[str, NodeState]:
        """Take over the gateways that serve already; return the node states that they have.  Raises: EngineError."""
        for path in sorted(self._directories.runtime.glob("gateway-*.sock")):
            try:
                found = await worker.greet(path, self._clock, self._heard, self._lost)
            except worker.HungGatewayError as error:  # it serves nobody, and must not keep others from being served
                self._emit(GatewayLost(worker=error.number, pid=error.pid, reason=str(error)))
                await worker.end_process(error.pid)
                continue
            if found is None:
                continue
            process, sockets = found
            process.adopted = True
            self._listening.ask(process)
            self._states |= process.states
            for endpoint, sock in sockets.items():
                if endpoint in self._sockets:
                    sock.close()
                else:
                    self._sockets[endpoint] = sock
            if process.retiring or process.number in self._serving:
                self._retiring.append(process)
            elif process.software != __version__:  # it might not know what the plan asks of it: TLS, for one
                self._retiring.append(process)
                self._outdated[process.number] = process
            else:
                self._serving[process.number] = process
        return dict(self._states)

    @property
    def adopted(self) -> int:
        """How many gateways were taken over."""
        return sum(process.adopted for process in self._all())

    def prepare(self, states: NodeStates) -> None:
        """Have these node states ready for the first plan, telling nobody yet."""
        self._states = dict(states)

    async def undo_start(self) -> None:
        """End what was started, leave alone what was adopted."""
        self._closing = True
        for process in self._all():
            if process.adopted:
                process.channel.close("the supervisor did not start")
            else:
                await process.end()

    async def watch(self) -> None:
        """Look whether every process still answers; one that has not for some looks serves nobody, and is replaced."""
        for process in list(self._serving.values()):
            process.silent = 0 if await process.answers() else process.silent + 1
            if process.silent >= _SILENT_LOOKS and not self._closing:
                process.channel.close(f"it did not answer {process.silent} times")  # `_lost` does the rest

    async def replace(self, reason: str) -> list[int]:
        """Start a new process for each worker on the same sockets; the old ones drain.  Raises: EngineError."""
        async with self._lock:
            self._refuse_when_closing()
            old, new = dict(self._serving), dict[int, Worker]()
            try:
                for number in old:
                    new[number] = await self._start(number)
            except EngineError:
                for process in new.values():
                    await process.end()
                raise
            self._retiring += [process for process in old.values() if not process.channel.closed]
            self._serving |= new
            await self._apply(self._artifact)
        for number, process in new.items():
            self._emit(GatewayReplaced(worker=number, old_pid=old[number].pid, new_pid=process.pid, reason=reason))
        return [process.pid for process in new.values()]

    def leave(self) -> None:
        """Let go of the gateways: they serve on, and wait for the next supervisor."""
        self._closing = True
        for process in self._all():
            process.channel.close("the supervisor ends")

    async def stop(self, drain_s: float) -> None:
        """Drain for so long, abort the rest politely, end every process; one that does not end is killed."""
        self._closing = True
        async with self._lock:  # what is just being started is stopped as well
            stopping = self._all()
            for process in stopping:
                process.channel.send(Stop(drain_s=drain_s))
            self._close_sockets(set())
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_s + _LAST_WORDS_S):
                await asyncio.gather(*(process.ended.wait() for process in stopping))
        await self._end_all(0)

    def hurry(self) -> None:
        """Have a stop that is under way end at once."""
        for process in self._all():
            process.channel.send(Stop(drain_s=0))
        self._tasks.spawn("gateway.hurry", self._end_all(_LAST_WORDS_S))

    async def _end_all(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await asyncio.gather(*(process.end() for process in self._all() if not process.ended.is_set()))

    # What a pair of machines needs

    async def fault(self) -> str | None:
        """Return why a gateway does not carry its services now; None where all do, or none is needed."""
        return await fault(self._artifact, self._serving, self._retiring)

    def share(self, tell: Tell | None) -> None:
        """Have somebody told which nodes clients keep, as gateways learn it; None: nobody."""
        self._listening.set(tell, self._all())

    async def soft_state(self) -> SoftState:
        """Return which nodes clients keep, the youngest of each service first.  Raises: EngineError."""
        return await all_known(list(self._serving.values()))

    async def merge(self, state: SoftState) -> None:
        """Give gateways what another machine knows; what is of no service of theirs is left out.

        Raises: EngineError, also where a gateway is just being started: it has to be given again then.
        """
        async with self._lock:  # what is just being started is given its services first
            wanted = (task.name for tasks in self._artifact.workers for task in tasks)
            refuse_unserved(await give(state, self._serving.values()), wanted)

    # Inside

    def _all(self) -> list[Worker]:
        return [*self._serving.values(), *self._retiring]

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise EngineError("the balancer is being stopped")

    async def _apply(self, artifact: Artifact) -> None:
        wanted = _endpoints(artifact)
        opened = self._open(wanted - set(self._sockets))
        try:
            for number in range(len(artifact.workers)):
                if number not in self._serving:
                    self._serving[number] = await self._start(number)
            await self._tell(artifact)
            self._tell_of_outdated()
        except EngineError:
            for endpoint in opened:
                self._sockets.pop(endpoint).close()
            raise
        self._artifact = artifact
        self._close_sockets(wanted)

    def _tell_of_outdated(self) -> None:
        for number, old in self._outdated.items():
            if (new := self._serving.get(number)) is not None:
                reason = f"it ran version {old.software}, not {__version__}"
                self._emit(GatewayReplaced(worker=number, old_pid=old.pid, new_pid=new.pid, reason=reason))
        self._outdated.clear()

    async def _tell(self, artifact: Artifact) -> None:
        """Tell every process what it serves from now on, so that no service is without one in between."""
        for number in [number for number in self._serving if number >= len(artifact.workers)]:
            self._retiring.append(self._serving.pop(number))
        for number, tasks in enumerate(artifact.workers):  # first those that gain services,
            await self._serve(self._serving[number], (*tasks, *self._still_kept(self._serving[number], tasks)), {})
        for number, tasks in enumerate(artifact.workers):  # then those that may lose some,
            process = self._serving[number]
            successors = self._successors(process, artifact)
            if (process.tasks, process.successors) != (tasks, successors):
                await self._serve(process, tasks, successors)
        for process in list(self._retiring):  # last those that lose all
            process.retiring = True
            with suppress(EngineError):  # it has ended, or soon will: there is nothing left to tell
                await self._serve(process, (), self._successors(process, artifact))

    def _still_kept(self, process: Worker, tasks: tuple[ServiceTask, ...]) -> list[ServiceTask]:
        """Return what a process is to lose, but not before another one has it."""
        names = {task.name for task in tasks}
        lost = [task for task in process.tasks if task.name not in names]
        return [task for task in lost if all(endpoint in self._sockets for endpoint in task.listen)]

    async def _serve(self, process: Worker, tasks: tuple[ServiceTask, ...], successors: dict[str, str]) -> None:
        needed = {endpoint for task in tasks for endpoint in task.listen}
        new = tuple(sorted(needed - process.holds))
        new_services = {task.name for task in tasks} - {task.name for task in process.tasks}
        order = Serve(
            services=tasks,
            states=self._states,
            at_s=self._clock.monotonic(),
            sockets=new,
            successors=successors,
            retire=process.retiring,
            learned={name: self.learned[name] for name in new_services if name in self.learned},
        )
        await process.tell(order, [self._sockets[endpoint] for endpoint in new])
        process.tasks, process.holds, process.successors = tasks, needed, successors
        process.is_ready = True

    def _successors(self, process: Worker, artifact: Artifact) -> dict[str, str]:
        """Return who has each service from now on, where that is another process."""
        return {
            task.name: str(self._serving[number].path)
            for number, tasks in enumerate(artifact.workers)
            for task in tasks
            if self._serving[number] is not process
        }

    def _open(self, endpoints: set[Endpoint]) -> list[Endpoint]:
        opened: list[Endpoint] = []
        try:
            for endpoint in sorted(endpoints):
                self._sockets[endpoint] = open_listener(endpoint)
                opened.append(endpoint)
        except EngineError:
            for endpoint in opened:
                self._sockets.pop(endpoint).close()
            raise
        return opened

    def _close_sockets(self, wanted: set[Endpoint]) -> None:
        for endpoint in set(self._sockets) - wanted:
            self._sockets.pop(endpoint).close()

    async def _start(self, number: int) -> Worker:
        started = await worker.start(number, self._directories, self._clock, self._heard, self._lost)
        if started.channel.closed:
            raise EngineError(f"gateway {started.pid} ended as soon as it had started")
        self._listening.ask(started)
        self._emit(GatewayStarted(worker=number, pid=started.pid))
        return started

    def _heard(self, channel: Channel, message: Message, sockets: list[socket.socket]) -> None:
        match message.body:
            case Happened(events=events):
                self._relay_events(events)
            case Learned(service=service, means=means):
                self._keep_learned(service, means)
            case Kept():
                self._listening.heard(message.body)

    def _keep_learned(self, service: str, means: dict[str, float]) -> None:
        """Take what a gateway learned; of too many titles, which callers choose, those silent for longest go."""
        known = self.learned.setdefault(service, {})
        for calling_ae, mean in means.items():
            known.pop(calling_ae, None)
            known[calling_ae] = mean
        for calling_ae in list(known)[: max(len(known) - MAX_LEARNED, 0)]:
            del known[calling_ae]

    def _lost(self, channel: Channel, reason: str) -> None:
        for process in self._all():
            if process.channel is channel:
                process.ended.set()
        self._retiring = [process for process in self._retiring if process.channel is not channel]
        lost = next((process for process in self._serving.values() if process.channel is channel), None)
        if lost is None or self._closing:
            return
        del self._serving[lost.number]
        self._emit(GatewayLost(worker=lost.number, pid=lost.pid, reason=reason))
        self._tasks.spawn("gateway.restart", self._restart(lost))

    async def _restart(self, lost: Worker) -> None:
        """Start a worker's process anew, until one serves; callers wait in the backlog meanwhile."""
        await worker.end_process(lost.pid)  # it may only have stopped talking to us: two must not serve
        quick = self._clock.monotonic() - lost.since_s < _QUICK_DEATH_S
        self._quick_deaths = self._quick_deaths + 1 if quick else 0
        while not self._closing:
            await asyncio.sleep(_PAUSES_S[min(self._quick_deaths, len(_PAUSES_S) - 1)])
            try:
                async with self._lock:
                    if not self._closing and lost.number not in self._serving:
                        await self._apply(self._artifact)
            except EngineError as error:
                self._quick_deaths += 1
                self._emit(GatewayLost(worker=lost.number, pid=lost.pid, reason=f"not started again yet: {error}"))
            else:
                return


def _endpoints(artifact: Artifact) -> set[Endpoint]:
    return {endpoint for tasks in artifact.workers for task in tasks for endpoint in task.listen}
