"""A simulated user of the web portal: a log-in, then page after page, with the cookies that a browser would keep.

It notices when its session is gone, which a portal keeps in the memory of one node, and logs in again.
Source: RFC 6265 section 5.4 (which cookies go back); RFC 9112 section 9.3.1 (a kept connection that is gone).
"""

import threading
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.cookies import SimpleCookie

from equipoise.base.clock import Clock
from equipoise.sim.ledger import Ledger, Mishap
from equipoise.sim.peers import Peer

_TIMEOUT_S = 10.0


class RequestError(Exception):
    """A page did not come as it should; the text is the reason alone."""


class Browser:
    """One user; `run` it in a thread."""

    def __init__(
        self,
        web: Peer,
        *,
        clock: Clock,
        ledger: Ledger,
        stop: threading.Event,
        pause_s: float,
        source: str | None = None,
    ) -> None:
        self._web = web
        self._clock = clock
        self._ledger = ledger
        self._stop = stop
        self._pause_s = pause_s
        self._source = source
        self._cookies: dict[str, str] = {}
        self._node = ""
        self._connection: HTTPConnection | None = None

    def run(self) -> None:
        """Log in and read pages until told to stop."""
        while not self._stop.wait(self._pause_s):
            self.visit()
        self._disconnect()

    def visit(self) -> None:
        """Log in where there is no session, else read one page; what comes of it goes into the ledger."""
        began_s, before = self._clock.monotonic(), self._node
        try:
            if not before:
                self._node = self._ask("POST", "/login").headers.get("x-served-by", "")
                self._ledger.logged_in()
                return
            response = self._ask("GET", "/")
        except RequestError as error:
            self._ledger.page_failed(Mishap(before, began_s, self._clock.monotonic(), str(error)))
            return
        if response.headers.get("x-session") == "kept":
            self._ledger.page()
        else:
            said = f"{before} → {response.headers.get('x-served-by', '')}"
            self._ledger.session_lost(Mishap(before, began_s, self._clock.monotonic(), said))
            self._node = ""

    def _ask(self, method: str, path: str) -> HTTPResponse:
        """Return a good answer, read to its end.  Raises: RequestError."""
        was_open = self._connection is not None
        try:
            response = self._exchange(method, path)
        except (OSError, HTTPException) as error:
            self._disconnect()
            if was_open and method == "GET" and isinstance(error, ConnectionError):
                return self._ask(method, path)  # RFC 9112 section 9.3.1: it was closed while nobody looked
            raise RequestError(f"{error or type(error).__name__}") from None
        if response.will_close:
            self._disconnect()
        for text in response.headers.get_all("set-cookie", []):
            self._cookies |= {name: one.value for name, one in SimpleCookie(text).items()}
        if response.status != 200:
            raise RequestError(f"answered {response.status} {response.reason}")
        return response

    def _exchange(self, method: str, path: str) -> HTTPResponse:
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        connection = self._connection or self._connect()
        connection.request(method, path, headers={"Cookie": cookies} if cookies else {})
        response = connection.getresponse()
        response.read()
        return response

    def _connect(self) -> HTTPConnection:
        source = (self._source, 0) if self._source else None
        connection = HTTPConnection(self._web.host, self._web.port, timeout=_TIMEOUT_S, source_address=source)
        self._connection = connection
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
