"""Where the clients of one service arrive: its listeners, who may come in, and those who have no association yet."""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from equipoise.base.certificates import names_in
from equipoise.base.errors import PeerError
from equipoise.base.tasks import Tasks
from equipoise.base.tls_problems import peer_names
from equipoise.engines.gateway.arrival import Arrival
from equipoise.engines.gateway.conditions import fits, is_within, networks_of
from equipoise.engines.gateway.entrance import Entrance, Guest, Handshake, NotLetIn
from equipoise.engines.gateway.messages import ServiceTask
from equipoise.engines.gateway.room import Room
from equipoise.engines.gateway.sockets import BACKLOG
from equipoise.plan.model import Endpoint
from equipoise.proto.proxy_protocol import Address

_NO_ROOM = "the gateway's limit of open files is reached; raise it (LimitNOFILE), or find out who holds so many"


class Host(Protocol):
    """What a reception needs of its service."""

    buffer: memoryview
    room: Room
    tasks: Tasks
    farewell: bytes

    @property
    def patience_s(self) -> float:
        """How long a client may take before its association."""

    def begin(self, arrival: Arrival) -> Guest:
        """Return what a client becomes that is let in."""

    def not_taken(self, ended: str, reason: str, client: str = "unknown") -> None:
        """Tell of a client that is not let in."""

    def came_to_nothing(self) -> None:
        """Hear that a connection that had a place is gone without an association."""


class Reception:
    """One service's; what entrances ask of it is `entrance.Host`."""

    def __init__(self, host: Host, task: ServiceTask, context: ssl.SSLContext | None) -> None:
        self._host = host
        self._listeners: dict[Endpoint, asyncio.Server] = {}
        self._entering: dict[Entrance, Callable[[], None] | None] = {}  # to what takes it out of its source's count
        self._sources: Counter[str] = Counter()  # open connections of each address, kept only where they are limited
        self.buffer, self.room, self.not_taken, self.farewell = host.buffer, host.room, host.not_taken, host.farewell
        self.configure(task, context)

    def __len__(self) -> int:
        return len(self._entering)

    def configure(self, task: ServiceTask, context: ssl.SSLContext | None) -> None:
        """Take a new task; `context` is what TLS is agreed by, None where no file can be used."""
        self._task = task
        self._context = context
        self._brokers = networks_of(task.allow_from if task.proxy_protocol.accept else ())

    async def listen(self, sockets: Mapping[Endpoint, socket.socket]) -> None:
        """Accept on exactly these sockets, which stay the caller's."""
        for endpoint in set(self._listeners) - set(sockets):
            self._listeners.pop(endpoint).close()
        for endpoint in set(sockets) - set(self._listeners):
            self._listeners[endpoint] = await asyncio.get_running_loop().create_server(
                partial(Entrance, self, endpoint.port), sock=sockets[endpoint].dup(), backlog=BACKLOG
            )

    def leave(self) -> None:
        """Accept no more; who is entering comes in."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def abort_all(self, reason: str) -> None:
        """End what is entering."""
        for entrance in list(self._entering):
            entrance.abort(reason)

    @property
    def patience_s(self) -> float:
        """How long a client may take before its association."""
        return self._host.patience_s

    @property
    def expects_header(self) -> bool:
        """Whether clients come with a PROXY header."""
        return self._task.proxy_protocol.accept

    def context(self, port: int) -> ssl.SSLContext | None:
        """Return what TLS on this port is agreed by, None where it is plain.  Raises: PeerError where it cannot be."""
        tls = self._task.tls
        if tls is None or (tls.ports and port not in tls.ports):
            return None
        if self._context is None:
            raise PeerError("the certificate of this service cannot be used; `equipoise check` says why")
        return self._context

    def enter(self, entrance: Entrance, peer: Address) -> NotLetIn | None:
        """Give a connection a place in the process, unless it may not have one."""
        if self.room.held >= self.room.limit:
            return NotLetIn("no_room", _NO_ROOM)
        if self.expects_header and not is_within(peer[0], self._brokers):
            return NotLetIn("refused", f"source {peer[0]} is not in allow_from")
        self.room.held += 1
        self._entering[entrance] = None
        return None

    def crowded(self, entrance: Entrance, source_ip: str) -> str | None:
        """Count a connection for its source; return why it may not have one more."""
        limit = self._task.max_per_source
        if limit is None:
            return None
        if self._sources[source_ip] >= limit:
            return f"{source_ip} has {limit} connections open, which is max_per_source"
        self._sources[source_ip] += 1
        self._entering[entrance] = partial(self._uncount, source_ip)
        return None

    def unwelcome(self, session: ssl.SSLObject) -> str | None:
        """Return why a client may not come in with the certificate that it showed, or did not show."""
        patterns = self._task.tls.client_names if self._task.tls is not None else ()
        if not patterns or _shows_one_of(session, patterns):
            return None
        return (
            f"the names of the client's certificate ({peer_names(session) or 'none was shown'}) fit nothing in "
            "tls.client_names; add one of them there, or a pattern for it"
        )

    def left(self, entrance: Entrance) -> None:
        """Take back the place of a connection that came to nothing."""
        if (uncount := self._entering.pop(entrance)) is not None:
            uncount()
        self.room.held -= 1
        self._host.came_to_nothing()

    def agree(self, entrance: Entrance, handshake: Handshake) -> asyncio.Task[None]:
        """Run the entrance's `secure`."""
        return self._host.tasks.spawn("gateway.tls", entrance.secure(handshake))

    def accepted(self, entrance: Entrance, arrival: Arrival) -> Guest:
        """Return what a client becomes; it takes over the place of its entrance."""
        guest = self._host.begin(arrival)
        guest.uncount = self._entering.pop(entrance)
        return guest

    def _uncount(self, source_ip: str) -> None:
        self._sources[source_ip] -= 1
        if self._sources[source_ip] <= 0:
            del self._sources[source_ip]


def _shows_one_of(session: ssl.SSLObject, patterns: tuple[str, ...]) -> bool:
    """Return whether the certificate that the peer showed has one of these names; upper and lower case are the same."""
    try:
        names = names_in(session.getpeercert(binary_form=True) or b"")
    except ValueError:  # none, or one that cannot be read, or the session is over as soon as it is agreed on
        return False
    wanted = tuple(pattern.lower() for pattern in patterns)
    return any(fits(name.lower(), wanted) for name in names)
