"""Peers of check `http`, from the bytes up: RFC 9112."""

import asyncio
from collections.abc import Mapping

from tests.unit.health.fake_peer import Script

LISTENS = True


def answering(answer: bytes) -> Script:
    """Read a request to its end, and answer."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    return script


def closing(script: Script) -> Script:
    """Follow `script`, and close."""

    async def then_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await script(reader, writer)
        writer.write_eof()

    return then_close


def status(line: str, *headers: str) -> bytes:
    return "".join(f"{each}\r\n" for each in (f"HTTP/1.1 {line}", *headers, "")).encode()


PROTOCOL = "; does it speak HTTP on this port, or HTTPS (health.tls)?"
HEALTHY: Script = answering(status("200 OK", "Content-Length: 5"))
SICK: Mapping[str, Script] = {
    "HEAD / answered 503, expected 200-399; the node's log says why": answering(
        status("503 Down", "Content-Length: 0")
    ),
    "HEAD / answered 401, expected 200-399; ask for a page that needs no log-in, or add 401 to "
    "health.status": answering(status("401 No", "Content-Length: 0")),
    "HEAD / answered 405, expected 200-399; set health.method to GET": answering(status("405 No")),
    "HEAD / answered 404, expected 200-399; correct health.path, or health.host where the server has several "
    "sites": answering(status("404 No")),
    f"no HTTP answer: illegal status line: bytearray(b'SSH-2.0-x'){PROTOCOL}": answering(b"SSH-2.0-x\r\n\r\n"),
    f"no HTTP answer: Received server _SWITCH_UPGRADE event without a pending proposal{PROTOCOL}": answering(
        status("101 Switching Protocols", "Upgrade: x", "Connection: upgrade")
    ),
}


def page(content: bytes, media_type: str = "text/html", line: str = "200 OK", *headers: str) -> bytes:
    """An answer with a body."""
    length = f"Content-Length: {len(content)}"
    return status(line, f"Content-Type: {media_type}", length, *headers) + content
