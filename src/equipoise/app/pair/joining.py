"""How two machines become a pair: the first invites, with a token for one use; the second accepts.

Each then has the other's certificate, and a small file that says which of the two it is (`cluster/here.py`).  The
document of the first machine holds on both.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from equipoise.app.pair.balancer import Balancer
from equipoise.app.pair.connection import Server
from equipoise.app.pair.documents import Documents
from equipoise.app.pair.peer import Peer
from equipoise.app.ways import find_ways
from equipoise.base.clock import Clock
from equipoise.base.errors import EquipoiseError, PeerError
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.cluster.here import read_here, remove_here, write_here
from equipoise.cluster.identity import own_identity, peer_file, remove_peer, secured, store_peer
from equipoise.cluster.invitation import Invitation, read_token
from equipoise.cluster.joining import ask_to_join
from equipoise.cluster.link import Link
from equipoise.cluster.messages import Join, Joined
from equipoise.cluster.wanted import WantedPair
from equipoise.config.cluster import DEFAULT_PORT, Here
from equipoise.config.fields import numeric, split_port
from equipoise.config.loading import check_settings
from equipoise.plan.model import Cluster, Endpoint
from equipoise.state.cluster_events import PairJoined

_OPPOSITE = {"primary": "secondary", "secondary": "primary"}
_READY_WITHIN_S = 10.0
_DOCUMENT_WITHIN_S = 20.0
_LOOK_EVERY_S = 0.1
_AFTER_ANSWER_S = 0.2  # so that the second machine has it before the server that gave it is closed


ServeInvitation = Callable[["Joining", str, int, Path], Awaitable[Server]]


@dataclass(frozen=True, slots=True)
class _Open:
    """An invitation that is open: what this machine will be, and how to go on once it is closed.

    Attributes:
        role: What an operator said that this machine is to be.
    """

    invitation: Invitation
    role: str | None
    peer: str
    here: Here
    server: Server
    after: Callable[[], Awaitable[None]]


class Joining:
    """Invitations, given and accepted.

    Args:
        balancer: Takes up what the files say afterwards.
        directories: Where the files are.
        documents: The document, which the second machine gets from the first.
        peer: Says when the two have met.
        serve: Serves an invitation.
        clock: Time.
        tasks: Closes an invitation that was used, or whose time is over.
    """

    def __init__(
        self,
        balancer: Balancer,
        directories: Directories,
        documents: Documents,
        peer: Peer,
        *,
        serve: ServeInvitation,
        clock: Clock,
        tasks: Tasks,
    ) -> None:
        self._balancer = balancer
        self._state = directories.state
        self._documents = documents
        self._peer = peer
        self._serve = serve
        self._clock = clock
        self._tasks = tasks
        self._open: _Open | None = None
        self._met_at: int | None = None  # the port where this machine was let in

    @property
    def invitation(self) -> dict[str, Any] | None:
        """Return the invitation that is open, for people; None where there is none."""
        if self._open is None or not (left_s := self._open.invitation.left_s):
            return None
        return {"peer": self._open.peer, "expires_s": round(left_s)}

    async def invite(self, wanted: WantedPair, after: Callable[[], Awaitable[None]]) -> dict[str, Any]:
        """Invite the other machine; `after` is called once that is over.  Raises: EquipoiseError."""
        host, port = self._place(wanted.peer)
        if host in {end.host for service in self._balancer.plan.services for end in service.listen}:
            raise EquipoiseError(f"services listen on {host}; name the address that the other machine has for itself")
        own = await _own(wanted, host)
        identity = await asyncio.to_thread(own_identity, self._state, own, self._clock)
        invitation = Invitation(identity.fingerprint, self._clock)
        role = wanted.role or await asyncio.to_thread(self._usual_role)
        here = _here(peer=host, address=own, interface=wanted.interface, role=role)
        server = await self._served(own, port, identity.file)
        self._open = _Open(invitation, wanted.role, host, here, server, after)
        self._tasks.spawn("pair.invitation", self._over(self._open, invitation.left_s))
        at = own if port == DEFAULT_PORT else str(Endpoint(own, port))
        command = f"equipoise cluster join {at} --token {invitation.token}"
        return {
            "state": "invited",
            "token": str(invitation.token),
            "command": command,
            "expires_s": round(invitation.left_s),
        }

    async def join(self, asked: Join) -> Joined:
        """Take the second machine in, if it knows the secret.  Raises: EquipoiseError."""
        opened = self._open
        if opened is None:
            raise EquipoiseError("no invitation is open any more; have the first machine invite again")
        second = numeric(asked.address)
        if second is None or str(second) == opened.here.address:
            raise EquipoiseError(f"{asked.address!r} is not the address of another machine; name yours with --address")
        ours = opened.here.role or "primary"
        if asked.role == opened.role == ours:  # said before the token is used up
            raise EquipoiseError(f"both machines were told to be the {ours}; leave out `--role` on one of them")
        try:
            opened.invitation.use(asked.secret)
        except EquipoiseError:
            if not opened.invitation.left_s:  # too many wrong ones: the pair that was served here goes on
                self._tasks.spawn("pair.invitation", self._over(opened, _AFTER_ANSWER_S))
            raise
        if asked.role == ours:
            ours = _OPPOSITE[ours]  # the second one was told which it is to be
        here = _here(peer=asked.address, address=opened.here.address, interface=opened.here.interface, role=ours)
        await asyncio.to_thread(store_peer, self._state, asked.certificate)
        await asyncio.to_thread(write_here, self._state, here)
        self._tasks.spawn("pair.joined", self._joined(asked.address, ours))
        return Joined(address=str(opened.here.address), role=_OPPOSITE[ours])

    async def accept(self, wanted: WantedPair, token: str) -> dict[str, Any]:
        """Accept an invitation: the first machine's document is in force here then.  Raises: EquipoiseError."""
        known = read_token(token)
        host, port = self._place(wanted.peer)
        own = await _own(wanted, host)
        identity = await asyncio.to_thread(own_identity, self._state, own, self._clock)
        asked = Join(secret=known.secret, certificate=identity.certificate, address=own, role=wanted.role or "")
        answer, certificate = await ask_to_join(host, port, own, known, asked)
        await asyncio.to_thread(store_peer, self._state, certificate)
        here = _here(peer=host, address=own, interface=wanted.interface, role=answer.role)
        await asyncio.to_thread(write_here, self._state, here)
        self._documents.takes_any, self._met_at = True, port
        met = await asyncio.to_thread(secured, self._state)
        if met is not None:
            first = Link(host, port, own, met)
            try:
                await self._until_ready(first)
            finally:
                await first.close()
        await self._taken_up()
        self._balancer.emit(PairJoined(peer=host, role=answer.role))
        await self._until_taken(host)
        return {
            "state": "joined",
            "peer": host,
            "role": answer.role,
            "revision": self._documents.history.revision.number,
        }

    async def withdraw(self) -> bool:
        """End an invitation that is open; return whether there was one."""
        was_open = self.invitation is not None
        await self._close()
        return was_open

    def as_met(self, cluster: Cluster | None) -> Cluster | None:
        """Return the pair at the port where the two met, until the document that says it is in force here."""
        if cluster is None or self._met_at is None or not self._documents.takes_any:
            return cluster
        return replace(cluster, port=self._met_at)

    def refuse_to_claim(self, peer: str) -> None:
        """Refuse to have this machine, alone, claim what the peer has or takes.  Raises: EquipoiseError."""
        if claimed := self._balancer.alone().addresses:
            raise EquipoiseError(
                f"alone, this machine would bring up {claimed[0].host} by `network.manage_addresses`, and {peer}, "
                "which stays one of the pair, has it or takes it: apply a document without `manage_addresses` first"
            )

    async def part(self) -> None:
        """Have this machine stand alone; where it cannot, it stays one of the pair.  Raises: EquipoiseError."""
        here, certificate = read_here(self._state), peer_file(self._state)
        before = certificate.read_text() if certificate.exists() else None
        self.forget(place=True)
        try:
            await self._balancer.read_again()
        except EquipoiseError as error:
            if here is not None:
                write_here(self._state, here)
            if before is not None:
                store_peer(self._state, before)
            raise EquipoiseError(
                f"alone, this machine could not serve its document, so it stays one of the pair: {error}\n"
                "(where `network.manage_addresses` is true, apply a document without it first: the peer may have the "
                "addresses)"
            ) from None

    def forget(self, *, place: bool) -> None:
        """Know the peer no more, and with `place`, not which of the two this was.  Raises: EquipoiseError."""
        remove_peer(self._state)
        if place:
            remove_here(self._state)

    # Inside

    def _place(self, peer: str) -> tuple[str, int]:
        try:
            host, port = split_port(peer)
        except ValueError as error:
            raise EquipoiseError(f"{peer!r} is not the address of a machine: {error}") from None
        if numeric(host) is None:
            raise EquipoiseError(
                f"{host!r} is not an IP address; write that of the other machine, for example 10.0.0.3"
            )
        cluster = self._balancer.plan.cluster
        return host, port or (cluster.port if cluster is not None else DEFAULT_PORT)

    def _usual_role(self) -> str:
        before = read_here(self._state)
        return (before.role if before is not None else None) or "primary"

    async def _served(self, address: str, port: int, own: Path) -> Server:
        try:
            return await self._serve(self, address, port, own)
        except OSError as error:
            raise EquipoiseError(
                f"cannot listen on {address}:{port} for the other machine: {error.strerror}; is it this machine's own "
                "address? `--address` names another one"
            ) from None

    async def _joined(self, peer: str, role: str) -> None:
        await asyncio.sleep(_AFTER_ANSWER_S)
        await self._close()
        await self._taken_up()
        self._balancer.emit(PairJoined(peer=peer, role=role))

    async def _taken_up(self) -> None:
        """Have the files in force; where they cannot be, they are removed, as they would refuse the next start too."""
        try:
            await self._balancer.read_again()
        except EquipoiseError as error:
            self._documents.takes_any = False
            self.forget(place=True)
            raise EquipoiseError(
                f"this machine cannot be one of a pair: {error}; mend that, run `equipoise cluster leave` on the other "
                "machine, and join again"
            ) from None

    async def _over(self, opened: _Open, in_s: float) -> None:
        await asyncio.sleep(in_s)
        if self._open is opened:
            await self._close()

    async def _close(self) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            await opened.server.close()
            await opened.after()

    async def _until_ready(self, first: Link) -> None:
        """Wait until the first machine is one of a pair: it may have the addresses, and must not lose them to us."""
        with suppress(TimeoutError):  # what follows says what is wrong
            async with asyncio.timeout(_READY_WITHIN_S):
                while True:
                    with suppress(PeerError):
                        await first.document()
                        return
                    await asyncio.sleep(_LOOK_EVERY_S)

    async def _until_taken(self, peer: str) -> None:
        deadline_s = self._clock.monotonic() + _DOCUMENT_WITHIN_S
        while self._documents.takes_any:
            if self._clock.monotonic() > deadline_s:
                why = self._documents.hindered or self._peer.problem or "it has not answered yet"
                raise EquipoiseError(
                    f"the two machines know each other, but the document of {peer} is not in force here: {why}; it is "
                    "tried again and again, `equipoise cluster status` says how it goes"
                )
            await asyncio.sleep(_LOOK_EVERY_S)


