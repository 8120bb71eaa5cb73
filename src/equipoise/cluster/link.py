"""This machine's way to its peer: what it may ask there, each as one request.

Leaves out when to ask, and what to do with the answers.
"""

from typing import TypeVar

import msgspec

from equipoise.cluster.calls import (
    FETCH,
    HAND_OVER,
    HELLO,
    LEAVE,
    TAKE,
    TAKE_OVERRIDES,
    TAKE_SOFT,
    WOULD_TAKE,
    Call,
    Fetch,
    Leave,
    other_version,
)
from equipoise.cluster.conversation import Conversation, OtherVersionError, RefusedError
from equipoise.cluster.messages import (
    VERSION,
    Answer,
    Document,
    HandOver,
    Hello,
    Overrides,
    SoftAnswer,
    SoftPush,
)
from equipoise.cluster.trust import pair_client
from equipoise.plan.model import Endpoint, Secured

_Asked = TypeVar("_Asked", bound=msgspec.Struct)


class Link:
    """To the peer.  Every request raises PeerError where there is no answer that makes sense.

    OtherVersionError says that the peer runs another version, RefusedError that it said no; where an `Answer` is the
    answer, a refusal stands in it.  The certificates are read once: after joining again, make another link.
    """

    def __init__(self, peer: str, port: int, source_address: str | None, secured: Secured) -> None:
        """Read the certificates.  Raises: EquipoiseError."""
        self._talk = Conversation(Endpoint(peer, port), source_address, pair_client(secured))

    async def close(self) -> None:
        """End its connections."""
        await self._talk.close()

    async def hello(self, said: Hello) -> Hello:
        """Say how this machine is, and return how the peer is."""
        answer = await self._talk.ask(HELLO, said)
        if answer.version != VERSION:
            raise OtherVersionError(other_version(answer.version))
        return answer

    async def would_take(self, document: Document) -> Answer:
        """Ask whether the peer could put a document into force."""
        return await self._done(WOULD_TAKE, document)

    async def take(self, document: Document) -> Answer:
        """Have the peer put a document into force."""
        return await self._done(TAKE, document)

    async def document(self) -> Document:
        """Return the peer's document."""
        return await self._talk.ask(FETCH, Fetch())

    async def take_overrides(self, overrides: Overrides) -> Overrides:
        """Give the peer overrides, and return all of its."""
        return await self._talk.ask(TAKE_OVERRIDES, overrides)

    async def take_soft(self, push: SoftPush) -> SoftAnswer:
        """Give the peer what was learned of clients and flows."""
        return await self._talk.ask(TAKE_SOFT, push)

    async def hand_over(self, asked: HandOver) -> Answer:
        """Have the peer give addresses to this machine."""
        return await self._done(HAND_OVER, asked)

    async def leave(self) -> Answer:
        """Tell the peer that this machine is no longer one of the pair."""
        return await self._done(LEAVE, Leave())

    async def _done(self, call: Call[_Asked, Answer], message: _Asked) -> Answer:
        try:
            return await self._talk.ask(call, message)
        except RefusedError as refusal:
            return Answer(refused=str(refusal))
