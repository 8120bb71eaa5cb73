"""What is served to another machine: the calls of `cluster.calls`, each a POST with JSON both ways.

Who is asking is settled before (`peer_entrance`).  400 the message makes no sense; 404 no such call; 408 it does not
come to an end; 409 it is refused, in words; 413 too long; 426 another version of the messages; 500 a bug of ours; 503
this machine invites another one meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from equipoise.api.quiet_server import OnBug
from equipoise.base.errors import EquipoiseError
from equipoise.cluster.calls import (
    FETCH,
    HAND_OVER,
    HELLO,
    JOIN,
    LEAVE,
    TAKE,
    TAKE_OVERRIDES,
    TAKE_SOFT,
    WOULD_TAKE,
    Call,
    Fetch,
    Leave,
    other_version,
)
from equipoise.cluster.messages import VERSION, Answer, Document, Hello
from equipoise.cluster.ports import Inviting, Pair

MESSAGE_S = 30.0  # for a message to come in whole

_UNKNOWN = "there is no such call; update the older one of the two machines"
_INVITES = (
    "it has invited another machine, and hears its peer again once that is over; `equipoise cluster leave` there takes "
    "the invitation back"
)

_Asked = TypeVar("_Asked", bound=msgspec.Struct)
_Answered = TypeVar("_Answered", bound=msgspec.Struct)


def pair_application(pair: Pair, on_bug: OnBug) -> Starlette:
    """Return what the peer may ask."""

    async def hello(said: Hello) -> Hello:
        if said.version != VERSION:
            raise HTTPException(426, other_version(said.version))
        return await pair.hear_hello(said)

    async def document(_: Fetch) -> Document:
        return await pair.document()

    async def leave(_: Leave) -> Answer:
        return await pair.peer_leaves()

    return _application(
        [
            _route(HELLO, hello),
            _route(WOULD_TAKE, pair.would_take),
            _route(TAKE, pair.take),
            _route(FETCH, document),
            _route(TAKE_OVERRIDES, pair.take_overrides),
            _route(TAKE_SOFT, pair.take_soft),
            _route(HAND_OVER, pair.hand_over),
            _route(LEAVE, leave),
        ],
        on_bug,
    )


def invitation_application(inviting: Inviting, on_bug: OnBug) -> Starlette:
    """Return what a machine may ask that nobody knows yet."""
    return _application([_route(JOIN, inviting.join)], on_bug, (503, _INVITES))


def _route(call: Call[_Asked, _Answered], do: Callable[[_Asked], Awaitable[_Answered]]) -> Route:
    async def endpoint(request: Request) -> Response:
        content = await _content(request, call.max_bytes)
        try:
            asked = msgspec.json.decode(content, type=call.asked)
        except msgspec.DecodeError as error:  # it names the field, and never its value
            raise HTTPException(400, f"the message makes no sense here: {error}") from None
        return _json(200, await do(asked))

    return Route(call.path, endpoint, methods=["POST"])


async def _content(request: Request, max_bytes: int) -> bytes:
    content = bytearray()
    try:
        async with asyncio.timeout(MESSAGE_S):
            async for part in request.stream():
                content += part
                if len(content) > max_bytes:
                    said = f"the message has more than {max_bytes} bytes, the most that is taken"
                    raise HTTPException(413, said, headers={"connection": "close"})  # the rest is not read
    except TimeoutError:
        said = f"the message did not come in whole within {MESSAGE_S:g} s"
        raise HTTPException(408, said, headers={"connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the message broke off") from None  # nobody reads this
    return bytes(content)


def _application(routes: list[Route], on_bug: OnBug, otherwise: tuple[int, str] = (404, _UNKNOWN)) -> Starlette:
    async def of_other_version(request: Request) -> Response:
        theirs = request.path_params["version"]
        if theirs == VERSION:
            raise HTTPException(*otherwise)
        raise HTTPException(426, other_version(theirs))

    async def refused(_: Request, error: Exception) -> Response:
        return _wrong(409, str(error))

    async def not_served(_: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        answer = _wrong(error.status_code, error.detail)
        answer.headers.update(error.headers or {})
        return answer

    async def bug(request: Request, error: Exception) -> Response:
        on_bug(f"api.peer {request.method} {request.url.path}", error)
        # Its text stays here: it may hold what the message held.
        return _wrong(500, f"a bug in Equipoise: {type(error).__name__}; please report it, with the events there")

    return Starlette(
        routes=[*routes, Route("/pair/v{version:int}/{call:path}", of_other_version, methods=["POST"])],
        exception_handlers={EquipoiseError: refused, HTTPException: not_served, Exception: bug},
    )


def _json(status: int, content: object) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _wrong(status: int, text: str) -> Response:
    return _json(status, {"error": text})
