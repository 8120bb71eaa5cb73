"""Check `http`: one request.  Passes when the status, and where asked a header and the body, are as expected.

The connection is made for this request and closed behind it; redirects are not followed, they are answers.  Leaves out
logging in: a page that says whether the server is well should not need it.
Source: RFC 9110 (methods, status codes), RFC 9112 (messages), read by h11.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import h11
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from equipoise.base.errors import PeerError
from equipoise.config.base import CheckParams
from equipoise.health.base import Check, Link, Result, one_line

_MAX_HEAD_BYTES = 64 * 1024
_MAX_BODY_BYTES = 64 * 1024  # a page that says "well" is short; what follows is not read
_STATUS = re.compile(r"([1-5]\d\d)(?:-([1-5]\d\d))?\Z")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+): *([ -~]*)\Z")  # RFC 9110 section 5.1: a token


def _status(text: str) -> str:
    match = _STATUS.match(text)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise ValueError(f"{text!r} is not a status; write one such as 200, or a range such as 200-299")
    return text


def _path(text: str) -> str:
    if not re.fullmatch(r"/[!-~]*", text):
        raise ValueError(f"{text!r} is not a path; it starts with / and has no spaces, such as /health?deep=1")
    return text


def _host(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError(f"{text!r} is not a host; write for example viewer.example or viewer.example:8080")
    return text


def _header(text: str) -> str:
    if not _HEADER.match(text):
        raise ValueError(f"{text!r} is not a header; write its name, a colon, and text that must be in its value")
    return text


def _listed(value: object) -> object:
    return [value] if isinstance(value, str | int) else value


StatusRange = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    AfterValidator(_status),
    WithJsonSchema({"type": ["string", "integer"], "pattern": r"^[1-5]\d\d(-[1-5]\d\d)?$", "title": "status"}),
]

Statuses = Annotated[
    tuple[StatusRange, ...],
    Field(min_length=1, max_length=16),
    BeforeValidator(_listed, json_schema_input_type=StatusRange | list[StatusRange]),
]


class Params(CheckParams):
    """What is asked, and what must come back."""

    method: Literal["HEAD", "GET", "OPTIONS"] = "HEAD"
    """The method; `GET` where the body is to be looked at."""
    path: Annotated[str, AfterValidator(_path)] = "/"
    """What is asked for."""
    host: Annotated[str, AfterValidator(_host)] | None = None
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


@dataclass(slots=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytearray = field(default_factory=bytearray)


async def probe(link: Link, params: Params) -> Result:
    """Send the request and judge the answer.  Raises: PeerError."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
    headers = [("Host", params.host or link.peer), ("User-Agent", "equipoise"), ("Accept", "*/*")]
    request = h11.Request(method=params.method, target=params.path, headers=[*headers, ("Connection", "close")])
    await link.send((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    return _judged(await _answer(link, connection, params.body is not None), params)


async def _answer(link: Link, connection: h11.Connection, with_body: bool) -> _Answer:
    while isinstance(head := await _next_event(link, connection), h11.InformationalResponse):
        pass
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
    answer = _Answer(head.status_code, headers)
    while with_body and len(answer.body) < _MAX_BODY_BYTES:
        event = await _next_event(link, connection)
        if not isinstance(event, h11.Data):
            break
        answer.body += event.data[: _MAX_BODY_BYTES - len(answer.body)]
    return answer


async def _next_event(link: Link, connection: h11.Connection) -> Any:
    try:
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await link.receive())
    except h11.RemoteProtocolError as error:
        said = one_line(str(error))
        raise PeerError(f"no HTTP answer: {said}; does it speak HTTP on this port, or HTTPS (health.tls)?") from None
    return event


def _judged(answer: _Answer, params: Params) -> Result:
    asked = f"{params.method} {one_line(params.path)}"
    said = f"{asked} answered {answer.status}{_redirect(answer)}"
    if not any(_within(answer.status, each) for each in params.status):
        return Result.failed(f"{said}, expected {', '.join(params.status)}{_hint(answer.status)}")
    if params.header is not None and (missing := _missing_header(answer, params.header)):
        return Result.failed(f"{said}, but {missing}")
    if params.body is not None and params.body.encode() not in answer.body:
        return Result.failed(f"{said}, but without {params.body!r} in its first {len(answer.body)} bytes of body")
    return Result.passed(said)


def _within(status: int, text: str) -> bool:
    first, _, last = text.partition("-")
    return int(first) <= status <= int(last or first)


def _missing_header(answer: _Answer, wanted: str) -> str:
    name, _, text = wanted.partition(":")
    values = [value for key, value in answer.headers if key.lower() == name.lower()]
    if not values:
        return f"without the header {name}"
    found = any(text.strip() in value for value in values)
    return "" if found else f"{name} is {one_line(', '.join(values))!r}, expected {text.strip()!r} in it"


def _redirect(answer: _Answer) -> str:
    places = [value for key, value in answer.headers if key.lower() == "location"]
    return f" to {one_line(places[0])}" if places and _within(answer.status, "300-399") else ""


def _hint(status: int) -> str:
    hints = {
        301: "; set health.path, or health.tls, to where it leads",
        302: "; set health.path, or health.tls, to where it leads",
        400: "; a server with several sites wants its name in health.host",
        401: "; ask for a page that needs no log-in, or add 401 to health.status",
        403: "; allow this balancer there, or ask for another health.path",
        404: "; correct health.path, or health.host where the server has several sites",
        405: "; set health.method to GET",
        501: "; set health.method to GET",
    }
    return hints.get(status, "; the node's log says why" if status >= 500 else "")


CHECK = Check(name="http", params=Params, probe=probe)
