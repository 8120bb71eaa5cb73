"""This machine's half of a pair: made with the supervisor, awake while the plan has a peer.

It answers operators (`status`, `handover` and so on) and the peer (`hear_hello`, `take` and so on).
Source: docs/adr/0014-a-pair.md.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from equipoise import __version__
from equipoise.app.engines import Engines
from equipoise.app.nodes import NodeBook
from equipoise.app.offline import Preview
from equipoise.app.pair import showing
from equipoise.app.pair.balancer import Balancer
from equipoise.app.pair.connection import Connection, Loop, Server, Work
from equipoise.app.pair.documents import Documents
from equipoise.app.pair.joining import Joining
from equipoise.app.pair.moving import Moving
from equipoise.app.pair.overriding import Overriding
from equipoise.app.pair.peer import Peer
from equipoise.app.pair.sharing import Sharing
from equipoise.app.pair.talking import Talking
from equipoise.base.clock import Clock
from equipoise.base.errors import EquipoiseError, PeerError
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.cluster.ledger import Ledger
from equipoise.cluster.link import Link
from equipoise.cluster.messages import (
    VERSION,
    Answer,
    Document,
    GroupSaid,
    HandOver,
    Hello,
    Overrides,
    SoftAnswer,
    SoftPush,
)
from equipoise.cluster.revisions import Revisions
from equipoise.cluster.wanted import WantedPair
from equipoise.engines.keepalived.runner import KeepalivedEngine
from equipoise.plan.model import Cluster, Secured
from equipoise.state.cluster_events import PairLeft
from equipoise.state.hindrances import Hindrances

_FLUSH_S = 2.0  # before addresses move: an operator waits, or a machine that is being stopped


class Serving(Protocol):
    """What serves this half to its peer, and invitations to one."""

    async def pair(self, pair: "Pair", address: str, port: int, secured: Secured) -> Server:
        """Serve the peer, and nobody else.  Raises: EquipoiseError or OSError."""

    async def invitation(self, inviting: Joining, address: str, port: int, own: Path) -> Server:
        """Serve whoever has the token; `own` is the file of our certificate.  Raises: EquipoiseError or OSError."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """What this half is made with.

    Attributes:
        directories: Where its files are.
        clock: Time.
        tasks: Runs the conversation.
        serving: Serves the peer.
    """

    directories: Directories
    clock: Clock
    tasks: Tasks
    serving: Serving


class Pair:
    """This half.

    Args:
        balancer: The supervisor.
        nodes: The operators' overrides.
        engines: All of them.
        keepalived: Of these the one that has the addresses.
        wiring: What it is made with.
    """

    def __init__(
        self, balancer: Balancer, nodes: NodeBook, engines: Engines, keepalived: KeepalivedEngine, wiring: Wiring
    ) -> None:
        directories, clock, tasks, serving = wiring.directories, wiring.clock, wiring.tasks, wiring.serving
        folder = directories.state / "cluster"
        self._session = secrets.token_hex(8)
        self._balancer, self._engines, self._keepalived = balancer, engines, keepalived
        self._nodes = nodes
        self._clock, self._tasks, self._serving = clock, tasks, serving
        self._peer = Peer(clock)
        self._hindrances = hindrances = Hindrances(balancer.emit)
        self._documents = Documents(balancer, hindrances, Revisions(folder / "revision.json"), self._peer)
        ledger = Ledger(folder / "overrides.json")
        self._overriding = Overriding(balancer, hindrances, nodes, ledger, self._session)
        self._sharing = Sharing(engines, hindrances, self._session, clock)
        self._talking = Talking(
            balancer,
            hindrances,
            self._peer,
            self._hello,
            documents=self._documents,
            overriding=self._overriding,
            sharing=self._sharing,
        )
        self._moving = Moving(
            balancer,
            hindrances,
            engines,
            keepalived,
            self._peer,
            nodes=nodes,
            clock=clock,
            greet=self._greet,
            flush=self._flush,
        )
        self._joining = Joining(
            balancer, directories, self._documents, self._peer, serve=serving.invitation, clock=clock, tasks=tasks
        )
        work = Work(
            serve=self._serve,
            settled=self._documents.settled,
            begun=self._begun,
            paired=self._moving.loops,
            talking=self._talks,
            hindrances=hindrances,
        )
        self._connection = Connection(work, tasks)
        self._cluster: Cluster | None = None
        self._stopping = False
        keepalived.on_change = self._changed

    async def configure(self) -> None:
        """Follow a plan that is in force now, and its document."""
        self._documents.see(self._balancer.document)
        self._cluster = self._balancer.plan.cluster
        if self._cluster is None:
            self._engines.share(None)
        else:
            self._overriding.catch_up()
        self._connection.follow(self._joining.as_met(self._cluster))

    async def stop(self) -> bool:
        """Have the peer serve from now on, if it can; else the addresses stay until all is drained.

        Returns: Whether there is nobody left whom this machine serves, as every address is the peer's.
        """
        self._stopping = True
        if self._peer.is_connected:
            await self._greet()  # else it might hand addresses over to us
        held = tuple(group.name for group in self._keepalived.groups if group.state == "master")
        gives = bool(held) and self._peer.cannot_take(held) is None
        if gives:
            await self._flush()
            await self._keepalived.stop(0)
            await self._greet()  # else the peer thinks for a moment that both have them
        await self.close()
        plan = self._balancer.plan
        return gives and {end.host for service in plan.services for end in service.listen} <= {
            vip.host for vip in plan.vips
        }

    async def close(self) -> None:
        """Fall silent: the supervisor ends, and the engines go on."""
        self._engines.share(None)
        await self._connection.close()
        await self._joining.withdraw()

    def overridden(self, keys: Sequence[str]) -> None:
        """Have the peer told that an operator has overridden these nodes."""
        if self._cluster is not None:
            self._overriding.given(keys)
            self._talking.soon()

    @property
    def at_peer(self) -> frozenset[str]:
        """Return the addresses that are the peer's now: keepalived stands by for those whose holder it hears."""
        groups = self._cluster.groups if self._cluster is not None else ()
        theirs = {group.name for group in self._keepalived.groups if group.state == "backup"}
        return frozenset(each.host for group in groups if group.name in theirs for each in group.addresses)

    # For operators: see api/ports.py

    async def apply(self, document: str, *, force: bool) -> Preview:
        """Put a document into force on both machines.  Raises: EquipoiseError, with nothing changed."""
        preview = await self._documents.apply(document, force=force, link=self._connection.link)
        self._talking.soon()
        return preview

    async def status(self) -> dict[str, Any]:
        """Return how things stand with the pair."""
        cluster, site = self._cluster, self._balancer.plan.site
        if cluster is None:
            return {**showing.nobody(site), "invitation": self._joining.invitation}
        agreed = self._peer.said is not None and self._peer.said.overrides == self._overriding.digest
        return {
            "site": site,
            **showing.of_cluster(cluster),
            "peer": showing.of_peer(cluster, self._peer, self._documents.problem),
            "revision": showing.of_revision(self._documents.history, self._peer),
            "groups": showing.of_groups(cluster, self._keepalived.groups, self._peer),
            "fault": self._moving.fault,
            "staying": showing.of_staying(cluster, self._balancer.plan.services),
            "split": showing.of_split(self._moving.split),
            "lag": {
                "pending": self._sharing.pending,
                "behind_s": round(self._sharing.behind_s, 1) if self._connection.link is not None else None,
                "overrides": ("same" if agreed else "differ") if self._peer.is_connected else "unknown",
            },
            "last_failover": showing.of_move(self._moving.last_move),
            "invitation": self._joining.invitation,
        }

    async def join(self, wanted: WantedPair, token: str | None) -> dict[str, Any]:
        """Invite a second machine, or with its token, accept an invitation.  Raises: EquipoiseError."""
        if token is not None:
            return await self._joining.accept(wanted, token)
        await self._joining.withdraw()
        await self._connection.lend()  # the invitation is served where the pair is
        try:
            return await self._joining.invite(wanted, self._connection.take_back)
        except BaseException:
            await self._connection.take_back()
            raise

    async def leave(self) -> dict[str, Any]:
        """Withdraw an invitation that is open, else be a pair no more.  Raises: EquipoiseError."""
        cluster, knows = self._cluster, False
        if await self._joining.withdraw():
            return {"peer": cluster.peer if cluster is not None else "", "peer_knows": False}
        if cluster is None:
            raise EquipoiseError("this machine is not half of a pair, so there is nothing to leave")
        await self._greet()  # a supervisor that has just begun has not heard it yet
        if self._peer.is_connected:  # it stays, with the addresses
            self._joining.refuse_to_claim(cluster.peer)
        link = self._farewell(cluster)
        await self._joining.part()
        if link is not None:
            with suppress(PeerError):
                knows = (await link.leave()).refused is None
            await link.close()
        self._balancer.emit(PairLeft(peer=cluster.peer, by="here"))
        return {"peer": cluster.peer, "peer_knows": knows}

    async def sync(self, take: str | None) -> dict[str, Any]:
        """Have one document on both machines.  Raises: EquipoiseError."""
        link = self._linked()
        await self._greet()  # what the peer said last may be older than its document
        return await self._documents.sync(take, link)

    async def handover(self, groups: list[str], here: bool) -> dict[str, Any]:
        """Give addresses to the peer, or with `here` have them given to us.  Raises: EquipoiseError."""
        if not here:
            return await self._moving.hand_over(groups)
        link, began_s = self._linked(), self._clock.monotonic()
        here_now = {group.name for group in self._keepalived.groups if group.state == "master"}
        if set(groups or (group.name for group in self._keepalived.groups)) <= here_now:
            return {"groups": [], "to": self._cluster.address if self._cluster else "", "within_ms": 0.0}
        answer = await link.hand_over(HandOver(groups=tuple(groups)))
        if answer.refused is not None:
            raise EquipoiseError(f"the peer did not hand over: {answer.refused}")
        within_ms = round((self._clock.monotonic() - began_s) * 1000, 1)
        held = [group.name for group in self._keepalived.groups if group.state == "master"]
        return {"groups": groups or held, "to": self._cluster.address if self._cluster else "", "within_ms": within_ms}

    # For the peer: see cluster/ports.py

    async def hear_hello(self, said: Hello) -> Hello:
        """Take note of how the peer is, and say how we are."""
        self._peer.hear(said)
        return self._hello()

    async def would_take(self, document: Document) -> Answer:
        """Say whether the peer's document could be put into force here."""
        return await self._documents.would_take(document)

    async def take(self, document: Document) -> Answer:
        """Put the peer's document into force here."""
        return await self._documents.take(document)

    async def document(self) -> Document:
        """Return ours."""
        return self._documents.ours()

    async def take_overrides(self, overrides: Overrides) -> Overrides:
        """Take those that are newer than ours, and return all of ours."""
        return await self._overriding.take(overrides)

    async def take_soft(self, push: SoftPush) -> SoftAnswer:
        """Take what the peer learned of clients and flows."""
        return await self._sharing.take(push)

    async def hand_over(self, asked: HandOver) -> Answer:
        """Give addresses to the peer."""
        try:
            await self._moving.hand_over(asked.groups)
        except EquipoiseError as error:
            return Answer(refused=str(error))
        return Answer()

    async def peer_leaves(self) -> Answer:
        """Take note that the peer is no longer one; the addresses stay here."""
        if self._cluster is not None:
            self._joining.forget(place=False)
            self._balancer.emit(PairLeft(peer=self._cluster.peer, by="peer"))
            self._tasks.spawn("pair.left", self._attempt("serve without the peer", self._balancer.read_again()))
        return Answer()

    # Inside

    def _hello(self) -> Hello:
        known, now_s = self._documents.history, self._clock.wall()
        groups = [
            GroupSaid(name=each.name, state=each.state, for_s=max(0.0, now_s - each.since), holds=each.holds)
            for each in self._keepalived.groups
        ]
        return Hello(
            version=VERSION,
            software=__version__,
            session=self._session,
            role=self._cluster.role if self._cluster is not None else "",
            revision=known.revision,
            ancestors=known.ancestors,
            overrides=self._overriding.digest,
            groups=tuple(groups),
            clock_s=now_s,
            fault=self._moving.fault,
            nodes_up=self._nodes.answering,
            stopping=self._stopping,
        )

    def _linked(self) -> Link:
        if self._connection.link is None:
            raise EquipoiseError("this machine has no peer that it could ask; `equipoise cluster join` makes a pair")
        return self._connection.link

    def _farewell(self, cluster: Cluster) -> Link | None:
        """Return a way to the peer that outlives the pair; None where there is none."""
        if cluster.secured is None:
            return None
        with suppress(EquipoiseError):  # a file that is spoiled must not keep anybody in a pair
            return Link(cluster.peer, cluster.port, cluster.address, cluster.secured)
        return None

    async def _greet(self) -> None:
        if self._connection.link is not None:
            await self._talking.greet(self._connection.link)

    async def _flush(self) -> None:
        if self._connection.link is not None and self._peer.said is not None:
            push = self._sharing.push(self._connection.link, self._peer.said.session)
            with suppress(TimeoutError):  # what it does not know then costs persistence
                async with asyncio.timeout(_FLUSH_S):
                    await self._attempt("tell the peer of clients", push)

    async def _attempt(self, task: str, work: Awaitable[None]) -> None:
        try:
            with suppress(PeerError):  # greetings say it
                await work
        except EquipoiseError as error:
            self._hindrances.say(task, str(error))
        else:
            self._hindrances.say(task, None)

    # What the connection is for

    async def _serve(self, cluster: Cluster) -> Server:
        if cluster.secured is None:
            raise EquipoiseError("the two machines have not joined")
        return await self._serving.pair(self, cluster.address, cluster.port, cluster.secured)

    def _begun(self) -> None:
        self._engines.share(None)
        self._peer.forget()
        self._talking.forget()
        self._sharing.start_over()

    def _talks(self, link: Link) -> tuple[Loop, ...]:
        self._engines.share(self._sharing.learned)
        return self._talking.loops(link)

    def _changed(self) -> None:
        """Take note that addresses have come or gone, and have the peer know."""
        self._moving.note()
        self._talking.soon()
