"""Check `tls`: a TLS handshake.  Passes when the node's certificate holds, for `min_days` more at least.

What a certificate must be is said by the service's `node_tls`; without it, one of the system's authorities for the
node's name.  Leaves out what is spoken inside: the connection is closed in order behind the handshake.
Source: BCP 195 (DICOM PS3.15 annex B.12).
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from equipoise.base.errors import PeerError
from equipoise.base.units import format_days
from equipoise.config.base import CheckParams
from equipoise.health.base import Check, Link, Result

_DAY_S = 86400


def _true(value: bool | None) -> bool:
    if not value:
        raise ValueError("a check of TLS without TLS sees nothing; leave the key out, or use check tcp")
    return value


class Params(CheckParams):
    """How long the certificate must last."""

    tls: Annotated[bool, AfterValidator(_true)] = True
    """Always true: the check speaks TLS whatever the service does."""
    min_days: Annotated[int, Field(ge=0, le=3650)] = 0
    """The check fails when the node's certificate ends in fewer days; 0: when it has ended."""


async def probe(link: Link, params: Params) -> Result:
    """Look at the handshake that the runner has made."""
    session = link.tls
    if session is None:
        raise PeerError("connected without TLS; set health.tls to true")
    certificate = f"certificate of {session.names}, {_lasts(session.left_s)}"
    if session.left_s < 0:
        return Result.failed(f"{certificate}; have it renewed at the node")
    if session.left_s < params.min_days * _DAY_S:
        return Result.failed(f"{certificate}, fewer than min_days, {params.min_days}; have it renewed at the node")
    return Result.passed(f"{session.version}, {session.cipher}, {certificate}")


def _lasts(left_s: float) -> str:
    return f"it ended {format_days(left_s)} ago" if left_s < 0 else f"{format_days(left_s)} left"


CHECK = Check(name="tls", params=Params, probe=probe)
