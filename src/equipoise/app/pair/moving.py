"""The addresses that move between the two machines: whether this one may have them, and moving them on request.

Who has them is keepalived's to say.  Leaves out what people are shown of it (`showing.py`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from equipoise.app.engines import Engines
from equipoise.app.nodes import NodeBook
from equipoise.app.pair.balancer import Balancer, peer_of
from equipoise.app.pair.connection import Loop
from equipoise.app.pair.hearing import Hearing
from equipoise.app.pair.peer import Peer
from equipoise.base.clock import Clock
from equipoise.base.errors import EngineError, EquipoiseError
from equipoise.engines.addresses import questions
from equipoise.engines.keepalived.groups import GroupNow
from equipoise.engines.keepalived.runner import KeepalivedEngine
from equipoise.plan.model import ManagedAddress, Plan
from equipoise.state.cluster_events import HandedOver, SplitBrain
from equipoise.state.hindrances import Hindrances

_TELL = "say whether this machine may have addresses"
_JUDGE_EVERY_S = 0.25
_ASK_SEGMENT_EVERY_S, _ASK_AGAIN_S = 5.0, 1.0
_TAKEN_WITHIN_S = 1.5  # several times what a peer needs that stands by
_LOOK_EVERY_S = 0.01
_BLIND_S = 3.0
_FRESH_S, _LASTS_S = 1.0, 1.5  # words of the peer come twice a second


class Moving:
    """What this machine does about the addresses.

    Args:
        balancer: Says who the peer is.
        hindrances: Hear what keeps keepalived from being told.
        engines: Say whether traffic can be carried.
        keepalived: Has the addresses, or has them not.
        peer: The other machine.
        nodes: Says which nodes answer here.
        clock: Time.
        greet: Exchanges how things stand with the peer, now.
        flush: Tells the peer what it does not know of clients and flows yet.
    """

    def __init__(
        self,
        balancer: Balancer,
        hindrances: Hindrances,
        engines: Engines,
        keepalived: KeepalivedEngine,
        peer: Peer,
        *,
        nodes: NodeBook,
        clock: Clock,
        greet: Callable[[], Awaitable[None]],
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._balancer = balancer
        self._hindrances = hindrances
        self._engines = engines
        self._keepalived = keepalived
        self._peer = peer
        self._nodes = nodes
        self._clock = clock
        self._greet = greet
        self._flush = flush
        self._handing = asyncio.Lock()
        self._both: dict[str, float] = {}  # address to since when both have it, by the monotonic clock
        self._others: dict[str, str] = {}  # address to the machine that answered for it too
        self._told: frozenset[str] = frozenset()
        self._masters: frozenset[str] = frozenset()
        self.last_move: GroupNow | None = None  # as the group was found just afterwards
        self._blind_since_s: float | None = None
        self._hearing = Hearing(clock)
        self._followed: Plan | None = None  # the plan whose nodes are asked whether anything is heard
        self.fault: str | None = None
        self.split: SplitBrain | None = None

    def note(self) -> None:
        """Take note of addresses that came here or left."""
        groups = self._keepalived.groups
        masters = frozenset(group.name for group in groups if group.state == "master")
        moved = [group for group in groups if group.name in masters ^ self._masters]
        self._masters = masters
        if moved:
            self.last_move = max(moved, key=lambda group: group.since)

    @property
    def loops(self) -> tuple[Loop, ...]:
        """Return what is done again and again while there is a pair."""
        return Loop("pair.judge", _JUDGE_EVERY_S, self.judge), Loop("pair.segment", _ASK_SEGMENT_EVERY_S, self._ask)

    async def judge(self) -> None:
        """Say whether this machine can carry traffic: where it cannot, the peer gets the addresses."""
        self.fault = await self._engines.fault() or await self._deaf() or self._blind()
        await self._tell_of_fault()
        self._compare()

    async def hand_over(self, groups: Sequence[str]) -> dict[str, object]:
        """Give these groups of addresses to the peer, or all that are here.  Raises: EquipoiseError."""
        async with self._handing:
            chosen = self._chosen(groups)
            await self._greet()  # what it said last may be half a second old
            if (why := self._peer.cannot_take(chosen)) is not None:
                raise EquipoiseError(f"the peer cannot take the addresses, so they stay here: {why}")
            await self._flush()
            began_s = self._clock.monotonic()
            try:
                await self._keepalived.give(chosen, "an operator asked for it")
                taken = await self._taken(chosen)
                within_ms = round((self._clock.monotonic() - began_s) * 1000, 1)
            finally:
                await self._keepalived.keep(chosen)
            if not taken:
                raise EquipoiseError(
                    f"the peer did not take the addresses within {_TAKEN_WITHIN_S} s; keepalived gives them to the "
                    "machine that can have them; see `equipoise cluster status` on both"
                )
            to = peer_of(self._balancer)
            self._balancer.emit(HandedOver(groups=chosen, to=to, within_ms=within_ms))
            return {"groups": list(chosen), "to": to, "within_ms": within_ms}

    # Inside

    async def _ask(self) -> None:
        """Ask the network whether another machine has addresses that are here."""
        found = await self._answering(self._held())
        if new := frozenset(each for each in found if each.host not in self._others):
            await asyncio.sleep(_ASK_AGAIN_S)  # the peer may have answered while it gave the address to us
            again = await self._answering(new & self._held())
            found = {each: macs for each, macs in found.items() if each not in new or each in again}
        self._others = {each.host: ", ".join(macs) for each, macs in found.items()}

    async def _answering(self, held: frozenset[ManagedAddress]) -> dict[ManagedAddress, tuple[str, ...]]:
        try:
            found = await asyncio.to_thread(questions.conflicts, held) if held else {}
        except EngineError:  # the interface is gone, and the addresses with it
            return {}
        return {each: macs for each, macs in found.items() if macs}

    async def _deaf(self) -> str | None:
        plan = self._balancer.plan
        if plan.cluster is None:
            return None
        if plan is not self._followed:
            await self._hearing.follow(plan, plan.cluster)
            self._followed = plan  # not before: where another conversation begins, this is cancelled and begun anew
        return await self._hearing.problem(plan.cluster)

    def _blind(self) -> str | None:
        """Return that no node answers here, and some the peer, so that it had better serve; None elsewhere."""
        said = self._peer.said if self._peer.is_connected else None
        if said is None or said.fault is not None or not said.nodes_up or not self._nodes.all_down:
            self._blind_since_s = None
            return None
        now_s = self._clock.monotonic()
        self._blind_since_s = now_s if self._blind_since_s is None else self._blind_since_s
        if now_s - self._blind_since_s < _BLIND_S:
            return None  # they may just have come back, and the peer was the first to see it
        return f"no node answers the checks of this machine, and {said.nodes_up} answer those of the peer"

    def _chosen(self, groups: Sequence[str]) -> tuple[str, ...]:
        cluster = self._balancer.plan.cluster
        if cluster is None:
            raise EquipoiseError("this machine is in no pair, so nobody could be given its addresses")
        known = [group.name for group in self._keepalived.groups]
        if strangers := [name for name in groups if name not in known]:
            raise EquipoiseError(
                f"{strangers[0]!r} is no group of addresses here; there are: {', '.join(known) or 'none'}"
            )
        here = {group.name for group in self._keepalived.groups if group.state == "master"}
        chosen = tuple(name for name in (groups or known) if name in here)
        if not chosen:
            raise EquipoiseError(
                "this machine has none of these addresses to give; run it on the other machine, or add --here to bring "
                "them here"
            )
        home = {group.name for group in cluster.groups if group.at_home}
        if cluster.preempt and home & set(chosen):
            raise EquipoiseError(
                "`cluster.preempt` is true, so these addresses would come home at once; set it to false, or stop this "
                "machine"
            )
        return chosen

    async def _taken(self, groups: tuple[str, ...]) -> bool:
        """Say whether the peer has them, soon: a peer that is silent just now must not be waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_TAKEN_WITHIN_S):
                while True:
                    await self._greet()
                    if all(map(self._is_there, groups)):
                        return True
                    await asyncio.sleep(_LOOK_EVERY_S)
        return False

    def _is_there(self, name: str) -> bool:
        """Say whether the peer has the addresses of a group: keepalived says so a moment before it brings them up."""
        said, wanted = self._peer.group(name), self._keepalived.hosts_of(frozenset({name}))
        return said is not None and said.state == "master" and wanted <= set(said.holds)

    def _held(self) -> frozenset[ManagedAddress]:
        cluster = self._balancer.plan.cluster
        held = {host for group in self._keepalived.groups for host in group.holds}
        groups = cluster.groups if cluster is not None else ()
        return frozenset(each for group in groups for each in group.addresses if each.host in held)

    def _compare(self) -> None:
        """See whether both hold an address, and for longer than a word of the peer may be old."""
        said = self._peer.said if self._peer.heard_s < _FRESH_S else None
        theirs = {host for group in said.groups for host in group.holds} if said is not None else set()
        now_s, both = self._clock.monotonic(), {each.host for each in self._held()} & theirs
        self._both = {host: self._both.get(host, now_s) for host in both}
        lasting = frozenset(host for host, since_s in self._both.items() if now_s - since_s > _LASTS_S)
        others = {host: mac for host, mac in self._others.items() if host in {each.host for each in self._held()}}
        now = lasting | frozenset(others)
        if now == self._told:
            return
        self._told = now
        found = "both machines say that they have them" if lasting else _answered(others)
        event = SplitBrain(addresses=tuple(sorted(now)), found=found if now else "one machine has them again")
        self.split = event if now else None
        self._balancer.emit(event)

    async def _tell_of_fault(self) -> None:
        try:
            await self._keepalived.set_fault(self.fault)
        except EngineError as error:
            self._hindrances.say(_TELL, str(error))
        else:
            self._hindrances.say(_TELL, None)


def _answered(others: dict[str, str]) -> str:
    return ", ".join(f"another machine ({mac}) answers for {host}" for host, mac in sorted(others.items()))
