"""Soft state on both machines: what engines learn of clients and flows goes to the peer, and what it knows to them."""

import asyncio

from equipoise.app.engines import Engines
from equipoise.base.clock import Clock
from equipoise.base.errors import EngineError
from equipoise.cluster.link import Link
from equipoise.cluster.messages import SoftAnswer, SoftPush
from equipoise.cluster.outbox import MOST_IN_A_PUSH, MOST_PENDING, Inbox, Outbox
from equipoise.plan.soft import SoftEntry, SoftState
from equipoise.state.hindrances import Hindrances

_MOST_PUSHES = MOST_PENDING // MOST_IN_A_PUSH + 1
_ASK, _TAKE = "tell the peer all that {name} knows of clients", "take what the peer knows of clients"


class Sharing:
    """What awaits the peer, and what comes from it."""

    def __init__(self, engines: Engines, hindrances: Hindrances, session: str, clock: Clock) -> None:
        self._engines = engines
        self._hindrances = hindrances
        self._clock = clock
        self._outbox = Outbox(session, clock.monotonic)
        self._inbox = Inbox()
        self._told: str | None = None  # the session of the peer that was told
        self._taking = asyncio.Lock()
        self._pushing = asyncio.Lock()
        self._since_s = clock.monotonic()

    @property
    def pending(self) -> int:
        """How many entries the peer was not told yet."""
        return len(self._outbox)

    @property
    def behind_s(self) -> float:
        """For how long the peer has not been told everything."""
        return self._clock.monotonic() - self._since_s if self._is_behind else 0.0

    def learned(self, state: SoftState) -> None:
        """Have the peer told."""
        self._falls_behind()
        self._outbox.add(state)

    def start_over(self) -> None:
        """Have the peer told all, whoever that is now."""
        self._told = None
        self._since_s = self._clock.monotonic()
        self._outbox.restart()

    async def push(self, link: Link, session: str) -> None:
        """Tell the peer, whose session this is, all that awaits.  Raises: PeerError; then it is told all once more."""
        async with self._pushing:
            if session != self._told:
                self._restart()
            if self._outbox.whole:
                self._outbox.begin(await self._everything())
                self._told = session
            for _ in range(_MOST_PUSHES):  # more may be learned than can be told: then the next time goes on
                if (push := self._outbox.next_push()) is None:
                    return
                try:
                    answer = await link.take_soft(push)
                except BaseException:
                    self._restart()
                    raise
                if answer.resync:
                    self._restart()
                    return

    async def take(self, push: SoftPush) -> SoftAnswer:
        """Have the engines take what the peer pushed."""
        async with self._taking:  # in the order in which it was sent
            if not self._inbox.follows(push):
                return SoftAnswer(resync=True)
            try:
                await self._engines.merge(push.tables)
            except EngineError as error:  # it costs persistence, and no more
                self._hindrances.say(_TAKE, str(error))
            else:
                self._hindrances.say(_TAKE, None)
            return SoftAnswer()

    @property
    def _is_behind(self) -> bool:
        return self.pending > 0 or self._outbox.whole

    def _falls_behind(self) -> None:
        if not self._is_behind:
            self._since_s = self._clock.monotonic()

    def _restart(self) -> None:
        self._falls_behind()
        self._outbox.restart()

    async def _everything(self) -> SoftState:
        """Return what the engines know; one that cannot say it costs what it knows, and no more."""
        found: dict[str, tuple[SoftEntry, ...]] = {}
        for engine in self._engines:
            try:
                found |= await engine.soft_state()
            except EngineError as error:
                self._hindrances.say(_ASK.format(name=engine.name), str(error))
            else:
                self._hindrances.say(_ASK.format(name=engine.name), None)
        return found
