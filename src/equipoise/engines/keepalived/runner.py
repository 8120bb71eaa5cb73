"""The engine of the pair: keepalived has this machine's share of the addresses, and we tell it when it must not.

keepalived moves addresses with or without a supervisor.  This one writes its configuration, tells it of faults that it
cannot see, hands over on request, says what happened and why, and starts it again where it ended or was stopped.
Leaves out the peer's own view, and who of the two has a document (`app/pair`).
"""

import asyncio
import os
import pwd
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from equipoise.base import rights
from equipoise.base.clock import Clock
from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.engines.base import Observation, Refusal, SharesNothing
from equipoise.engines.keepalived import presence
from equipoise.engines.keepalived.artifact import Artifact, Place
from equipoise.engines.keepalived.files import DIRECTORY, Files
from equipoise.engines.keepalived.groups import GroupNow
from equipoise.engines.keepalived.looks import Looks
from equipoise.engines.keepalived.packets import Packets
from equipoise.engines.keepalived.process import Keepalived
from equipoise.engines.keepalived.refusals import refusals
from equipoise.engines.keepalived.render import render
from equipoise.engines.keepalived.story import Story
from equipoise.plan.model import Plan
from equipoise.plan.states import NodeState, NodeStates
from equipoise.state.cluster_events import ClusterFault
from equipoise.state.events import Event, TaskHindered
from equipoise.state.hindrances import Hindrances

__all__ = ["GroupNow", "KeepalivedEngine"]

USUAL_RUNTIME = Path("/run/equipoise")
_TICK_S = 0.5
_AFTER_FAILURE_S = 5.0
_SEE_AFTER_S = (0.01, 0.02, 0.03, 0.1, 0.2)  # keepalived tells of a change first, and moves the addresses then
_ANSWERED_S = 0.06  # until whoever was accepted before has its answer
_RUN, _RULES, _RELEASE = "have keepalived run", "packet rules of the pair", "end a handover that was under way"


def table_name(directories: Directories) -> str:
    """Return the name of the table of packet rules: another one for another instance on the same machine."""
    if directories.runtime == USUAL_RUNTIME:
        return "equipoise-vrrp"
    return f"equipoise-vrrp-{blake2b(str(directories.runtime).encode(), digest_size=4).hexdigest()}"


