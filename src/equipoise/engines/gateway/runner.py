"""The supervisor's side of the gateway: processes, listening sockets, take-over, hand-over, crash.

Each worker of the plan has one process that serves; others drain until they are empty.  The supervisor and every
process hold the listening sockets, so that none of them is missed when it dies.
"""

import asyncio
import secrets
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from equipoise.base.clock import Clock
from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories, socket_path
from equipoise.base.processes import is_alive, kill, start_detached
from equipoise.base.tasks import Tasks
from equipoise.engines.base import NodeCount, Observation
from equipoise.engines.gateway.channel import Channel
from equipoise.engines.gateway.messages import (
    VERSION,
    Body,
    Done,
    Happened,
    Hello,
    Message,
    Observe,
    Serve,
    ServiceTask,
    SetNodes,
    Stop,
    Welcome,
)
from equipoise.engines.gateway.messages import Observation as Counters
from equipoise.engines.gateway.render import Artifact, render
from equipoise.engines.gateway.sockets import check_listener, open_listener
from equipoise.plan.model import Endpoint, Plan
from equipoise.plan.states import NodeState, NodeStates, node_key
from equipoise.state.events import Event, GatewayLost, GatewayReplaced, GatewayStarted

_START_S = 20.0  # a busy machine imports slowly
_POLL_S = 0.02
_QUICK_DEATH_S = 10.0  # a gateway that ends sooner is started again only after a pause
_PAUSES_S = (0.0, 0.5, 1.0, 2.0, 5.0)


class _Process:
    """One gateway process that we talk to."""

    def __init__(self, path: Path, channel: Channel, welcome: Welcome, since_s: float) -> None:
        self.path = path
        self.channel = channel
        self.pid = welcome.pid
        self.worker = welcome.worker
        self.software = welcome.software
        self.retiring = welcome.retiring
        self.since_s = since_s
        self.ended = asyncio.Event()
        self.holds: set[Endpoint] = set(welcome.sockets)
        self.tasks: tuple[ServiceTask, ...] = ()

    async def tell(self, body: Body, sockets: list[socket.socket] | None = None) -> None:
        """Send an order and wait until it is done.  Raises: EngineError."""
        answer, _ = await self.channel.ask(body, sockets or ())
        if isinstance(answer, Done) and answer.problem:
            raise EngineError(f"gateway {self.pid}: {answer.problem}")


