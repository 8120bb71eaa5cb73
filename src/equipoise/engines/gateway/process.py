"""The gateway process: serves what supervisors tell it, and goes on serving when none is there.

    python -m equipoise.engines.gateway.process --socket PATH --worker N

It listens on PATH; whoever connects is a supervisor (Hello) or a gateway that drains (Soft).  Events wait for a
supervisor, the oldest are forgotten past a bound.  It ends when told to, or, once retired, when it is empty.
"""

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import uvloop

from equipoise import __version__
from equipoise.base.clock import Clock, SystemClock
from equipoise.base.processes import raise_file_limit
from equipoise.base.tasks import Tasks
from equipoise.engines.gateway.channel import Channel
from equipoise.engines.gateway.dicom_service import DicomService
from equipoise.engines.gateway.hl7.service import Hl7Service
from equipoise.engines.gateway.messages import (
    VERSION,
    Done,
    Hello,
    Kept,
    Learned,
    Message,
    Observation,
    Observe,
    Recall,
    Serve,
    ServiceTask,
    SetNodes,
    Share,
    Soft,
    Stop,
    Welcome,
)
from equipoise.engines.gateway.outbox import Outbox
from equipoise.engines.gateway.room import Room, room_for
from equipoise.engines.gateway.security import Security, secured
from equipoise.engines.gateway.service import Service, Surroundings
from equipoise.engines.gateway.sharing import Sharing
from equipoise.engines.gateway.side import LINGER_S, READ_BUFFER_BYTES
from equipoise.engines.gateway.successor import Successors
from equipoise.plan.model import Endpoint
from equipoise.plan.states import NodeState
from equipoise.policy.catalogue import policies
from equipoise.state.events import TaskFailed, TaskHindered

_KINDS = {"dicom": DicomService, "hl7": Hl7Service}

_COLLECT_EVERY_S = 30.0
_LEARNED_S = 5.0  # what is lost at most where a gateway is killed
_ACCEPT_AGAIN_S = 0.1


