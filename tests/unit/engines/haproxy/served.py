"""A HAProxy engine on this machine with web nodes that say who they are, and clients of it."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop

from equipoise.app.wiring import catalogue
from equipoise.base.clock import SystemClock
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.config.loading import load
from equipoise.engines.haproxy import master
from equipoise.engines.haproxy.artifact import Artifact
from equipoise.engines.haproxy.files import Files
from equipoise.engines.haproxy.render import render
from equipoise.engines.haproxy.runner import HaproxyEngine
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.plan.states import NodeState, StateName
from equipoise.state.events import Event

PATIENCE_S = 20.0


class Web:
    """A node that answers every request with its name, or says nothing until it is let."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.kept_waiting = 0
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(self._sock.getsockname()[1])

    async def start(self) -> "Web":
        self._server = await asyncio.start_server(self._serve, sock=self._sock)
        return self

    def close(self) -> None:
        """Refuse connections from now on."""
        self._server.close()

    async def open_again(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.kept_waiting += not self.may_answer.is_set()
                await self.may_answer.wait()
                body = self.name.encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def get(port: int, source: str = "127.0.0.1") -> str:
    """Return the body of an answer on a connection of its own; the status where it is not 200."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ")[1].decode()
    return body.decode() if status == "200" else status


async def is_refused(port: int) -> bool:
    """Say whether nobody listens there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    except ConnectionError:  # it waited in the queue of a socket that was closed
        return False
    writer.close()
    return False


async def eventually(look: Callable[[], Awaitable[object]], what: str = "it") -> None:
    """Wait until `look` finds something."""
    deadline_s = asyncio.get_running_loop().time() + PATIENCE_S
    while not await look():
        assert asyncio.get_running_loop().time() < deadline_s, f"{what} did not come about"
        await asyncio.sleep(0.02)


async def asking(port: int, web: Web) -> asyncio.Future[str]:
    """Ask a node that says nothing until it is let; return when it has the request, with what will be the answer."""
    web.may_answer.clear()
    before, asked = web.kept_waiting, asyncio.ensure_future(get(port))

    async def has_come() -> bool:
        return web.kept_waiting > before

    await eventually(has_come, "the request at the node")
    return asked


class Site:
    """One engine and the nodes of its service `web`."""

    def __init__(self, directory: Path) -> None:
        self.directories = Directories(directory, directory)
        self.files = Files(self.directories)
        self.events: list[Event] = []
        self.failures: list[object] = []
        self.tasks = Tasks(lambda name, error: self.failures.append((name, error)))
        self._held, self.port = held_port()
        self.webs: dict[str, Web] = {}
        self.engine = self.another()

    def another(self) -> HaproxyEngine:
        """Return the engine of another supervisor."""
        return HaproxyEngine(self.directories, self.tasks, SystemClock(), self.events.append)

    async def nodes(self, *names: str) -> None:
        for name in names:
            self.webs[name] = await Web(name).start()

    def artifact(
        self, *names: str, top: dict[str, Any] | None = None, files: Mapping[str, str] | None = None, **service: Any
    ) -> Artifact:
        """Return what a site with these nodes means; `files` stand for what is in files of TLS."""
        web = {
            "protocol": "http",
            "listen": f"127.0.0.1:{self.port}",
            "balance": "round_robin",
            "persistence": {"by": "none"},
            "slow_start": "0s",
            "nodes": {name: {"address": f"127.0.0.1:{self.webs[name].port}"} for name in names},
            **service,
        }
        text = msgspec.json.encode({"site": "x", "services": {"web": web}, **(top or {})}).decode()
        return render(compile_plan(load(text, "site.yaml", catalogue()).site, HostFacts(files=files or {})))

    async def put(self, **states: StateName) -> None:
        await self.engine.set_nodes(node_states(**states))

    async def answers(self, count: int = 8) -> set[str]:
        return {await get(self.port) for _ in range(count)}

    async def family(self) -> master.Family:
        return await master.family(self.files)

    def close(self) -> None:
        self._held.close()

    def heard(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def node_states(**states: StateName) -> dict[str, NodeState]:
    return {f"web/{name}": NodeState(state, 100) for name, state in states.items()}


def held_port() -> tuple[socket.socket, int]:
    """Return a port, and what keeps everybody from being given it: HAProxy may bind it beside this."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held, int(held.getsockname()[1])


def play(directory: Path, scene: Callable[[Site], Awaitable[None]]) -> None:
    """Run a scene; whatever HAProxy runs at its end is ended, and no task may have failed."""

    async def run() -> None:
        site = Site(directory)
        try:
            async with asyncio.timeout(100):
                await scene(site)
        finally:
            for pid in master.ours(site.files):
                os.kill(pid, signal.SIGKILL)
            await site.tasks.cancel_all()
            site.close()
        assert site.failures == []

    uvloop.run(run())


def with_line(artifact: Artifact, text: str) -> Artifact:
    """Return the artifact with a line more, which nobody has checked."""
    line = replace(artifact.lines[-1], text=text)
    return replace(artifact, lines=(*artifact.lines, cast("Any", line)))


def names(events: Iterable[Event]) -> list[str]:
    return [event.kind for event in events]