class GatewayEngine:
    """All gateway processes of this instance.

    Args:
        directories: Where control sockets and the log are.
        tasks: Runs restarts.
        clock: Tells how long a process lived.
        emit: Takes events of ours.
        relay_events: Takes the gateways' events as JSON, as they come.
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
        self._serving: dict[int, _Process] = {}
        self._retiring: list[_Process] = []
        self._artifact = Artifact("", ())
        self._states: dict[str, NodeState] = {}
        self._lock = asyncio.Lock()
        self._closing = False
        self._quick_deaths = 0

    # Engine

    def render(self, plan: Plan) -> Artifact:
        """Say which worker has which services."""
        return render(plan)

    async def check(self, artifact: Artifact) -> list[str]:
        """Return which sockets could not be opened."""
        problems = []
        for endpoint in sorted(_endpoints(artifact) - set(self._sockets)):
            try:
                check_listener(endpoint)
            except EngineError as error:
                problems.append(str(error))
        return problems

    async def apply(self, artifact: Artifact) -> None:
        """Open sockets, start what is missing, tell everybody.  Raises: EngineError."""
        async with self._lock:
            await self._apply(artifact)

    async def set_nodes(self, states: NodeStates) -> None:
        """Take nodes in or out in every process, those that drain included."""
        self._states = dict(states)
        for process in self._all():
            process.channel.send(SetNodes(states=self._states))

    async def observe(self) -> Observation:
        """Sum the counters of all processes; one that does not answer soon is left out."""
        processes = self._all()
        answers = await asyncio.gather(*(_counters(process) for process in processes))
        return sum(answers, Observation())

    # Life

    async def adopt(self) -> list[int]:
        """Take over the gateways that serve already; return their numbers.  Raises: EngineError."""
        for path in sorted(self._directories.runtime.glob("gateway-*.sock")):
            process, sockets = await self._greet(path)
            if process is None:
                continue
            for endpoint, sock in sockets.items():
                if endpoint in self._sockets:
                    sock.close()
                else:
                    self._sockets[endpoint] = sock
            if process.retiring or process.worker in self._serving:
                self._retiring.append(process)
            else:
                self._serving[process.worker] = process
        return [process.pid for process in self._all()]

    @property
    def adopted_states(self) -> dict[str, NodeState]:
        """The node states that the adopted gateways have."""
        return self._states

    def outdated(self, software: str) -> bool:
        """Say whether a process runs another version of the software than `software`."""
        return any(process.software != software for process in self._serving.values())

    async def replace(self, reason: str) -> list[int]:
        """Start a new process for each worker on the same sockets; the old ones drain.  Raises: EngineError."""
        async with self._lock:
            old = dict(self._serving)
            new = {worker: await self._start(worker) for worker in old}
            self._serving |= new
            self._retiring += old.values()
            await self._apply(self._artifact)
        for worker, process in new.items():
            self._emit(GatewayReplaced(worker=worker, old_pid=old[worker].pid, new_pid=process.pid, reason=reason))
        return [process.pid for process in new.values()]

    def leave(self) -> None:
        """Let go of the gateways: they serve on, and wait for the next supervisor."""
        self._closing = True
        for process in self._all():
            process.channel.close("the supervisor ends")

    async def stop(self, drain_s: float) -> None:
        """Drain for so long, abort the rest politely, end every process."""
        self._closing = True
        for process in self._all():
            process.channel.send(Stop(drain_s=drain_s))
        self._close_sockets(set())
        await asyncio.gather(*(process.ended.wait() for process in self._all()))

    def hurry(self) -> None:
        """Have a stop that is under way end at once."""
        for process in self._all():
            process.channel.send(Stop(drain_s=0))

    # Inside

    def _all(self) -> list[_Process]:
        return [*self._serving.values(), *self._retiring]

    async def _apply(self, artifact: Artifact) -> None:
        wanted = _endpoints(artifact)
        opened = self._open(wanted - set(self._sockets))
        try:
            for worker in range(len(artifact.workers)):
                if worker not in self._serving:
                    self._serving[worker] = await self._start(worker)
        except EngineError:
            for endpoint in opened:
                self._sockets.pop(endpoint).close()
            raise
        for worker in [number for number in self._serving if number >= len(artifact.workers)]:
            self._retiring.append(self._serving.pop(worker))
        for worker, tasks in enumerate(artifact.workers):  # first those that gain services,
            await self._serve(self._serving[worker], tasks, artifact)
        for worker, tasks in enumerate(artifact.workers):  # then those that may lose some,
            await self._serve(self._serving[worker], tasks, artifact, only=True)
        for process in list(self._retiring):  # last those that lose all
            process.retiring = True
            await self._serve(process, (), artifact, only=True)
        self._artifact = artifact
        self._close_sockets(wanted)

    async def _serve(
        self, process: _Process, tasks: tuple[ServiceTask, ...], artifact: Artifact, *, only: bool = False
    ) -> None:
        """Tell a process what to serve; without `only` it also keeps for now what it is to lose."""
        names = {task.name for task in tasks}
        kept = (
            ()
            if only
            else tuple(task for task in process.tasks if task.name not in names and _keeps(task, self._sockets))
        )
        told = (*tasks, *kept)
        if told == process.tasks and only and not kept and not process.retiring:
            return
        needed = {endpoint for task in told for endpoint in task.listen}
        new = tuple(sorted(needed - process.holds))
        order = Serve(
            digest=artifact.digest,
            services=told,
            states=self._states,
            sockets=new,
            successors={} if not only else self._successors(process, artifact, names),
            retire=process.retiring,
        )
        try:
            await process.tell(order, [self._sockets[endpoint] for endpoint in new])
        except EngineError:
            if not process.retiring:
                raise
            return  # it has ended, or soon will: there is nothing left to tell
        process.tasks, process.holds = told, needed

    def _successors(self, process: _Process, artifact: Artifact, own: set[str]) -> dict[str, str]:
        return {
            task.name: str(self._serving[worker].path)
            for worker, tasks in enumerate(artifact.workers)
            for task in tasks
            if task.name not in own and self._serving[worker] is not process
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

    async def _start(self, worker: int) -> _Process:
        path = self._directories.runtime / f"gateway-{worker}.{secrets.token_hex(3)}.sock"
        command = [sys.executable, "-m", "equipoise.engines.gateway.process", "--socket", socket_path(path)]
        log = self._directories.state / "gateway.log"
        child = start_detached([*command, "--worker", str(worker)], log)
        deadline_s = self._clock.monotonic() + _START_S
        while not path.exists():
            if child.poll() is not None:
                raise EngineError(f"a gateway process ended with status {child.returncode} at its start; see {log}")
            if self._clock.monotonic() > deadline_s:
                child.kill()
                raise EngineError(f"a gateway process did not get ready within {_START_S:g} s; see {log}")
            await asyncio.sleep(_POLL_S)
        process, _ = await self._greet(path)
        if process is None:
            raise EngineError(f"a gateway process got ready and then did not answer; see {log}")
        self._emit(GatewayStarted(worker=worker, pid=process.pid))
        return process

    async def _greet(self, path: Path) -> tuple[_Process | None, dict[Endpoint, socket.socket]]:
        """Connect to a gateway; a socket that nobody listens on any more is removed.  Raises: EngineError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            sock.close()
            path.unlink(missing_ok=True)
            return None, {}
        channel = Channel(sock, self._heard, self._lost)
        welcome, sockets = await channel.ask(Hello(version=VERSION))
        if not isinstance(welcome, Welcome) or welcome.version != VERSION:
            channel.close()
            found = getattr(welcome, "version", "none")
            raise EngineError(
                f"the gateway behind {path} speaks control version {found}, this supervisor {VERSION}: it serves on, "
                "but cannot be taken over; start the version of Equipoise that started it, or stop it"
            )
        self._states |= welcome.states
        process = _Process(path, channel, welcome, self._clock.monotonic())
        return process, dict(zip(welcome.sockets, sockets, strict=True))

    def _heard(self, channel: Channel, message: Message, sockets: list[socket.socket]) -> None:
        if isinstance(message.body, Happened):
            self._relay_events(message.body.events)

    def _lost(self, channel: Channel, reason: str) -> None:
        for process in self._all():
            if process.channel is channel:
                process.ended.set()
        self._retiring = [process for process in self._retiring if process.channel is not channel]
        lost = next((process for process in self._serving.values() if process.channel is channel), None)
        if lost is None or self._closing:
            return
        del self._serving[lost.worker]
        self._emit(GatewayLost(worker=lost.worker, pid=lost.pid, reason=reason))
        quick = self._clock.monotonic() - lost.since_s < _QUICK_DEATH_S
        self._quick_deaths = self._quick_deaths + 1 if quick else 0
        self._tasks.spawn("gateway.restart", self._restart(lost))

    async def _restart(self, lost: _Process) -> None:
        """Start a worker's process anew; callers wait in the backlog meanwhile."""
        if is_alive(lost.pid):  # it stopped talking to us but still accepts: two must not serve
            kill(lost.pid)
        await asyncio.sleep(_PAUSES_S[min(self._quick_deaths, len(_PAUSES_S) - 1)])
        async with self._lock:
            if not self._closing and lost.worker not in self._serving:
                await self._apply(self._artifact)


async def _counters(process: _Process) -> Observation:
    try:
        answer, _ = await process.channel.ask(Observe(), timeout_s=2.0)
    except EngineError:
        return Observation()
    if not isinstance(answer, Counters):
        return Observation()
    nodes = {
        node_key(name, node): NodeCount(count.connections, count.associations, count.bytes_in, count.bytes_out)
        for name, service in answer.services.items()
        for node, count in service.nodes.items()
    }
    return Observation(nodes, {name: service.clients for name, service in answer.services.items()})


def _endpoints(artifact: Artifact) -> set[Endpoint]:
    return {endpoint for tasks in artifact.workers for task in tasks for endpoint in task.listen}


def _keeps(task: ServiceTask, sockets: dict[Endpoint, socket.socket]) -> bool:
    return all(endpoint in sockets for endpoint in task.listen)
