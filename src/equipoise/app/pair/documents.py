"""One document on both machines: what is applied on either reaches the other, or it is said that it did not.

The machine whose document came later gives it to the other.  Where both were given one while they could not talk, a
person says whose holds (`sync`).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

from equipoise.app.offline import Preview
from equipoise.app.pair.balancer import Balancer, peer_of
from equipoise.app.pair.peer import Peer
from equipoise.base.errors import EquipoiseError, PeerError
from equipoise.cluster.link import Link
from equipoise.cluster.messages import Answer, Document, Revision
from equipoise.cluster.revisions import History, Revisions, digest_of
from equipoise.state.cluster_events import RevisionConflict, RevisionRefused, RevisionTaken
from equipoise.state.hindrances import Hindrances

_BUSY_S = 5.0  # a document that is put into force starts engines at times
# Looks at the peer's greetings, of which there are two a second.
_LASTING_LOOKS = 4
_LOOKS_UNTIL_AGAIN = 20


class Documents:
    """The document of this machine, and what the peer is to have of it."""

    def __init__(self, balancer: Balancer, hindrances: Hindrances, revisions: Revisions, peer: Peer) -> None:
        self._balancer = balancer
        self._hindrances = hindrances
        self._revisions = revisions
        self._peer = peer
        self._changing = asyncio.Lock()
        self._under_way, self._idle = 0, asyncio.Event()
        self._refused: tuple[Revision, str] | None = None  # ours, which the peer did not take, and why
        self._refusal_looks = 0
        self._told_refusal: tuple[int, str] | None = None
        self._conflict: tuple[Revision, Revision] | None = None
        self._conflict_looks = 0
        self.hindered = ""  # why the peer's document could not be put into force here
        self.takes_any = False  # whether the peer's document is taken although it does not follow on ours

    @property
    def history(self) -> History:
        """Return the revisions of this machine's document."""
        return self._revisions.history

    @property
    def problem(self) -> str | None:
        """Return why one of the two does not take the other's document; None where neither refused."""
        relation = self._peer.relation(self.history)
        if relation == "ahead" and self._refused is not None and self._refused[0] == self.history.revision:
            return f"it does not take our document: {self._refused[1]}"
        return f"its document cannot be taken here: {self.hindered}" if relation == "behind" and self.hindered else None

    def see(self, text: str) -> None:
        """Take note of what is in force."""
        self._kept(self._revisions.see(text))

    async def apply(self, text: str, *, force: bool, link: Link | None) -> Preview:
        """Put a document into force here and on the peer.

        Raises: EquipoiseError, with nothing changed on either; the peer's refusal too, unless `force`.
        """
        async with self._free():
            if link is not None and self._peer.is_connected and not force:
                await self._ask(link, text)
            preview = await self._balancer.change(text, force=force)
            self.see(text)
        if link is None:
            return preview
        number = self.history.revision.number
        return replace(preview, revision=number, peer_said=await self._sent(link))

    async def would_take(self, document: Document) -> Answer:
        """Say whether the peer's document could be put into force here."""
        try:
            await self._balancer.would_change(document.text)
        except EquipoiseError as error:
            return Answer(refused=str(error))
        return Answer()

    async def take(self, document: Document) -> Answer:
        """Put the peer's document into force here, if it comes after ours."""
        try:
            theirs = _history(document)
            async with self._free():
                relation = self.history.relation(theirs)
                if relation == "conflict" and not self.takes_any:
                    return Answer(refused=_in_conflict(self.history.revision.number, theirs.revision.number))
                if relation == "same":
                    self._agree(theirs)
                elif relation != "ahead" or self.takes_any:  # else the peer is sent ours
                    self._peer.has(theirs)
                    await self._put_in_force(document.text, theirs)
        except EquipoiseError as error:
            return Answer(refused=str(error))
        return Answer()

    async def follow(self, link: Link) -> None:
        """Do what follows from how the two documents stand to each other now."""
        theirs, relation = self._peer.history, self._peer.relation(self.history)
        if theirs is None or self._changing.locked():
            return
        if relation != "conflict":
            self._conflict = None
        if relation == "same":
            self._agree(theirs)
        elif self.takes_any:
            await self._fetched(link)
        elif relation == "ahead" and self._may_be_taken():
            await self._sent(link)
        elif relation == "conflict":
            self._tell_of_conflict(theirs.revision)

    async def settled(self) -> None:
        """Wait until no document is under way."""
        while self._under_way:
            await self._idle.wait()

    async def sync(self, take: str | None, link: Link) -> dict[str, Any]:
        """Have one document on both machines; `take` says whose where neither follows on the other.

        Raises: EquipoiseError where the two cannot talk, or one does not take the other's.
        """
        relation, theirs = self._peer.relation(self.history), self._peer.history
        if theirs is None or not self._peer.is_connected:
            raise EquipoiseError(f"the peer does not answer ({self._peer.problem or 'not yet'}); see `cluster status`")
        difference: list[dict[str, Any]] = []
        if relation == "conflict" and take is None:
            difference = await self._difference(link)
            result = "conflict"
        elif relation == "behind" or (relation == "conflict" and take == "theirs"):
            await self._fetched(link)
            result = "taken"
        elif relation == "same":
            result = "same"
        else:
            if relation == "conflict":
                self._kept(self._revisions.supersede(theirs.revision))
            if said := await self._sent(link):
                raise EquipoiseError(said)
            result = "sent"
        numbers = {"ours": self.history.revision.number, "theirs": theirs.revision.number}
        return {"result": result, **numbers, "difference": difference}

    def ours(self) -> Document:
        """Return the document as the peer is sent it."""
        text = self._balancer.document
        self.see(text)  # it may be in force since a moment ago
        known = self.history
        return Document(revision=known.revision, ancestors=known.ancestors, text=text)

    # Inside

    @asynccontextmanager
    async def _free(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_BUSY_S):
                await self._changing.acquire()
        except TimeoutError:
            raise EquipoiseError("another document is being put into force at the moment; try again") from None
        try:
            with self._busy():
                yield
        finally:
            self._changing.release()

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _ask(self, link: Link, text: str) -> None:
        asked = Document(revision=Revision(number=0, digest=digest_of(text)), ancestors=(), text=text)
        try:
            answer = await link.would_take(asked)
        except PeerError:
            return  # it is said once the document is in force here
        if answer.refused is not None:
            await self._balancer.preview(text)  # where it is refused here too, that is nearer
            raise EquipoiseError(
                f"the peer would refuse it, so nothing was changed on either machine: {answer.refused}\n"
                "(mend that there; with --force it is applied here alone)"
            )

    async def _sent(self, link: Link) -> str:
        """Give the peer our document; return why it has not taken it, or nothing.

        Not while a document is put into force here: the peer may be giving us its own, and each would wait for both.
        """
        if not self._peer.is_connected:  # a machine without power would be waited for
            return f"{self._peer.problem or 'the peer does not answer'}; {_GETS_IT}"
        document = self.ours()
        try:
            with self._busy():
                answer = await link.take(document)
        except PeerError as error:
            return f"{error}; {_GETS_IT}"
        self._refused, self._refusal_looks = None, 0
        if answer.refused is None:
            self._peer.has(_history(document))
            return ""
        self._refused = (document.revision, answer.refused)
        self._tell_of_refusal(document.revision, f"the peer: {answer.refused}")
        then = "" if self._peer.relation(self.history) == "conflict" else _MEND
        return f"the peer refused it: {answer.refused}{then}"

    def _may_be_taken(self) -> bool:
        """Say whether to give the peer our document: one that it refused, because it was busy too, now and then."""
        if self._refused is None or self._refused[0] != self.history.revision:
            return True
        self._refusal_looks += 1
        return self._refusal_looks >= _LOOKS_UNTIL_AGAIN

    async def _fetched(self, link: Link) -> None:
        """Put the peer's document into force here, in the place of ours as it was when this was asked for."""
        replaced = self.history.revision.digest
        document = await link.document()
        history = _history(document)
        async with self._free():
            if self.history.revision.digest not in (replaced, history.revision.digest):
                raise EquipoiseError("another document was put into force here meanwhile, and stays; try again")
            await self._put_in_force(document.text, history)

    def _agree(self, theirs: History) -> None:
        """Have the higher number, where both machines have one text."""
        self.takes_any = False
        if theirs.revision.number > self.history.revision.number:
            self._kept(self._revisions.adopt(theirs))

    async def _put_in_force(self, text: str, history: History) -> None:
        try:
            await self._balancer.change(text, force=True)
        except EquipoiseError as error:
            self.hindered = str(error)
            self._tell_of_refusal(history.revision, self.hindered)
            raise
        self._kept(self._revisions.adopt(history))
        self.takes_any, self.hindered = False, ""
        self._balancer.emit(RevisionTaken(revision=history.revision.number, peer=peer_of(self._balancer)))

    async def _difference(self, link: Link) -> list[dict[str, Any]]:
        """Return what the peer's document would change here."""
        document = await link.document()
        return [change.to_json() for change in (await self._balancer.preview(document.text)).changes]

    def _tell_of_conflict(self, theirs: Revision) -> None:
        """Say it once it lasts: a machine that has just joined has another document for a moment."""
        now = (self.history.revision, theirs)
        self._conflict_looks = self._conflict_looks + 1 if now == self._conflict else 1
        self._conflict = now
        if self._conflict_looks == _LASTING_LOOKS:
            self._balancer.emit(RevisionConflict(ours=now[0].number, theirs=theirs.number))

    def _tell_of_refusal(self, revision: Revision, reason: str) -> None:
        """Say it once, however often it is tried."""
        if self._told_refusal != (revision.number, reason):
            self._told_refusal = (revision.number, reason)
            self._balancer.emit(RevisionRefused(revision=revision.number, reason=reason))

    def _kept(self, problem: str | None) -> None:
        self._hindrances.say("keep the revision", problem)


_MEND = "; mend that, and `equipoise cluster sync` gives it to the peer"
_GETS_IT = "the peer gets it by itself once it can be reached"


def _history(document: Document) -> History:
    """Return the history of the peer's document.  Raises: EquipoiseError where the text is that of another one."""
    if digest_of(document.text) != document.revision.digest:
        raise EquipoiseError(f"revision {document.revision.number} came with another text; send it again")
    return History(revision=document.revision, ancestors=document.ancestors)


def _in_conflict(ours: int, theirs: int) -> str:
    return (
        f"this machine has revision {ours}, which does not lead to revision {theirs}: both were changed while they "
        "could not talk, or at the same moment; `equipoise cluster sync` shows the difference and takes one of them"
    )
