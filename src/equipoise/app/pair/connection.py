"""The connection with the peer: the way there, the server here, and what is done again and again while there is a pair.

It follows the plan from a task of its own, when no document is under way: what brings a new plan may come by this very
connection, and must not end itself with it.  Leaves out what is said.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from equipoise.base.errors import EquipoiseError
from equipoise.base.tasks import Tasks
from equipoise.cluster.link import Link
from equipoise.plan.model import Cluster, Endpoint
from equipoise.state.hindrances import Hindrances

_SERVE = "serve the peer"
_SERVE_EVERY_S = 2.0  # another program may have the port for a moment, or the state directory be out of reach


class Server(Protocol):
    """Something that is served until it is closed."""

    async def close(self) -> None:
        """Serve no more."""


class Loop(NamedTuple):
    """What is done again and again."""

    name: str
    every_s: float
    step: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Work:
    """What a connection is for.

    Attributes:
        serve: Serves this half to its peer.
        settled: Waits until no document is under way.
        begun: Called when it may be another peer from now on.
        paired: What is done while there is a pair, whether the two have joined or not.
        talking: What is done by the way to the peer.
        hindrances: Hear why the peer cannot be served.
    """

    serve: Callable[[Cluster], Awaitable[Server]]
    settled: Callable[[], Awaitable[None]]
    begun: Callable[[], None]
    paired: Iterable[Loop]
    talking: Callable[[Link], Iterable[Loop]]
    hindrances: Hindrances


class Connection:
    """One for the whole life of a supervisor, with whatever peer the plan names.

    Args:
        work: What it is for.
        tasks: Runs it.
    """

    def __init__(self, work: Work, tasks: Tasks) -> None:
        self._work = work
        self._tasks = tasks
        self._link: Link | None = None
        self._wanted: Cluster | None = None
        self._now: Cluster | None = None
        self._server: Server | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._following, self._serving = asyncio.Lock(), asyncio.Lock()
        self._is_lent = self._is_over = False

    @property
    def link(self) -> Link | None:
        """Return the way to the peer; None where there is none any more, or not yet."""
        return self._link if self._wanted is not None and self._wanted.secured is not None else None

    def follow(self, cluster: Cluster | None) -> None:
        """Have this pair; soon, where that is another conversation."""
        self._wanted = cluster
        if _conversation(cluster) != _conversation(self._now):
            self._tasks.spawn("pair.connection", self._follow())

    async def close(self) -> None:
        """Fall silent for good."""
        self._is_over = True
        async with self._following:
            await self._end()

    async def lend(self) -> None:
        """Serve the peer no more until `take_back`: something else is served where it was."""
        self._is_lent = True
        async with self._serving:
            await self._close_server()

    async def take_back(self) -> None:
        """Serve the peer again."""
        self._is_lent = False
        await self._serve()

    # Inside

    async def _follow(self) -> None:
        await self._work.settled()
        async with self._following:
            if self._is_over or _conversation(self._wanted) == _conversation(self._now):
                return
            await self._end()
            if self._wanted is not None:
                await self._begin(self._wanted)

    async def _begin(self, cluster: Cluster) -> None:
        self._now = cluster
        self._work.begun()
        self._spawn(self._work.paired)
        if cluster.secured is None:
            return
        try:
            self._link = Link(cluster.peer, cluster.port, cluster.address, cluster.secured)
        except EquipoiseError as error:
            self._work.hindrances.say(_SERVE, str(error))
            return
        self._spawn([Loop("pair.server", _SERVE_EVERY_S, self._serve), *self._work.talking(self._link)])

    async def _end(self) -> None:
        loops, self._loops, self._now = self._loops, [], None
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        link, self._link = self._link, None
        if link is not None:
            await link.close()
        async with self._serving:
            await self._close_server()

    def _spawn(self, loops: Iterable[Loop]) -> None:
        self._loops += [self._tasks.repeat(*loop) for loop in loops]

    async def _serve(self) -> None:
        async with self._serving:
            cluster = self._now
            if cluster is None or cluster.secured is None or self._server is not None or self._is_lent:
                return
            try:
                self._server = await self._work.serve(cluster)
                self._work.hindrances.say(_SERVE, None)
            except (EquipoiseError, OSError) as error:
                at = Endpoint(cluster.address, cluster.port)
                self._work.hindrances.say(_SERVE, f"the peer cannot reach us at {at}: {error}")

    async def _close_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.close()


def _conversation(cluster: Cluster | None) -> object:
    """Return what makes it another conversation where it changes."""
    if cluster is None:
        return None
    return cluster.peer, cluster.address, cluster.port, cluster.role, cluster.secured
