"""One HTTP/1.1 request of a check and its answer, as much of it as is needed; shared by every check that speaks HTTP.

The connection is made for this request and closed behind it; redirects are answers.  Leaves out what an answer means,
compressed bodies, which are not asked for, and logging in.  Nothing of a body goes into a message: it may be a
patient's.
Source: RFC 9110 (methods, status codes, fields), RFC 9112 (messages), read by h11; RFC 8259 (JSON).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h11

from equipoise.base.errors import PeerError
from equipoise.health.base import Link, one_line

_MAX_HEAD_BYTES = 64 * 1024
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64}\Z")  # RFC 6838 section 4.2
_HINTS = {
    **dict.fromkeys((301, 302, 307, 308), "set health.path, or health.tls, to where it leads"),
    400: "a server with several sites wants its name in health.host",
    401: "it needs a log-in; let this balancer ask without one, or use check http with status 401",
    403: "allow this balancer there",
    404: "correct health.path, or health.host where the server has several sites",
    421: "set health.host to the server's name",
    429: "the node thinks that it is asked too often; set health.interval",
}

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked.

    Attributes:
        host: The Host field; None for the node's address and port.
        headers: Beside Host, User-Agent, Content-Length and those that a check may not choose.
        body: Empty: without one.
        called: How it is named in a reason; by default by method and target.
    """

    method: str
    target: str
    host: str | None = None
    headers: Headers = (("Accept", "*/*"),)
    body: bytes = b""
    called: str = ""

    def __str__(self) -> str:
        return self.called or f"{self.method} {one_line(self.target)}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came.

    Attributes:
        body: Its beginning, as much as was asked for.
        whole: Whether that is all of it.
    """

    status: int
    headers: Headers
    body: bytes
    whole: bool

    def values(self, name: str) -> list[str]:
        """Return every value of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def content_type(self) -> str:
        """The Content-Type field, with its parameters; empty where there is none."""
        return next(iter(self.values("content-type")), "")

    @property
    def media_type(self) -> str:
        """The media type as it may stand in a reason: without parameters, and only where it is one."""
        text = self.content_type.partition(";")[0].strip().lower()
        return text if _MEDIA_TYPE.match(text) else "no media type"


async def exchange(link: Link, request: Request, *, max_body_bytes: int) -> Answer:
    """Send the request and return the answer; a body is read up to the limit.  Raises: PeerError."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
    await link.send(_encoded(connection, request, link.peer))
    while isinstance(head := await _next_event(link, connection), h11.InformationalResponse):
        pass
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
    body, whole = bytearray(), False
    while not whole and len(body) < max_body_bytes:
        event = await _next_event(link, connection, len(body))
        if isinstance(event, h11.Data):
            body += event.data
        else:
            whole = True
    return Answer(head.status_code, headers, bytes(body[:max_body_bytes]), whole and len(body) <= max_body_bytes)


def _encoded(connection: h11.Connection, request: Request, peer: str) -> bytes:
    headers = [("Host", request.host or peer), ("User-Agent", "equipoise"), *request.headers]
    headers += [("Accept-Encoding", "identity"), ("Connection", "close")]
    if request.body:
        headers.append(("Content-Length", str(len(request.body))))
    events: list[Any] = [h11.Request(method=request.method, target=request.target, headers=headers)]
    events += [h11.Data(data=request.body)] if request.body else []
    return b"".join(connection.send(event) or b"" for event in (*events, h11.EndOfMessage()))


async def _next_event(link: Link, connection: h11.Connection, body_bytes: int | None = None) -> Any:
    try:
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await link.receive())
    except h11.RemoteProtocolError as error:
        if body_bytes is not None:  # h11 would quote the body
            raise PeerError(
                f"the HTTP answer broke off after {body_bytes} bytes of body; the node's log says why"
            ) from None
        said = one_line(str(error))
        raise PeerError(f"no HTTP answer: {said}; does it speak HTTP on this port, or HTTPS (health.tls)?") from None
    return event


def read_json(answer: Answer) -> Any:
    """Return what a whole body says in JSON.  Raises: ValueError, which says nothing of the content."""
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):  # not JSON, not text, a number without end; lists in lists without end
        raise ValueError("not JSON") from None


def unexpected(request: Request, answer: Answer, expected: str, hints: Mapping[int, str]) -> str:
    """Return the reason for a status that was not expected; `hints` replace those for everybody."""
    return f"{request} answered {answer.status}{redirect(answer)}, expected {expected}{_hint(answer.status, hints)}"


def redirect(answer: Answer) -> str:
    """Return where a redirect leads, in words; empty for another answer."""
    places = answer.values("location")
    return f" to {one_line(places[0])}" if places and within(answer.status, "300-399") else ""


def _hint(status: int, hints: Mapping[int, str]) -> str:
    said = {**_HINTS, **hints}.get(status, "the node's log says why" if status >= 500 else "")
    return f"; {said}" if said else ""


def below(base: str, place: str) -> str:
    """Return the path of a place of a service; `base` may be the root."""
    return base.rstrip("/") + place


def within(status: int, text: str) -> bool:
    """Say whether a status is the one, or in the range, that a setting names."""
    first, _, last = text.partition("-")
    return int(first) <= status <= int(last or first)