def place(directories: Directories) -> Place:
    """Return what of this machine stands in the configuration."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = ""
    return Place(
        directory=directories.runtime / DIRECTORY,
        gateway_sockets=directories.runtime / "gateway-",
        haproxy_socket=directories.runtime / "haproxy" / "master.sock",
        user=user,
        table=table_name(directories),
        runs_scripts=bool(rights.effective() >> rights.SETGID & 1),
    )


class KeepalivedEngine(SharesNothing):
    """The addresses that this machine has in turn with its peer; none where it stands alone.

    Args:
        directories: keepalived's files are in the runtime directory.
        tasks: Runs the look at its processes.
        clock: Says since when a group stands as it does.
        emit: Takes events.
    """

    name = "keepalived"

    def __init__(self, directories: Directories, tasks: Tasks, clock: Clock, emit: Callable[[Event], None]) -> None:
        self._files = Files(directories)
        self._place = place(directories)
        self._tasks = tasks
        self._emit = emit
        self._keepalived = Keepalived(self._files)
        self._looks = Looks(self._keepalived)
        self._packets = Packets(self._place.table, self._files)
        self._story = Story(self._files, clock, emit, self._see_soon)
        self._artifact = Artifact()
        self._found: str | None = None  # the configuration of the one before
        self._found_rules: str | None = None
        self._given: frozenset[str] = frozenset()
        self._lock = asyncio.Lock()
        self._ticks: asyncio.Task[None] | None = None
        self._seeing: asyncio.Task[None] | None = None
        self._hindrances = Hindrances(emit)
        self._was_adopted = self._closing = False

    # Engine

    def render(self, plan: Plan) -> Artifact:
        """Say what the plan means for keepalived."""
        return render(plan, self._place)

    async def check(self, artifact: Artifact) -> list[Refusal]:
        """Return what keeps this machine from being one of a pair."""
        return await asyncio.to_thread(refusals, artifact, self._files) if artifact else []

    async def apply(self, artifact: Artifact) -> None:
        """Have keepalived do this; addresses stay where they are.  Raises: EngineError; then all is as it was."""
        async with self._lock:
            if self._closing:
                raise EngineError("the balancer is being stopped")
            if not artifact:
                if self._artifact or self._found is not None:
                    await self._dismantle("the configuration names no pair any more")
            elif artifact != self._artifact or not self._keepalived.is_alive:
                await self._change(artifact)
            self._artifact = artifact

    async def set_nodes(self, states: NodeStates) -> None:
        """Do nothing: whether this machine can carry traffic is told by `set_fault`."""

    async def observe(self) -> Observation:
        """Return nothing: addresses count nothing."""
        return Observation()

    # What the pair asks for

    @property
    def groups(self) -> tuple[GroupNow, ...]:
        """How each group of addresses stands on this machine."""
        return self._story.groups

    def hosts_of(self, names: frozenset[str]) -> frozenset[str]:
        """Return the addresses of these groups, wherever they are."""
        return self._artifact.hosts_of(names)

    @property
    def on_change(self) -> Callable[[], None]:
        """Called each time that a group stands otherwise."""
        return self._story.on_change

    @on_change.setter
    def on_change(self, told: Callable[[], None]) -> None:
        self._story.on_change = told

    async def set_fault(self, reason: str | None) -> None:
        """Say why this machine can carry no traffic, and so has no addresses; None: it can.  Raises: EngineError."""
        if reason == self._story.fault or not self._artifact:
            return
        if (reason is None) != (self._story.fault is None):
            self._files.tell_fault(is_there=reason is not None)
        self._story.fault = reason
        self._emit(ClusterFault(reason=reason))

    async def give(self, groups: Collection[str], reason: str = "") -> None:
        """Have the peer take these groups, by taking them away here.  Raises: EngineError; `keep` sets all right then.

        New connections to their addresses wait from now on, until `keep`: a client sends its first packet again, to
        the machine that has the address by then.
        """
        chosen = frozenset(groups) & {group.name for group in self._artifact.groups}
        if not chosen:
            return
        self._given |= chosen
        self._story.given_for = reason
        await self._packets.hold(self._held)
        await asyncio.sleep(_ANSWERED_S)
        for group in sorted(chosen):
            self._files.tell_give(group, away=True)

    async def keep(self, groups: Collection[str]) -> None:
        """Let this machine have these groups again, where the peer does not.  Raises: EngineError."""
        self._given -= frozenset(groups)  # those too that have left the plan meanwhile, and may come back
        chosen = frozenset(groups) & {group.name for group in self._artifact.groups}
        if not chosen:
            return
        try:
            for group in sorted(chosen):
                self._files.tell_give(group, away=False)
        finally:
            await self._packets.hold(self._held)

    # Life

    async def adopt(self) -> Mapping[str, NodeState]:
        """Take over a keepalived that runs already; it knows nothing of nodes."""
        self._found, self._found_rules = self._files.configured(), self._files.loaded()
        if self._found is None or not await asyncio.to_thread(self._keepalived.find):
            return {}
        self._was_adopted = True
        self._story.go_on()
        if self._files.has_fault():
            self._story.fault = "the supervisor before found that this machine could not carry traffic"
        try:
            for group in self._files.given():  # whoever handed it over is no more
                self._files.tell_give(group, away=False)
        except EngineError as error:
            self._hindrances.say(_RELEASE, str(error))
        return {}

    @property
    def adopted(self) -> int:
        """How many processes were taken over: one, or none."""
        return int(self._was_adopted)

    def prepare(self, states: NodeStates) -> None:
        """Do nothing, as `set_nodes` does."""

    async def undo_start(self) -> None:
        """End a keepalived that this start began; one that was found goes on as it was."""
        self.leave()
        async with self._lock:
            with suppress(EngineError):
                if self._was_adopted and self._found is not None:
                    if self._found_rules:
                        await self._packets.load_text(self._found_rules)
                        await self._packets.hold(frozenset)
                    await self._run(self._found)
                elif self._artifact:
                    await self._dismantle("the balancer could not start")
            self._story.close()

    async def watch(self) -> None:
        """Put packet rules back that something removed, and keep the log short."""
        if self._closing or not self._artifact:
            return
        self._begin_to_look()
        async with self._lock:
            try:
                await self._packets.mend(self._artifact, self._held)
                self._hindrances.say(_RULES, None)
            except EngineError as error:
                self._hindrances.say(_RULES, str(error))
        if self._files.trim_log():
            self._story.log_was_cut()

    def leave(self) -> None:
        """Let go: keepalived goes on, and what it says waits for the next supervisor."""
        self._closing = True
        for task in (self._ticks, self._seeing):
            if task is not None:
                task.cancel()
        self._story.close()

    async def stop(self, drain_s: float) -> None:
        """Hand all addresses over to the peer, and end."""
        self._closing = True
        async with self._lock:
            if self._ticks is not None:
                self._ticks.cancel()
            if self._artifact or self._found is not None:
                with suppress(EngineError):  # it goes without as well, with connections that are cut
                    await self.give([each.name for each in self.groups if each.state == "master"], "the balancer stops")
                try:
                    await self._dismantle("the balancer was stopped")
                except EngineError as error:
                    self._hindrances.say("leave the pair in good order", str(error))
        self._story.close()

    def hurry(self) -> None:
        """Do nothing: a stop takes a second or two."""

    async def fault(self) -> str | None:
        """Return why keepalived cannot have the addresses; None where it can."""
        if not self._artifact or self._keepalived.is_alive:
            return None
        return f"keepalived does not run: {self._hindrances.why(_RUN) or 'it is being started'}"

    def _held(self) -> frozenset[str]:
        return self.hosts_of(self._given)

    # Inside: a plan

    async def _change(self, artifact: Artifact) -> None:
        """Put a plan into force.  Raises: EngineError, with the one before in force."""
        before, configured = self._artifact, self._files.configured()
        was_alive = self._keepalived.is_alive
        self._files.create()
        self._files.make_fifo()
        self._story.follow(artifact)
        try:
            await self._packets.load(artifact, lambda: artifact.hosts_of(self._given))
            await self._run(artifact.configuration)
        except EngineError:
            self._story.follow(before)
            with suppress(EngineError):
                await self._go_back(before, configured if was_alive else None)
            raise
        self._story.open()
        self._story.see(await asyncio.to_thread(presence.here))
        self._begin_to_look()

    async def _run(self, configuration: str) -> None:
        """Have keepalived run on a configuration.  Raises: EngineError."""
        same = self._files.configured() == configuration
        if self._keepalived.is_alive and same:
            return
        left_behind = self._files.configured_hosts()
        self._write_told()
        if not same:
            self._files.write(self._files.configuration, configuration)
        if self._keepalived.is_alive:
            await self._keepalived.reload()
        else:
            self._files.make_fifo()
            self._story.open()
            await self._keepalived.kill()
            await asyncio.to_thread(presence.remove, left_behind)
            await self._keepalived.start()

    def _write_told(self) -> None:
        """Have every file that the configuration names say what holds now.  Raises: EngineError."""
        self._files.tell_fault(is_there=self._story.fault is not None)
        for group in self._story.groups:
            self._files.tell_give(group.name, away=group.name in self._given)

    async def _go_back(self, before: Artifact, configured: str | None) -> None:
        if configured is None:
            await self._dismantle("it could not be started")
            return
        if before:
            await self._packets.load(before, lambda: before.hosts_of(self._given))
        await self._run(configured)

    async def _dismantle(self, reason: str) -> None:
        """Leave the pair in good order, and nothing behind.  Raises: EngineError."""
        try:
            await self._keepalived.end()
            await asyncio.to_thread(presence.remove, self._files.configured_hosts())
        finally:
            self._story.end(reason)
            self._files.remove_all()
            self._given, self._found, self._was_adopted = frozenset(), None, False
            await self._packets.remove()

    # Inside: the processes

    def _begin_to_look(self) -> None:
        if self._ticks is None or self._ticks.done():
            self._ticks = self._tasks.spawn("keepalived.look", self._look_again_and_again())

    async def _look_again_and_again(self) -> None:
        pause_s = _TICK_S
        while True:
            await asyncio.sleep(pause_s)
            async with self._lock:
                if self._closing or not self._artifact:
                    continue
                try:
                    await self._look()
                    pause_s = _TICK_S
                    self._hindrances.say(_RUN, None)
                except EngineError as error:
                    pause_s = _AFTER_FAILURE_S
                    self._hindrances.say(_RUN, str(error))

    async def _look(self) -> None:
        """See that both processes are there and do something, and which addresses are here.  Raises: EngineError."""
        if (wrong := self._looks.wrong()) is not None:
            await self._start_anew(wrong)
        self._story.read()
        self._story.see(await asyncio.to_thread(presence.here))

    def _see_soon(self) -> None:
        """See again which addresses are here, now that a group stands otherwise."""
        if self._seeing is not None:
            self._seeing.cancel()
        if not self._closing:
            self._seeing = self._tasks.spawn("keepalived.see", self._see_again_and_again())

    async def _see_again_and_again(self) -> None:
        for pause_s in _SEE_AFTER_S:
            await asyncio.sleep(pause_s)
            with suppress(EngineError):  # the next look says it
                self._story.see(await asyncio.to_thread(presence.here))

    async def _start_anew(self, why: str) -> None:
        """Start keepalived, and take away first what the one before has left.  Raises: EngineError."""
        self._looks.begin_again()
        await self._keepalived.kill()
        await asyncio.to_thread(presence.remove, self._files.configured_hosts())
        self._story.lost(f"keepalived was started anew: {why}")
        self._story.follow(self._artifact)
        self._files.create()
        await self._run(self._artifact.configuration)
        self._emit(TaskHindered(task=_RUN, reason=f"started anew: {why}"))
