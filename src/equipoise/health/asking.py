"""Run one check once: connect, talk, and hold the deadline.  Everything that a node can do wrong becomes an outcome."""

import asyncio
from dataclasses import dataclass

from equipoise.base.clock import Clock
from equipoise.base.errors import PeerError
from equipoise.config.base import CheckParams
from equipoise.health.base import Check, Result
from equipoise.health.dialling import StreamLink, addresses, dial, plain


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one check saw, and when.

    Attributes:
        reason: One line for a person.
        at_wall_s: When the check ended, in seconds since 1970.
        took_ms: From dialling to the end; without the wait for its turn.
    """

    ok: bool
    reason: str
    at_wall_s: float
    took_ms: float


async def ask(check: Check, params: CheckParams, host: str, port: int, clock: Clock) -> Outcome:
    """Run `check` once; `host` is an address or a name.

    Raises: EquipoiseError where this machine cannot ask, which says nothing of the node; what else a check raises but
    PeerError and OSError is its bug.
    """
    began_s = clock.monotonic()
    result = await _converse(check, params, host, port)
    return Outcome(result.ok, result.reason, clock.wall(), (clock.monotonic() - began_s) * 1000)


async def _converse(check: Check, params: CheckParams, host: str, port: int) -> Result:
    link: StreamLink | None = None
    try:
        async with asyncio.timeout(params.timeout) as limit:
            link = await _dial_any(host, port, params.source_address)
            return await check.probe(link, params)
    except PeerError as error:
        return Result.failed(str(error))
    except OSError as error:  # TimeoutError is one: the deadline's, or the kernel's
        return Result.failed(_too_late(link, params.timeout) if limit.expired() else plain(error))
    finally:
        if link is not None:
            await link.close()


async def _dial_any(host: str, port: int, source_address: str | None) -> StreamLink:
    """Connect to the first address of `host` that takes it.  Raises: PeerError of the last one."""
    failure = PeerError(f"{host} has no address")
    for address in await addresses(host, port):
        try:
            return await dial(address, port, source_address)
        except PeerError as error:
            failure = error
    raise failure


def _too_late(link: StreamLink | None, timeout_s: float) -> str:
    if link is None:
        return f"no answer within {timeout_s:g} s"
    if link.received_bytes == 0:
        return f"connected, but no answer within {timeout_s:g} s"
    return f"connected, but no whole answer within {timeout_s:g} s, only {link.received_bytes} bytes"
