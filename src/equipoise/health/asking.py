"""Ask one question once: connect, talk, and hold the deadline.  Everything that a node can do wrong is an outcome."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from equipoise.base.clock import Clock
from equipoise.base.deadline import deadline
from equipoise.base.errors import PeerError
from equipoise.health.base import Check, Probe, Result, Visit
from equipoise.health.dialling import StreamLink, UnreachableError, addresses, connect, open_link, plain
from equipoise.health.question import Question


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one check saw, and when.

    Attributes:
        reason: One line for a person.
        at_wall_s: When the check ended, in seconds since 1970.
        took_ms: From dialling to the end; without the wait for its turn.
        connected: False where no TCP connection to the node came about at all: refused, no answer, no way there, no
            address.  What answers wrongly is connected, and so is what is asked by a program of the site's own.
    """

    ok: bool
    reason: str
    at_wall_s: float
    took_ms: float
    connected: bool = True


async def ask(question: Question, catalogue: Mapping[str, Check], clock: Clock) -> Outcome:
    """Ask once.

    Raises: EquipoiseError where this machine cannot ask, which says nothing of the node; what else a check raises but
    PeerError and OSError is its bug.
    """
    began_s = clock.monotonic()
    asking = _Asking(catalogue, clock)
    result = await asking.answer(question, question.params.timeout)
    took_ms = (clock.monotonic() - began_s) * 1000
    return Outcome(result.ok, result.reason, clock.wall(), took_ms, connected=asking.connected or result.ok)


@dataclass(slots=True)
class _Asking:
    """One question with its parts; `dialled` has, for each connection that was tried, whether somebody was there."""

    catalogue: Mapping[str, Check]
    clock: Clock
    dialled: list[bool] = field(default_factory=list)

    @property
    def connected(self) -> bool:
        """Whether somebody was there at all, or none was tried by us."""
        return any(self.dialled) or not self.dialled

    async def answer(self, question: Question, timeout_s: float) -> Result:
        """Return the answer within the time, for a question or a part of one."""
        check = self.catalogue[question.check]
        if check.visit is not None:
            return await check.visit(Visit(question, timeout_s, self.answer), question.params)
        if check.probe is None:
            raise ValueError(f"check {check.name!r} has neither probe nor visit; give it one")
        return await self._converse(check.probe, question, timeout_s)

    async def _converse(self, probe: Probe, question: Question, timeout_s: float) -> Result:
        reached: socket.socket | None = None
        link: StreamLink | None = None
        try:
            async with deadline(timeout_s) as limit:
                reached = await _reach(question)
                self.dialled.append(True)
                link = await open_link(reached, question.tls, question.proxy, timeout_s, self.clock)
                return await probe(link, question.params)
        except PeerError as error:
            if reached is None:
                self.dialled.append(not isinstance(error, UnreachableError))
            return Result.failed(str(error))
        except OSError as error:  # TimeoutError is one: the deadline's, or the kernel's
            late = limit.expired()
            if reached is None:
                self.dialled.append(False)
            return Result.failed(_too_late(question, reached, link, timeout_s) if late else plain(error))
        finally:
            if link is not None:
                await link.close()


async def _reach(question: Question) -> socket.socket:
    """Connect to the first address of the host that takes it.  Raises: PeerError of the last one."""
    host = question.host or question.name
    failure: PeerError = UnreachableError(f"{host} has no address")
    for address in await addresses(host, question.port):
        try:
            return await connect(address, question.port, question.params.source_address)
        except PeerError as error:
            failure = error
    raise failure


def _too_late(question: Question, reached: socket.socket | None, link: StreamLink | None, timeout_s: float) -> str:
    if reached is None:
        return f"no answer within {timeout_s:.3g} s"
    if link is None and question.tls is not None:
        return f"connected, but no TLS within {timeout_s:.3g} s; does the node speak TLS on this port?"
    if link is None or link.received_bytes == 0:
        return f"connected, but no answer within {timeout_s:.3g} s"
    return f"connected, but no whole answer within {timeout_s:.3g} s, only {link.received_bytes} bytes"
