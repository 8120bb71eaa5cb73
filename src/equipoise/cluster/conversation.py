"""Requests to one machine over TLS, and words for a person where they fail.

Connections are kept and come from one address.  Every request has a deadline as a whole, and every answer a bound.
Leaves out what is asked: that is `link` and `joining`.
"""

import asyncio
import errno
import ssl
from collections.abc import Iterator
from typing import TypeVar

import httpx
import msgspec

from equipoise.base.errors import PeerError
from equipoise.cluster.calls import CHANGE_S, Call
from equipoise.plan.model import Endpoint

# A document may take minutes while greetings go on beside it, and soft state beside both.
MAX_CONNECTIONS = 8
# Less than the server keeps one, so that no request goes into a connection that is just being closed.
_KEEP_S = 20.0
_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)
_UNKNOWN_HERE = ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "CERTIFICATE_REQUIRED", "ACCESS_DENIED")
_JOIN_AGAIN = "join the two machines again (`equipoise cluster join`)"

_Asked = TypeVar("_Asked", bound=msgspec.Struct)
_Answered = TypeVar("_Answered", bound=msgspec.Struct)


class RefusedError(PeerError):
    """The other machine understood, and said in words why it does not do it."""


class OtherVersionError(PeerError):
    """The other machine runs another version, and does not understand what this one says."""


class Conversation:
    """With the machine at one address and port."""

    def __init__(self, machine: Endpoint, source_address: str | None, context: ssl.SSLContext) -> None:
        self._machine = machine
        self._source = source_address
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                verify=context,
                trust_env=False,
                local_address=source_address,
                limits=httpx.Limits(
                    max_connections=MAX_CONNECTIONS,
                    max_keepalive_connections=MAX_CONNECTIONS,
                    keepalive_expiry=_KEEP_S,
                ),
            ),
            base_url=f"https://{machine}",
            headers={"content-type": "application/json", "accept-encoding": "identity"},
            timeout=CHANGE_S,  # of one part; the deadline of the whole request is shorter
            trust_env=False,  # neither a proxy nor another list of authorities
        )

    async def close(self) -> None:
        """End its connections."""
        await self._http.aclose()

    async def ask(self, call: Call[_Asked, _Answered], message: _Asked) -> _Answered:
        """Send a message and return the answer.  Raises: PeerError."""
        body = msgspec.json.encode(message)
        if len(body) > call.max_bytes:
            raise PeerError(f"{call.name} would be {len(body)} bytes, the peer takes {call.max_bytes} at most")
        try:
            async with (
                asyncio.timeout(call.timeout_s),
                self._http.stream("POST", call.path, content=body) as response,
            ):
                content = await _bounded(response, call.max_bytes)
        except (httpx.HTTPError, OSError) as error:  # TimeoutError and ssl.SSLError are among the latter
            raise PeerError(why_unanswered(error, self._machine, self._source, call.timeout_s)) from None
        if response.status_code != httpx.codes.OK:
            raise self._failure(response.status_code, content)
        try:
            return msgspec.json.decode(content, type=call.answered)
        except msgspec.DecodeError as error:
            raise PeerError(f"the answer of {self._machine} to {call.name} makes no sense: {error}") from None

    def _failure(self, status: int, content: bytes) -> PeerError:
        said = _said(content)
        match status:
            case httpx.codes.CONFLICT:
                return RefusedError(said)
            case httpx.codes.UPGRADE_REQUIRED:
                return OtherVersionError(said)
        return PeerError(f"the machine at {self._machine} answered {status}: {said}")


def why_unanswered(error: BaseException, machine: Endpoint, source: str | None, timeout_s: float) -> str:
    """Return why there was no answer, and what to do."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return (
            f"the machine at {machine} did not answer within {timeout_s:g} s: it is off, overloaded, or a firewall "
            f"between the two drops what is for port {machine.port}"
        )
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and cause.reason and "EOF" not in cause.reason:  # not: it wants to read
            return _why_not_secured(cause, machine)
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno is not None:
            return _why_not_connected(cause, machine, source)
    return (
        f"the machine at {machine} ended the conversation: its supervisor was stopped, or it does not know this "
        f"machine's certificate; look there with `equipoise cluster status`, and {_JOIN_AGAIN} if it persists"
    )


def _why_not_secured(error: ssl.SSLError, machine: Endpoint) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the machine at {machine} shows another certificate than this machine's peer; {_JOIN_AGAIN}"
    reason = error.reason or "no reason given"
    if reason.endswith(_UNKNOWN_HERE):
        return f"the machine at {machine} does not know this machine's certificate; {_JOIN_AGAIN}"
    said = reason.lower().replace("_", " ")
    return f"what listens at {machine} does not speak TLS as a peer does ({said}); is another program on that port?"


def _why_not_connected(error: OSError, machine: Endpoint, source: str | None) -> str:
    if error.errno == errno.ECONNREFUSED:
        return f"nobody listens at {machine}; is equipoise running there, as one of a pair?"
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"this machine does not have the address {source}, from which it talks to {machine}; put it on an "
            "interface, or correct `cluster.address`"
        )
    if error.errno in _NO_WAY:
        return f"there is no way to {machine} ({error.strerror}); look at the cable, the switch and the routes"
    return (
        f"the connection to {machine} broke ({error.strerror}): the supervisor there was stopped, or it does not know "
        f"this machine's certificate; look there with `equipoise cluster status`, and {_JOIN_AGAIN} if it persists"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it, down to the system's own; several attempts come as a group."""
    waiting, seen = [error], 0
    while waiting and seen < 50:
        cause, seen = waiting.pop(0), seen + 1
        yield cause
        waiting += [each for each in (cause.__cause__, cause.__context__) if each is not None]
        waiting += cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()


async def _bounded(response: httpx.Response, max_bytes: int) -> bytes:
    content = bytearray()
    async for part in response.aiter_raw():
        content += part
        if len(content) > max_bytes:
            raise PeerError(f"{response.url.host} answers with more than {max_bytes} bytes, the most that is taken")
    return bytes(content)


class _Wrong(msgspec.Struct):
    error: str


def _said(content: bytes) -> str:
    try:
        return msgspec.json.decode(content, type=_Wrong).error
    except msgspec.DecodeError:
        return content[:200].decode(errors="replace")  # not of our application: uvicorn's own 503 is plain text
