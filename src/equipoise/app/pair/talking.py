"""The conversation with the peer: greetings twice a second, and what follows from the answers.

Greetings carry how things stand; documents, overrides and soft state are sent where they say that the peer lacks them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from equipoise.app.pair.balancer import Balancer, peer_of
from equipoise.app.pair.connection import Loop
from equipoise.app.pair.documents import Documents
from equipoise.app.pair.overriding import Overriding
from equipoise.app.pair.peer import Peer
from equipoise.app.pair.sharing import Sharing
from equipoise.base.errors import EquipoiseError, PeerError
from equipoise.cluster.conversation import RefusedError
from equipoise.cluster.link import Link
from equipoise.cluster.messages import Hello
from equipoise.state.cluster_events import PeerConnected, PeerLost
from equipoise.state.hindrances import Hindrances

_GREET_EVERY_S = 0.5
_PUSH_EVERY_S = 0.1
_MOST_UNANSWERED = 20  # 10 s: the second machine of a new pair, or one that is just started, comes within them
_AFTER_REFUSAL_S = 10.0  # before a document that the peer could not be given, or overrides, are tried again


class Talking:
    """The conversation, for as long as there is a link.

    Args:
        balancer: Hears of what happened.
        hindrances: Hear what keeps the peer from being told.
        peer: Takes note of the answers.
        hello: Says how we are.
        documents: The document on both.
        overriding: The overrides on both.
        sharing: The soft state on both.
    """

    def __init__(
        self,
        balancer: Balancer,
        hindrances: Hindrances,
        peer: Peer,
        hello: Callable[[], Hello],
        *,
        documents: Documents,
        overriding: Overriding,
        sharing: Sharing,
    ) -> None:
        self._balancer = balancer
        self._hindrances = hindrances
        self._peer = peer
        self._hello = hello
        self._documents = documents
        self._overriding = overriding
        self._sharing = sharing
        self._at_once = asyncio.Event()
        self._connected: bool | None = None  # as it was told last
        self._unanswered = 0  # greetings, while nothing was told

    def soon(self) -> None:
        """Greet at once: something has changed that the peer should know."""
        self._at_once.set()

    async def greet(self, link: Link) -> None:
        """Exchange how things stand; where that fails, the peer is not reached."""
        try:
            said = await link.hello(self._hello())
        except PeerError as error:
            self._peer.problem = str(error)
        else:
            self._peer.problem = None
            self._peer.hear(said)

    def forget(self) -> None:
        """Have it told anew whether there is a peer."""
        self._connected, self._unanswered = None, 0

    def loops(self, link: Link) -> tuple[Loop, ...]:
        """Return what is done again and again while there is this way to the peer."""
        return (
            Loop("pair.greetings", 0, partial(self._greeting, link)),
            Loop("pair.exchange", _GREET_EVERY_S, partial(self._exchange, link)),
            Loop("pair.pushes", _PUSH_EVERY_S, partial(self._push, link)),
        )

    # Inside

    async def _greeting(self, link: Link) -> None:
        """Greet, say whether the peer is lost or found, and wait until it is time for the next greeting."""
        await self.greet(link)
        self._tell()
        with suppress(TimeoutError):
            async with asyncio.timeout(_GREET_EVERY_S):
                await self._at_once.wait()
        self._at_once.clear()

    async def _exchange(self, link: Link) -> None:
        await self._peacefully("give the peer what it lacks", self._give(link))

    async def _push(self, link: Link) -> None:
        said = self._peer.said
        if said is not None and self._peer.is_connected:
            await self._peacefully("tell the peer of clients", self._sharing.push(link, said.session))

    async def _give(self, link: Link) -> None:
        said = self._peer.said
        if said is None or not self._peer.is_connected:
            return
        await self._documents.follow(link)
        if said.overrides != self._overriding.digest:
            await self._overriding.exchange(link)

    async def _peacefully(self, task: str, work: Awaitable[None]) -> None:
        """Do it; what keeps it from being done is said once."""
        try:
            await work
        except EquipoiseError as error:
            if isinstance(error, PeerError) and not isinstance(error, RefusedError):
                return  # it is not reached, which the greetings say
            self._hindrances.say(task, str(error))
            await asyncio.sleep(_AFTER_REFUSAL_S)
        else:
            self._hindrances.say(task, None)

    def _tell(self) -> None:
        now, address = self._peer.is_connected, peer_of(self._balancer)
        if now == self._connected:
            return
        if not now and self._connected is None and self._unanswered < _MOST_UNANSWERED:
            self._unanswered += 1
            return
        self._connected = now
        if now and self._peer.said is not None:
            self._balancer.emit(PeerConnected(peer=address, version=self._peer.said.software))
        elif not now:
            self._balancer.emit(PeerLost(peer=address, reason=self._peer.problem or "it is silent"))
