"""What a peer may ask of this machine, and whom it asks."""

from typing import Protocol

from equipoise.cluster.messages import (
    Answer,
    Document,
    HandOver,
    Hello,
    Join,
    Joined,
    Overrides,
    SoftAnswer,
    SoftPush,
)


class Pair(Protocol):
    """This machine's half of the pair, as its peer sees it."""

    async def hear_hello(self, said: Hello) -> Hello:
        """Take note of how the peer is, and say how we are."""

    async def would_take(self, document: Document) -> Answer:
        """Say whether the document could be put into force here, and change nothing."""

    async def take(self, document: Document) -> Answer:
        """Put the peer's document into force here."""

    async def document(self) -> Document:
        """Return ours."""

    async def take_overrides(self, overrides: Overrides) -> Overrides:
        """Take those that are newer than ours, and return all of ours."""

    async def take_soft(self, push: SoftPush) -> SoftAnswer:
        """Take what the peer learned of clients and flows."""

    async def hand_over(self, asked: HandOver) -> Answer:
        """Give addresses to the peer."""

    async def peer_leaves(self) -> Answer:
        """Take note that the peer is no longer one."""


class Inviting(Protocol):
    """Who takes a second machine in."""

    async def join(self, asked: Join) -> Joined:
        """Take the second machine in, if it knows the secret."""
