"""One gateway process as the supervisor sees it: started, or found serving; greeted, told, asked, ended."""

import asyncio
import secrets
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from equipoise.base.clock import Clock
from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories, socket_path
from equipoise.base.processes import is_alive, kill, start_detached
from equipoise.engines.base import Messages, NodeCount, Observation
from equipoise.engines.gateway.channel import Channel, connected
from equipoise.engines.gateway.messages import (
    VERSION,
    Body,
    Done,
    Hello,
    Message,
    Observe,
    Welcome,
)
from equipoise.engines.gateway.messages import Observation as Counters
from equipoise.plan.model import Endpoint
from equipoise.plan.states import NodeState, node_key

_START_S = 20.0  # a busy machine imports slowly
_CONNECT_S = 5.0
_OBSERVE_S = 2.0
_KILL_AFTER_S = 1.0
_POLL_S = 0.02

OnMessage = Callable[[Channel, Message, list[socket.socket]], None]
OnClosed = Callable[[Channel, str], None]


class HungGatewayError(EngineError):
    """A gateway that took a connection and does not answer on it."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(f"the gateway behind {path} does not answer")
        self.pid = pid
        self.number = int(path.name.removeprefix("gateway-").partition(".")[0])


class Worker:
    """A gateway process that we talk to."""

    def __init__(self, path: Path, channel: Channel, welcome: Welcome, since_s: float) -> None:
        self.path = path
        self.channel = channel
        self.pid = welcome.pid
        self.number = welcome.worker
        self.software = welcome.software
        self.retiring = welcome.retiring
        self.successors: dict[str, str] = {}
        self.silent = 0  # looks in a row at which it did not answer
        self.adopted = False  # found serving, not started by us
        self.shares = welcome.shares
        self.is_ready = bool(welcome.services)  # else from when on it was told what to serve
        self.states: dict[str, NodeState] = welcome.states
        self.since_s = since_s
        self.ended = asyncio.Event()
        self.holds: set[Endpoint] = set(welcome.sockets)
        self.tasks = welcome.services

    async def tell(self, body: Body, sockets: Sequence[socket.socket] = ()) -> None:
        """Send an order and wait until it is done.  Raises: EngineError."""
        answer, _ = await self.channel.ask(body, sockets)
        if isinstance(answer, Done) and answer.problem:
            raise EngineError(f"gateway {self.pid}: {answer.problem}")

    async def counters(self) -> Observation:
        """Return its counters; nothing where it does not answer soon."""
        try:
            answer, _ = await self.channel.ask(Observe(), timeout_s=_OBSERVE_S)
        except EngineError:
            return Observation()
        if not isinstance(answer, Counters):
            return Observation()
        nodes = {
            node_key(name, node): NodeCount(
                count.connections, count.associations, count.bytes_in, count.bytes_out, count.rested
            )
            for name, service in answer.services.items()
            for node, count in service.nodes.items()
        }
        problems = {name: service.problem for name, service in answer.services.items() if service.problem}
        return Observation(
            nodes,
            {name: service.clients for name, service in answer.services.items()},
            problems,
            messages={
                name: Messages(**msgspec.structs.asdict(service.messages))
                for name, service in answer.services.items()
                if service.messages is not None
            },
        )

    async def answers(self) -> bool:
        """Say whether it still does."""
        try:
            await self.channel.ask(Observe(), timeout_s=_OBSERVE_S)
        except EngineError:
            return False
        return True

    async def end(self) -> None:
        """End it, whatever it does: one that neither answers nor ends must not go on accepting."""
        self.channel.close("it was ended")
        await end_process(self.pid)


async def start(number: int, directories: Directories, clock: Clock, heard: OnMessage, lost: OnClosed) -> Worker:
    """Start a gateway process and wait until it answers.  Raises: EngineError, with nothing left running."""
    path = directories.runtime / f"gateway-{number}.{secrets.token_hex(3)}.sock"
    command = [sys.executable, "-m", "equipoise.engines.gateway.process", "--socket", socket_path(path)]
    log = directories.state / "gateway.log"
    try:
        child = start_detached([*command, "--worker", str(number)], log)
    except OSError as error:
        raise EngineError(f"a gateway process could not be started: {error.strerror}") from None
    try:
        deadline_s = clock.monotonic() + _START_S
        while not path.exists():
            if child.poll() is not None:
                raise EngineError(f"a gateway process ended with status {child.returncode} at its start; see {log}")
            if clock.monotonic() > deadline_s:
                raise EngineError(f"a gateway process did not get ready within {_START_S:g} s; see {log}")
            await asyncio.sleep(_POLL_S)
        found = await greet(path, clock, heard, lost)
    except BaseException:
        child.kill()
        child.wait()
        path.unlink(missing_ok=True)
        raise
    if found is None:
        raise EngineError(f"a gateway process got ready and then did not answer; see {log}")
    return found[0]


async def greet(
    path: Path, clock: Clock, heard: OnMessage, lost: OnClosed
) -> tuple[Worker, dict[Endpoint, socket.socket]] | None:
    """Return the gateway behind a control socket, and the listening sockets that it holds.

    None where nobody listens there any more; the socket file is then removed.  Raises: EngineError where somebody does
    who cannot be taken over.
    """
    try:
        sock = await connected(str(path), _CONNECT_S)
    except (ConnectionRefusedError, FileNotFoundError):
        path.unlink(missing_ok=True)
        return None
    except OSError as error:
        raise EngineError(f"the gateway behind {path} cannot be reached: {error.strerror or error}") from None
    pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))  # unix(7)
    channel = Channel(sock, heard, lost)
    sockets: list[socket.socket] = []
    try:
        welcome, sockets = await _hello(channel, path, pid)
        if not isinstance(welcome, Welcome) or welcome.version != VERSION:
            found = getattr(welcome, "version", "none")
            raise EngineError(
                f"the gateway behind {path} speaks control version {found}, this supervisor {VERSION}: it serves on, "
                "but cannot be taken over; start the version of Equipoise that started it, or stop it"
            )
    except EngineError:
        for each in sockets:
            each.close()
        channel.close()
        raise
    return Worker(path, channel, welcome, clock.monotonic()), dict(zip(welcome.sockets, sockets, strict=True))


async def _hello(channel: Channel, path: Path, pid: int) -> tuple[Body, list[socket.socket]]:
    try:
        return await channel.ask(Hello(version=VERSION), timeout_s=_CONNECT_S)
    except EngineError:
        raise HungGatewayError(path, pid) from None


async def end_process(pid: int) -> None:
    """End a process: SIGTERM, and SIGKILL where that is not heard."""
    kill(pid)
    for _ in range(int(_KILL_AFTER_S / _POLL_S)):
        if not is_alive(pid):
            return
        await asyncio.sleep(_POLL_S)
    kill(pid, signal.SIGKILL)
