"""One HAProxy from start to end: started or taken over, loaded anew with what its clients keep, told, stopped."""

import asyncio
import signal
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from equipoise.base.clock import Clock
from equipoise.base.errors import EngineError
from equipoise.base.processes import arguments, is_alive
from equipoise.engines.haproxy import master
from equipoise.engines.haproxy.artifact import Pool
from equipoise.engines.haproxy.blame import last_words
from equipoise.engines.haproxy.files import Files
from equipoise.engines.haproxy.old_sessions import end_sessions
from equipoise.engines.haproxy.program import Program
from equipoise.engines.haproxy.runtime import NoAnswerError, NobodyError, Worker, ask, tell, who
from equipoise.engines.haproxy.servers import servers
from equipoise.engines.haproxy.stick_tables import Remembered, carry_over, remember
from equipoise.plan.states import NodeState
from equipoise.state.events import Event, HaproxyLost, HaproxyReloaded, HaproxyStarted, TaskHindered

_LAST_WORDS_BYTES = 4096
_KILLED_S = 3.0
_FAULT_S = 3.0  # one that is this late is held to be stopped, and another machine had better serve
_LOOK_EVERY_S = 0.05


class Instance:
    """The HAProxy that serves; `pid` is its master, 0 where none runs.

    Attributes:
        worker: Who serves; None where nobody does.
        is_adopted: Whether it ran before we did.
        since_s: When it was started, or taken over.
    """

    def __init__(self, files: Files, clock: Clock, emit: Callable[[Event], None]) -> None:
        self._files = files
        self._clock = clock
        self._emit = emit
        self.pid = 0
        self.worker: Worker | None = None
        self.is_adopted = False
        self.since_s = 0.0
        self._log_began = 0  # what stands before it in the log was said by others

    @property
    def is_alive(self) -> bool:
        """Whether its master is there; it ends when its worker does.

        While it loads a configuration the master begins its own program anew, and has no command line for a moment.
        """
        if self.pid == 0 or not is_alive(self.pid):
            return False
        return not arguments(self.pid) or master.is_ours(self._files, self.pid)

    def runs(self, mark: str) -> bool:
        """Say whether what serves is the configuration with this digest."""
        return self.is_alive and self.worker is not None and mark in self.worker.description

    def runs_other_than(self, mark: str) -> bool:
        """Say whether what serves is a configuration with another digest."""
        return self.is_alive and self.worker is not None and mark not in self.worker.description

    async def start(self, program: Program, mark: str) -> None:
        """Start one on the configuration that is written.  Raises: EngineError."""
        self._log_began = self._files.log_end()
        self.pid, self.worker = await master.start(self._files, program, mark)
        self.is_adopted, self.since_s = False, self._clock.monotonic()
        self._emit(HaproxyStarted(pid=self.pid, version=self.worker.version, program=program.path))

    async def reload(self, mark: str, pools: Sequence[Pool]) -> None:
        """Have the configuration that is written loaded, and clients keep their nodes.  Raises: EngineError."""
        remembered = await self._remember(pools)
        old = self.worker.pid if self.worker is not None else 0
        self.worker = None  # until it is known who serves: one that is not ready in time may be later
        try:
            self.worker = await master.reload(self._files, self.pid, mark)
        except EngineError:
            with suppress(EngineError):
                self.worker = await who(self._files.worker_socket)
            raise
        try:
            await carry_over(self._files.worker_socket, mark, pools, remembered)
        except EngineError as error:
            self._hindered(error)
        self._emit(HaproxyReloaded(pid=self.worker.pid, old_pid=old))

    async def tell(self, mark: str, commands: Sequence[str]) -> None:
        """Have the worker that serves do these.  Raises: EngineError."""
        await tell(self._files.worker_socket, mark, commands)

    async def cut_old(self, keys: Collection[str]) -> None:
        """End what old workers have open at these nodes."""
        if not keys:
            return
        with suppress(EngineError):
            for pid in (await master.family(self._files)).old:
                await end_sessions(self._files.master_socket, pid, keys)

    async def fault(self) -> str | None:
        """Return why it serves nobody, at once where it is dead; None where its worker answers within 3 s."""
        now_s = asyncio.get_running_loop().time
        deadline_s = now_s() + _FAULT_S
        said = ""
        while self.is_alive:
            if (left_s := deadline_s - now_s()) <= 0:
                return said
            try:
                await who(self._files.worker_socket, left_s)
            except NoAnswerError as error:
                return str(error)
            except EngineError as error:  # for a moment while another configuration is loaded it hangs up
                said = str(error)
            else:
                return None
            await asyncio.sleep(_LOOK_EVERY_S)
        return "HAProxy does not run; it is started again"

    def last_words(self) -> str:
        """Return what it printed last."""
        end = self._files.log_end()
        began = self._log_began if self._log_began <= end else 0  # the log was cut meanwhile
        return last_words(self._files.log_since(max(began, end - _LAST_WORDS_BYTES)))

    # Taking over

    async def adopt(self) -> dict[str, NodeState]:
        """Take over a HAProxy that serves, and return its node states; end one that does not answer."""
        if not master.ours(self._files):  # what is left of sockets is nobody's
            return {}
        try:
            found = await master.family(self._files)
            worker = await who(self._files.worker_socket)
            told = await ask(self._files.worker_socket, "show servers state")
        except NobodyError:
            self._let_drain()
            return {}
        except EngineError as error:
            await self._end_hung(error)
            return {}
        self.pid, self.worker, self._log_began = found.master, worker, self._files.log_end()
        self.is_adopted, self.since_s = True, self._clock.monotonic()
        return {server.key: server.state for server in servers(told)}

    def _let_drain(self) -> None:
        """Have those that cannot be asked give their ports free: one that drains does so, one without sockets must."""
        for pid in master.masters(self._files):
            master.send(self._files, pid, signal.SIGUSR1)

    async def _end_hung(self, error: EngineError) -> None:
        for pid in master.masters(self._files):
            self._emit(HaproxyLost(pid=pid, reason=str(error)))
            await master.end(self._files, pid)

    # Ends

    def retire(self) -> None:
        """Have it accept nothing more and end with what is open, by itself."""
        if self.pid:
            master.send(self._files, self.pid, signal.SIGUSR1)
        self._forget()

    async def end(self) -> None:
        """End it at once."""
        if self.pid:
            await master.end(self._files, self.pid)
        self._forget()

    async def end_lost(self, pid: int) -> None:
        """End what is left of one that was lost."""
        if pid:
            await master.end(self._files, pid)
        if self.pid == pid:
            self._forget()

    async def stop(self, drain_s: float, hurried: asyncio.Event) -> None:
        """End all that are ours: softly for so long, or until somebody is in a hurry, then at once."""
        for number in (signal.SIGUSR1, signal.SIGTERM):
            for pid in master.masters(self._files):
                master.send(self._files, pid, number)
            soft = number == signal.SIGUSR1
            left = master.ours(self._files)
            if await master.gone(self._files, left, drain_s if soft else _KILLED_S, hurried if soft else None):
                break
        left = master.ours(self._files)
        for pid in left:
            master.send(self._files, pid, signal.SIGKILL)
        await master.gone(self._files, left, _KILLED_S)
        self._forget()
        self._files.remove_all()

    def _forget(self) -> None:
        self.pid, self.worker, self.is_adopted = 0, None, False

    # Inside

    async def _remember(self, pools: Sequence[Pool]) -> Remembered:
        try:
            return await remember(self._files.worker_socket, pools)
        except EngineError as error:
            self._hindered(error)
            return {}

    def _hindered(self, error: EngineError) -> None:
        self._emit(TaskHindered(task="keep clients at their nodes over a reload of HAProxy", reason=str(error)))
