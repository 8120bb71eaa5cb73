"""Check `http`: one request.  Passes when the status, and where asked a header and the body, are as expected.

The connection is made for this request and closed behind it; redirects are not followed, they are answers.  Leaves out
logging in: a page that says whether the server is well should not need it.
Source: RFC 9110 (methods, status codes).
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from equipoise.config.base import CheckParams
from equipoise.health.base import Check, Link, Result, one_line
from equipoise.health.checks.settings import HostHeader, Statuses, UrlPath
from equipoise.health.web import Answer, Request, exchange, redirect, unexpected, within

_MAX_BODY_BYTES = 64 * 1024  # a page that says "well" is short; what follows is not read
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+): *([ -~]*)\Z")  # RFC 9110 section 5.1: a token

_HINTS = {
    401: "ask for a page that needs no log-in, or add 401 to health.status",
    403: "allow this balancer there, or ask for another health.path",
    405: "set health.method to GET",
    501: "set health.method to GET",
}


def _header(text: str) -> str:
    if not _HEADER.match(text):
        raise ValueError(f"{text!r} is not a header; write its name, a colon, and text that must be in its value")
    return text


class Params(CheckParams):
    """What is asked, and what must come back."""

    method: Literal["HEAD", "GET", "OPTIONS"] = "HEAD"
    """The method; `GET` where the body is to be looked at."""
    path: UrlPath = "/"
    """What is asked for."""
    host: HostHeader | None = None
    """The Host header.  By default the node's address and port."""
    status: Statuses = ("200-399",)
    """The status codes that are taken: one such as `200`, a range such as `200-299`, or a list of them."""
    header: Annotated[str, AfterValidator(_header)] | None = None
    """A header of the answer, `NAME: TEXT`; TEXT must be in its value."""
    body: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Text that must be in the first 64 KiB of the answer's body."""

    @model_validator(mode="after")
    def _body_of_get(self) -> "Params":
        if self.body is not None and self.method != "GET":
            raise ValueError(f"body: the answer to {self.method} has none to look into; set method to GET")
        return self


async def probe(link: Link, params: Params) -> Result:
    """Send the request and judge the answer.  Raises: PeerError."""
    request = Request(params.method, params.path, params.host)
    answer = await exchange(link, request, max_body_bytes=_MAX_BODY_BYTES if params.body is not None else 0)
    said = f"{request} answered {answer.status}{redirect(answer)}"
    if not any(within(answer.status, each) for each in params.status):
        return Result.failed(unexpected(request, answer, ", ".join(params.status), _HINTS))
    if params.header is not None and (missing := _missing_header(answer, params.header)):
        return Result.failed(f"{said}, but {missing}")
    if params.body is not None and params.body.encode() not in answer.body:
        return Result.failed(f"{said}, but without {params.body!r} in its first {len(answer.body)} bytes of body")
    return Result.passed(said)


def _missing_header(answer: Answer, wanted: str) -> str:
    name, _, text = wanted.partition(":")
    values = answer.values(name)
    if not values:
        return f"without the header {name}"
    found = any(text.strip() in value for value in values)
    return "" if found else f"{name} is {one_line(', '.join(values))!r}, expected {text.strip()!r} in it"


CHECK = Check(name="http", params=Params, probe=probe)
