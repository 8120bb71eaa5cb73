"""A pair's half that keeps what it was told, and one that invites; both as their servers see them."""

import asyncio
from dataclasses import dataclass, field

from equipoise.base.errors import EquipoiseError
from equipoise.cluster.invitation import Invitation
from equipoise.cluster.messages import (
    VERSION,
    Answer,
    Document,
    GroupSaid,
    HandOver,
    Hello,
    Join,
    Joined,
    Overrides,
    Revision,
    SoftAnswer,
    SoftPush,
    Stamp,
    StampedOverride,
)
from equipoise.plan.soft import SoftEntry
from equipoise.plan.states import Override

REVISION = Revision(number=7, digest="d" * 64)
DOCUMENT = Document(revision=REVISION, ancestors=("c" * 64,), text="site: général\n")
OVERRIDES = Overrides(
    overrides={"ct/a": StampedOverride(override=Override(drain=True, weight=5), stamp=Stamp(count=3, origin="x"))}
)
HAND_OVER = HandOver(groups=("primary",))


def hello(role: str = "primary", version: int = VERSION) -> Hello:
    group = GroupSaid(name="primary", state="master", for_s=12.5, holds=("10.0.0.100",))
    return Hello(
        version=version,
        software="0.5.0",
        session="s",
        role=role,
        revision=REVISION,
        ancestors=tuple("abcdef"[each % 6] * 64 for each in range(32)),
        overrides="o" * 64,
        groups=(group,),
        clock_s=1.9e9,
    )


def push(entries: int) -> SoftPush:
    learned = tuple(
        SoftEntry(f"10.{each >> 16}.{each >> 8 & 255}.{each & 255}", f"pacs-{each % 4}", 1800.0 - each / 64)
        for each in range(entries)
    )
    return SoftPush(session="s", number=1, tables={"gateway/persistence/ct": learned}, whole=True)


@dataclass
class Half:
    """Answers, and keeps what it was told; `wrong` is what it raises instead, `waits` what documents wait for.

    `second` is set once it was told two things.
    """

    heard: list[object] = field(default_factory=list)
    wrong: Exception | None = None
    waits: asyncio.Event | None = None
    second: asyncio.Event = field(default_factory=asyncio.Event)

    async def hear_hello(self, said: Hello) -> Hello:
        self._hear(said)
        return hello("secondary")

    async def would_take(self, document: Document) -> Answer:
        self._hear(document)
        return Answer()

    async def take(self, document: Document) -> Answer:
        self._hear(document)
        if self.waits is not None:
            await self.waits.wait()
        return Answer(refused="the site differs")

    async def document(self) -> Document:
        self._hear("document")
        return DOCUMENT

    async def take_overrides(self, overrides: Overrides) -> Overrides:
        self._hear(overrides)
        return overrides

    async def take_soft(self, push: SoftPush) -> SoftAnswer:
        self._hear(push)
        return SoftAnswer(resync=True)

    async def hand_over(self, asked: HandOver) -> Answer:
        self._hear(asked)
        return Answer()

    async def peer_leaves(self) -> Answer:
        self._hear("leaves")
        return Answer()

    def _hear(self, message: object) -> None:
        self.heard.append(message)
        if len(self.heard) == 2:
            self.second.set()
        if self.wrong is not None:
            raise self.wrong


@dataclass
class Host:
    """Takes in who knows the secret."""

    invitation: Invitation
    asked: list[Join] = field(default_factory=list)

    async def join(self, asked: Join) -> Joined:
        self.asked.append(asked)
        self.invitation.use(asked.secret)
        if asked.role == "primary":
            raise EquipoiseError("the first machine is the primary")
        return Joined(address="10.0.0.2", role=asked.role)
