"""What is particular to services that HAProxy carries: HTTP, and how long their peers may take."""

import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from equipoise.config.base import Duration, Strict
from equipoise.config.fields import CidrText
from equipoise.config.words import one_or_more

_COOKIE = re.compile(r"[A-Za-z0-9_-]{1,64}")  # of the tokens of RFC 6265 section 4.1.1, those that need no quoting


def _cookie_name(text: str) -> str:
    if not _COOKIE.fullmatch(text):
        raise ValueError(f"{text!r} is not a name for a cookie: 1 to 64 of letters, digits, '_' and '-'")
    return text


CookieName = Annotated[
    str,
    AfterValidator(_cookie_name),
    WithJsonSchema({"type": "string", "pattern": f"^{_COOKIE.pattern}$", "title": "name of a cookie"}),
]


class Http(Strict):
    """What is particular to a service whose HTTP is read here."""

    redirect_to_https: bool = False
    """Whether the ports that `tls.ports` leaves plain send clients to the first one that speaks TLS."""
    hsts: Duration | None = None
    """How long browsers are told to come with TLS alone (RFC 6797), such as `365d`.  By default they are told
    nothing."""
    trust_forwarded: Annotated[tuple[CidrText, ...], one_or_more(CidrText)] = ()
    """Networks of proxies in front of this balancer: what their X-Forwarded-For, -Proto and -Host say is believed.
    What others say there is replaced by what is seen here."""
    retry_after: Duration = 10.0
    """When no node is left: how soon clients are told to come again."""


class Timeouts(Strict):
    """How long peers may take, for all protocols but dicom and hl7; in `l4_dr`, `idle` alone and for every protocol."""

    connect: Duration = 2.0
    """How long one node may take to accept a connection before another is tried."""
    request: Duration = 10.0
    """How long a client may take to send the headers of a request."""
    idle: Duration | None = None
    """How long a connection may be silent: between requests, by default 60s; with `tcp`, and `https` passed through,
    at all, by default 12h.  In `l4_dr` a connection that is silent for longer, by default 3h, is forgotten and reset at
    its next packet; TCP's keepalive comes after 2h."""
    stall: Duration = 300.0
    """How long a client may leave an upload unfinished without sending a byte of it, or an answer unread."""
    response: Duration = 600.0
    """How long a node may take for the next part of an answer, its first byte included: archives that take in 2 GB
    think before they answer."""
    tunnel: Duration = 43200.0
    """How long a WebSocket may be silent."""
