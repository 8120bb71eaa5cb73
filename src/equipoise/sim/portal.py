"""A simulated web portal of a PACS: pages that say which node served them and what the client looks like to it.

A session that a log-in begins lives in the memory of its node alone, as in many real portals, so that a client which is
sent to another node is seen to lose it.  Leaves out images.  A process of its own:

    python -m equipoise.sim.portal --name a --port 0 --end-with-input

    GET, HEAD /           the page; header `x-served-by`, `x-session`: kept, none or lost
    GET, POST /login      begins a session                     GET /slow?seconds=N   an answer after N seconds
    any /echo             JSON: what arrived                   GET /big?bytes=N      N bytes
    GET /ws               a WebSocket that echoes              GET /counters         JSON: requests so far
    others                404; with --answer PATH=TEXT, that text; with --any-path, the page
"""

import argparse
import asyncio
import hashlib
import html
import json
import secrets
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie

from equipoise.base.errors import PeerError
from equipoise.sim.http_server import Exchange, Headers, Request
from equipoise.sim.node_process import arguments_of, run
from equipoise.sim.websocket import accept_key, echo

_SESSION_COOKIE = "PORTALSESSION"
_SHOWN = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "host")
_HTML, _JSON, _TEXT = "text/html; charset=utf-8", "application/json", "text/plain; charset=utf-8"
_LONGEST_S = 60.0
_PIECE = bytes(range(256)) * 256
_MOST_SESSIONS = 10_000


class Portal:
    """One node; `handle` answers a request."""

    def __init__(self, name: str, answers: Mapping[str, str], *, any_path: bool = False) -> None:
        self._name = name
        self._answers = answers
        self._any_path = any_path
        self._sessions: dict[str, None] = {}  # in their order: the oldest one ends where there are too many
        self._counts: Counter[str] = Counter()

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        request = exchange.request
        self._counts[f"{request.method} {request.path}"] += 1
        if (text := self._answers.get(request.path)) is not None:
            await exchange.answer(200, text.encode(), _TEXT, self._served())
            return
        match request.path:
            case "/":
                await self._page(exchange)
            case "/login":
                await self._login(exchange)
            case "/echo":
                await self._echo(exchange)
            case "/slow":
                await self._slow(exchange)
            case "/big":
                await self._big(exchange)
            case "/ws":
                await self._websocket(exchange)
            case "/counters":
                await self._answer_json(exchange, dict(self._counts))
            case _:
                await self._other(exchange)

    async def _other(self, exchange: Exchange) -> None:
        if self._any_path:
            await self._page(exchange)
        else:
            await exchange.answer(404, b"nothing here\n", _TEXT, self._served())

    async def _page(self, exchange: Exchange) -> None:
        session = self._session(exchange.request)
        rows = "".join(
            f"<tr><td>{name}</td><td>{html.escape(exchange.request.header(name)) or '-'}</td></tr>" for name in _SHOWN
        )
        page = (
            f"<!doctype html><title>Portal</title><h1>Served by {html.escape(self._name)}</h1>"
            f"<p>session {session}</p><p>you call from {exchange.request.peer}</p><table>{rows}</table>\n"
        )
        await exchange.answer(200, page.encode(), _HTML, [*self._served(), ("x-session", session)])

    async def _login(self, exchange: Exchange) -> None:
        async for _ in exchange.chunks():
            pass  # whoever comes is let in
        if len(self._sessions) >= _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        token = secrets.token_hex(16)
        self._sessions[token] = None
        cookie = ("set-cookie", f"{_SESSION_COOKIE}={token}; Path=/; HttpOnly")
        await exchange.answer(200, b"welcome\n", _TEXT, [*self._served(), cookie])

    def _session(self, request: Request) -> str:
        """Return `kept`, `none`, or `lost` where the client has a session that this node does not know."""
        token = _cookie(request, _SESSION_COOKIE)
        if token is None:
            return "none"
        if token not in self._sessions:
            self._counts["session lost"] += 1
            return "lost"
        return "kept"

    async def _echo(self, exchange: Exchange) -> None:
        digest, length = hashlib.sha256(), 0
        async for chunk in exchange.chunks():
            digest.update(chunk)
            length += len(chunk)
        request = exchange.request
        arrived = {
            "node": self._name,
            "peer": request.peer,
            "method": request.method,
            "path": request.path,
            "query": dict(request.query),
            "version": request.version,
            "headers": request.headers,
            "body": {"bytes": length, "sha256": digest.hexdigest()},
        }
        await self._answer_json(exchange, arrived)

    async def _slow(self, exchange: Exchange) -> None:
        await asyncio.sleep(min(_number(exchange.request, "seconds", 1.0), _LONGEST_S))
        await exchange.answer(200, b"at last\n", _TEXT, self._served())

    async def _big(self, exchange: Exchange) -> None:
        left = int(_number(exchange.request, "bytes", 1 << 20))
        headers = [("content-type", "application/octet-stream"), ("content-length", str(left)), *self._served()]
        await exchange.begin(200, headers)
        while left > 0 and exchange.request.method != "HEAD":
            await exchange.send(_PIECE[:left])
            left -= min(left, len(_PIECE))
        await exchange.end()

    async def _websocket(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.header("upgrade").lower() != "websocket" or not (key := request.header("sec-websocket-key")):
            await exchange.answer(426, b"a WebSocket\n", _TEXT, [("upgrade", "websocket"), *self._served()])
            return
        headers = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", accept_key(key))]
        reader, writer = await exchange.switch([*headers, *self._served()])
        with suppress(asyncio.IncompleteReadError, ConnectionError, PeerError):
            await echo(reader, writer)

    async def _answer_json(self, exchange: Exchange, content: object) -> None:
        await exchange.answer(200, json.dumps(content).encode() + b"\n", _JSON, self._served())

    def _served(self) -> Headers:
        return [("x-served-by", self._name)]


def _cookie(request: Request, name: str) -> str | None:
    try:
        cookies = SimpleCookie(request.header("cookie").replace(", ", "; "))
    except CookieError:
        return None
    return cookies[name].value if name in cookies else None


def _number(request: Request, name: str, default: float) -> float:
    try:
        return max(0.0, float(request.query.get(name, default)))
    except ValueError:
        raise PeerError(f"{name}={request.query[name]} is not a number") from None


def _answers(arguments: argparse.Namespace) -> dict[str, str]:
    pairs = [text.partition("=") for text in arguments.answer]
    return {path: answer for path, _, answer in pairs}


def main() -> None:
    """Serve until told to stop."""
    parser = arguments_of("portal", "A simulated web portal.")
    parser.add_argument("--answer", action="append", default=[], metavar="PATH=TEXT", help="answer so at this path")
    parser.add_argument("--any-path", action="store_true", help="the page at every other path, too")
    arguments = parser.parse_args()
    run(Portal(arguments.name, _answers(arguments), any_path=arguments.any_path).handle, arguments)


if __name__ == "__main__":
    main()
