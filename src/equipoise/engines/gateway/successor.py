"""What a gateway that drains tells the one that came after it: open counts and the persistence table, until it ends."""

import asyncio
import os
import socket

from equipoise.base.clock import Clock
from equipoise.base.tasks import Tasks
from equipoise.engines.gateway.channel import Channel, connected
from equipoise.engines.gateway.messages import Message, Soft
from equipoise.engines.gateway.service import Service

_CONNECT_S = 2.0
_COALESCE_S = 0.05  # changes within this time go out together


class Successors:
    """The successors of this process's services."""

    def __init__(self, tasks: Tasks, clock: Clock) -> None:
        self._tasks = tasks
        self._clock = clock
        self._name = str(os.getpid())
        self._channels: dict[str, Channel] = {}  # by socket path
        self._paths: dict[str, str] = {}  # by service
        self._pending: set[str] = set()

    async def set(self, service: Service, path: str) -> None:
        """Name a service's successor and tell it everything.  Raises: OSError where it cannot be reached."""
        channel = self._channels.get(path)
        if channel is None or channel.closed:
            channel = self._channels[path] = Channel(await connected(path, _CONNECT_S), _ignore, _ignore_end)
        self._paths[service.name] = path
        self._send(service, tuple(service.pool.table.entries(self._clock.monotonic())))

    def forget(self, service: str) -> None:
        """Take a service back: its successor counts nothing of ours for it any more."""
        channel = self._channels.get(self._paths.pop(service, ""))
        if channel is not None:
            channel.send(Soft(gateway=self._name, service=service, open={}))

    def changed(self, service: Service) -> None:
        """Tell new counts, soon."""
        if service.name in self._paths and service.name not in self._pending:
            self._pending.add(service.name)
            asyncio.get_running_loop().call_later(_COALESCE_S, self._send, service)

    def close(self) -> None:
        """End: the successor counts nothing of ours any more."""
        for channel in self._channels.values():
            channel.close()

    def _send(self, service: Service, persistence: tuple[tuple[str, str, float], ...] = ()) -> None:
        self._pending.discard(service.name)
        channel = self._channels.get(self._paths.get(service.name, ""))
        if channel is not None:
            counts = {name: counters.connections for name, counters in service.observe().nodes.items()}
            channel.send(Soft(gateway=self._name, service=service.name, open=counts, persistence=persistence))


def _ignore(channel: Channel, message: Message, sockets: list[socket.socket]) -> None:
    """A successor has nothing to say."""


def _ignore_end(channel: Channel, reason: str) -> None:
    """A successor that ended is followed by one that the supervisor will name."""