def _here(**values: str | None) -> Here:
    """Return what is written about this machine.  Raises: ConfigError."""
    return check_settings(Here, values)


async def _own(wanted: WantedPair, peer: str) -> str:
    """Return the address from which this machine talks to the peer.  Raises: EquipoiseError where it cannot."""
    own = wanted.address or await _source_to(peer)
    if _is_ipv6(own) != _is_ipv6(peer):
        raise EquipoiseError(f"{own} and {peer} are not of one family, so neither could hear the other")
    if not await asyncio.to_thread(_has, own):
        raise EquipoiseError(f"this machine does not have the address {own}; `--address` names one that it has")
    if wanted.interface is not None and wanted.interface not in {name for _, name in socket.if_nameindex()}:
        raise EquipoiseError(f"there is no interface {wanted.interface!r} on this machine; see `ip link`")
    return own


def _is_ipv6(host: str) -> bool:
    return ":" in host


def _has(host: str) -> bool:
    with socket.socket(socket.AF_INET6 if _is_ipv6(host) else socket.AF_INET) as trial:
        try:
            trial.bind((host, 0))
        except OSError:
            return False
    return True


async def _source_to(peer: str) -> str:
    way = (await asyncio.to_thread(find_ways, [peer])).get(peer)
    if way is None or way.source is None:
        raise EquipoiseError(
            f"this machine knows no way to {peer}; is it switched on, is the address right, and not this machine's own?"
        )
    return way.source