class Gateway:
    """The process: its services, its sockets, and who it talks to."""

    def __init__(self, path: Path, worker: int, clock: Clock) -> None:
        self._path = path
        self._worker = worker
        self._clock = clock
        self._tasks = Tasks(self._task_failed)
        self._services: dict[str, Service] = {}
        self._leaving: list[Service] = []
        self._sockets: dict[Endpoint, socket.socket] = {}
        self._states: dict[str, NodeState] = {}
        self._states_at_s = 0.0
        self._told: tuple[ServiceTask, ...] = ()
        self._retire = False
        self._supervisor: Channel | None = None
        self._predecessors: dict[Channel, str] = {}
        self._successors = Successors(self._tasks, clock)
        self._sharing = Sharing(lambda: (*self._leaving, *self._services.values()), clock)
        self._outbox = Outbox(clock)
        self._telling = False
        self._orders: asyncio.Queue[tuple[Channel, Message, list[socket.socket]]] = asyncio.Queue()
        self._ended = asyncio.Event()
        self._max_files = raise_file_limit()
        self._around = Surroundings(
            buffer=memoryview(bytearray(READ_BUFFER_BYTES)),
            tasks=self._tasks,
            clock=clock,
            emit=self._outbox.put,
            room=Room(0),
            changed=self._changed,
            service=self._service,
        )

    async def run(self) -> None:
        """Serve until the end."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        draft = self._path.with_suffix(".new")
        listener.bind(str(draft))
        draft.chmod(0o600)
        listener.listen(16)
        listener.setblocking(False)
        draft.rename(self._path)  # whoever sees the name can connect
        self._tasks.spawn("gateway.accept", self._accept(listener))
        self._tasks.spawn("gateway.orders", self._follow_orders())
        self._tasks.repeat("gateway.collect", _COLLECT_EVERY_S, self._collect)
        try:
            await self._ended.wait()
        finally:
            self._path.unlink(missing_ok=True)
            listener.close()
            self._successors.close()
            self._tell_learned()
            self._outbox.flush()
            await self._tasks.cancel_all()

    async def _collect(self) -> None:
        """Free what connections leave behind: those of TLS are cycles, and by itself the collector looks too seldom."""
        gc.collect()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError:  # no descriptor is left; some will be given back
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            Channel(sock, self._heard, self._closed)

    def _heard(self, channel: Channel, message: Message, sockets: list[socket.socket]) -> None:
        match message.body:
            case Hello():
                self._greet(channel, message.number)
            case Soft() as soft:
                self._hear_predecessor(channel, soft)
            case Observe():
                services = {name: service.observe() for name, service in self._services.items()}
                for service in self._leaving:
                    services.setdefault(service.name, service.observe())
                channel.send(Observation(services=services), answers=message.number)
            case SetNodes(states=states, at_s=at_s):
                self._set_nodes(states, at_s)
                channel.send(Done(), answers=message.number)
            case Share() | Recall() | Kept():
                self._sharing.heard(channel, message)
            case _:
                self._orders.put_nowait((channel, message, sockets))

    def _closed(self, channel: Channel, reason: str) -> None:
        if channel is self._supervisor:
            self._supervisor = self._outbox.reader = None
        self._sharing.closed(channel)
        name = self._predecessors.pop(channel, None)
        if name is not None:
            for service in self._services.values():
                service.hear_elsewhere(name, {})

    def _greet(self, channel: Channel, number: int) -> None:
        """Take this supervisor for ours; an earlier one is gone or going."""
        if self._supervisor is not None and self._supervisor is not channel:
            self._supervisor.close("another supervisor took over")
        self._supervisor = self._outbox.reader = channel
        channel.send(
            Welcome(
                version=VERSION,
                software=__version__,
                pid=os.getpid(),
                worker=self._worker,
                retiring=self._retire,
                services=self._told,
                sockets=tuple(self._sockets),
                states=self._states,
                shares=True,
            ),
            list(self._sockets.values()),
            answers=number,
        )
        self._outbox.flush()

    async def _follow_orders(self) -> None:
        """Carry out what changes services, one order after the other; a bug in one ends that one alone."""
        while True:
            channel, message, sockets = await self._orders.get()
            order = self._tasks.spawn("gateway.order", self._carry_out(channel, message, sockets))
            await asyncio.wait([order])
            if (failure := order.exception()) is not None:
                channel.send(Done(problem=f"a bug, please report it: {failure!r}"), answers=message.number)

    async def _carry_out(self, channel: Channel, message: Message, sockets: list[socket.socket]) -> None:
        match message.body:
            case Serve() as serve:
                problem = await self._serve(serve, sockets)
                channel.send(Done(problem=problem), answers=message.number)
                self._end_if_empty()
            case Stop(drain_s=drain_s):
                channel.send(Done(), answers=message.number)
                self._stop(drain_s)

    async def _serve(self, serve: Serve, sockets: list[socket.socket]) -> str | None:
        """Take a plan; return what was not possible.  What fails before listening has changed nothing."""
        self._sockets |= dict(zip(serve.sockets, sockets, strict=True))
        self._around.room.limit = max(1, room_for(self._max_files, len(self._sockets)))  # before anybody is let in
        self._take_states(serve.states, serve.at_s)
        unknown = sorted({task.balance for task in serve.services} - set(policies()))
        if unknown:
            return f"this gateway's version does not know balance {', '.join(unknown)}"
        try:
            await self._serve_tasks({task.name: task for task in serve.services})
            for name, means in serve.learned.items():
                if (service := self._services.get(name)) is not None:
                    service.pool.predictions.load(means)
        except OSError as error:
            return f"cannot listen: {error.strerror or error}"
        self._told, self._retire = serve.services, serve.retire
        self._drop_sockets({endpoint for task in serve.services for endpoint in task.listen})
        return await self._name_successors(serve.successors)

    async def _serve_tasks(self, tasks: dict[str, ServiceTask]) -> None:
        for task in tasks.values():
            self._take_task(task, tasks)
        for name, task in tasks.items():  # when all pools are there that routes lead to
            await self._services[name].listen({endpoint: self._sockets[endpoint] for endpoint in task.listen})
        for name in [name for name in self._services if name not in tasks]:
            service = self._services.pop(name)
            service.leave()
            self._leaving.append(service)

    def _take_task(self, task: ServiceTask, tasks: dict[str, ServiceTask]) -> None:
        name, states = task.name, _of_service(self._states, task.name)
        service = self._going_on(task)
        before, told = (service.security, service.task) if service is not None else (Security(), None)
        security = secured(task, before, told)
        if security.problem not in (None, before.problem):  # it serves on with what it has, and so do the others
            self._outbox.put(TaskHindered(task=f"TLS of {name}", reason=security.problem))
        if service is None:
            service = _KINDS[task.protocol](task, states, self._around, security)
        self._services[name] = service
        service.configure(task, states, security, tasks)
        self._sharing.begin(service)

    def _service(self, name: str) -> Service | None:
        return self._services.get(name) or next((each for each in self._leaving if each.name == name), None)

    def _going_on(self, task: ServiceTask) -> Service | None:
        """Return the service that goes on with this task; one that is to speak something else now leaves.

        One that was leaving comes back with what it holds, and its successor counts that no more.
        """
        service = self._services.get(task.name)
        if service is not None and service.task.protocol == task.protocol:
            return service
        if service is not None:
            service.leave()
            self._leaving.append(service)
        for leaving in self._leaving:
            if (leaving.name, leaving.task.protocol) == (task.name, task.protocol):
                self._leaving.remove(leaving)
                self._successors.forget(task.name)
                return leaving
        return None

    async def _name_successors(self, paths: dict[str, str]) -> str | None:
        problems = []
        for service in self._leaving:
            if (path := paths.get(service.name)) is not None:
                try:
                    await self._successors.set(service, path)
                except OSError as error:
                    problems.append(f"cannot reach the successor of {service.name}: {error.strerror}")
        return "; ".join(problems) or None

    def _drop_sockets(self, wanted: set[Endpoint]) -> None:
        for endpoint in set(self._sockets) - wanted:
            self._sockets.pop(endpoint).close()

    def _take_states(self, states: dict[str, NodeState], at_s: float) -> bool:
        """Take node states, unless newer ones are here already; say whether they were taken."""
        if at_s < self._states_at_s:
            self._states = states | self._states
            return False
        self._states, self._states_at_s = self._states | states, at_s
        return True

    def _set_nodes(self, states: dict[str, NodeState], at_s: float) -> None:
        if not self._take_states(states, at_s):
            return
        for service in (*self._services.values(), *self._leaving):
            for node, state in _of_service(states, service.name).items():
                service.set_state(node, state)

    def _stop(self, drain_s: float) -> None:
        """Drain for so long, abort the rest politely, end.  A second Stop, with less time, overtakes the first."""
        services = [*self._services.values(), *self._leaving]
        for service in services:
            service.leave()
        self._drop_sockets(set())
        self._retire = True
        self._leaving = services
        self._services.clear()
        self._end_if_empty()
        self._tasks.spawn("gateway.drain", self._drain(drain_s))

    async def _drain(self, drain_s: float) -> None:
        await asyncio.sleep(drain_s)
        for service in list(self._leaving):
            service.abort_all("the balancer was stopped and its drain_timeout is over")
        await asyncio.sleep(LINGER_S)
        self._ended.set()

    def _changed(self, service: Service) -> None:
        self._successors.changed(service)
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_later(_LEARNED_S, self._tell_learned)
        if service.is_empty and service in self._leaving:
            self._end_if_empty()

    def _tell_learned(self) -> None:
        """Have the supervisor keep what was learned of calling AEs; without one it waits."""
        self._telling = False
        for service in (*self._services.values(), *self._leaving):
            self._tell_learned_of(service)

    def _tell_learned_of(self, service: Service) -> None:
        if self._supervisor is not None and (means := service.pool.predictions.take_changes()):
            self._supervisor.send(Learned(service=service.name, means=means))

    def _end_if_empty(self) -> None:
        for service in [service for service in self._leaving if service.is_empty]:
            self._tell_learned_of(service)  # later it is forgotten
            self._leaving.remove(service)
        if self._retire and not self._services and not self._leaving:
            self._ended.set()

    def _hear_predecessor(self, channel: Channel, soft: Soft) -> None:
        self._predecessors[channel] = soft.gateway
        service = self._services.get(soft.service)
        if service is not None:
            service.pool.table.merge(soft.persistence, self._clock.monotonic())
            service.hear_elsewhere(soft.gateway, soft.open)

    def callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Report a bug that ended in the event loop."""
        failure = context.get("exception") or RuntimeError(context.get("message", "unknown"))
        self._task_failed(str(context.get("message")), failure)

    def _task_failed(self, name: str, failure: BaseException) -> None:
        text = "".join(traceback.format_exception(failure))
        sys.stderr.write(text)
        self._outbox.put(TaskFailed(task=name, error=repr(failure), traceback=text))


def _of_service(states: dict[str, NodeState], service: str) -> dict[str, NodeState]:
    prefix = f"{service}/"
    return {key.removeprefix(prefix): state for key, state in states.items() if key.startswith(prefix)}


async def _main(path: Path, worker: int) -> None:
    loop = asyncio.get_running_loop()
    gateway = Gateway(path, worker, SystemClock())
    loop.set_exception_handler(gateway.callback_failed)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):  # the supervisor's business
        loop.add_signal_handler(number, lambda: None)
    await gateway.run()


def main() -> None:
    """Run a gateway process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--worker", type=int, required=True)
    arguments = parser.parse_args()
    gc.freeze()  # what is loaded by now stays: the collector need not look at it again and again
    uvloop.run(_main(arguments.socket, arguments.worker))


if __name__ == "__main__":
    main()
