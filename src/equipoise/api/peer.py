"""The servers for another machine: for the peer, and while this machine invites, for the one that wants to join.

Each listens at one address of this machine, which need not be there yet, and on one port.  Leaves out what is served
(`peer_routes`) and who is let in (`peer_entrance`).
"""

import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

from starlette.types import ASGIApp

from equipoise.api.peer_entrance import Entrance
from equipoise.api.peer_routes import invitation_application, pair_application
from equipoise.api.quiet_server import OnBug, Serving, start, tell_the_loop
from equipoise.base.errors import EquipoiseError
from equipoise.base.tasks import Tasks
from equipoise.cluster.identity import fingerprint_in
from equipoise.cluster.ports import Inviting, Pair
from equipoise.cluster.trust import invitation_server, pair_server
from equipoise.engines.sockets import bound
from equipoise.plan.model import Endpoint, Secured

MAX_CONNECTIONS = 32  # of the peer, which opens eight at the most; what a dead supervisor left may be among them
_KEEP_S = 60  # a connection without a request; the other side gives it up after a third of that
INVITED_S = 20.0  # a connection of a machine that nobody knows, in all
# A machine without power closes nothing.  First question after, between questions, how many; tcp(7).
_DEAD_AFTER = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class PeerServer:
    """A server that runs until `close`; `port` is the one that it listens on."""

    def __init__(self, serving: Serving, entrance: Entrance, port: int) -> None:
        self._serving = serving
        self._entrance = entrance
        self.port = port

    async def close(self) -> None:
        """Answer what is asked, for a second at the most, and listen no more.

        From within a request this would wait for itself: have a task do it.
        """
        await self._entrance.close()
        await self._serving.close()


async def serve_pair(pair: Pair, address: str, port: int, secured: Secured, on_bug: OnBug | None = None) -> PeerServer:
    """Serve the peer, and nobody else.  Raises: EquipoiseError."""
    report = on_bug or tell_the_loop
    entrance = Entrance(pair_server(secured), fingerprint_in(Path(secured.peer)), None, Tasks(report))
    return await _serve("api.pair", pair_application(pair, report), Endpoint(address, port), entrance, report)


async def serve_invitation(
    inviting: Inviting, address: str, port: int, own: Path, on_bug: OnBug | None = None
) -> PeerServer:
    """Serve whoever wants to join; `own` is the file of `cluster.identity.own_file`.  Raises: EquipoiseError."""
    report = on_bug or tell_the_loop
    entrance = Entrance(invitation_server(own), None, INVITED_S, Tasks(report))
    app = invitation_application(inviting, report)
    return await _serve("api.invitation", app, Endpoint(address, port), entrance, report)


async def _serve(name: str, app: ASGIApp, endpoint: Endpoint, entrance: Entrance, report: OnBug) -> PeerServer:
    if ip_address(endpoint.host).is_unspecified:
        raise EquipoiseError(f"a pair does not listen on {endpoint}: name the address by which the peer knows this one")
    listening = bound(endpoint)
    try:
        # Connections take these over.  asyncio sets TCP_NODELAY only where a socket names its protocol, uvloop always.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _DEAD_AFTER:
            listening.setsockopt(socket.IPPROTO_TCP, option, value)
        port = listening.getsockname()[1]
        serving = await start(
            name,
            app,
            listening,
            report,
            max_connections=MAX_CONNECTIONS,
            http=cast(Any, entrance.protocol),  # uvicorn calls what it is given for each connection
            timeout_keep_alive=_KEEP_S,
        )
    except BaseException:
        listening.close()
        raise
    return PeerServer(serving, entrance, port)
