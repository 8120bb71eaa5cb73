"""Peers of check `tls`: a TLS server on a plain stream, so that the suite can drip its bytes."""

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.system.certificates import Authority
from tests.unit.health.fake_peer import Script
from tests.unit.health.plans import node_tls

LISTENS = True
NODE_TLS = node_tls(verify="none")
LATE = "connected, but no TLS within 0.3 s; does the node speak TLS on this port?"


@cache
def server(days: float = 30, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return a context with a certificate of nobody that the system trusts."""
    with tempfile.TemporaryDirectory() as directory:
        issued = Authority(Path(directory)).issue("pacs.example", names=("pacs.example",), addresses=(), days=days)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.both)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def speaking_tls(context: ssl.SSLContext, *, says_goodbye: bool = True) -> Script:
    """Make the handshake and wait for the end of what comes; then answer it, or keep the connection open."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secured = context.wrap_bio(incoming, outgoing, server_side=True)
        steps = (secured.do_handshake, secured.read, secured.unwrap) if says_goodbye else (secured.do_handshake,)
        try:
            for step in steps:
                with contextlib.suppress(ssl.SSLZeroReturnError):
                    await _take(step, Wire(reader, writer, incoming, outgoing))
        except ssl.SSLError:
            writer.write(outgoing.read())  # the alert
            writer.close()

    return script


@dataclass(frozen=True, slots=True)
class Wire:
    """A stream and what OpenSSL reads and writes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO


async def _take(step: Callable[[], object], wire: Wire) -> None:
    while True:
        try:
            step()
        except ssl.SSLWantReadError:
            wire.writer.write(wire.outgoing.read())
            data = await wire.reader.read(4096)
            if not data:
                return
            wire.incoming.write(data)
        else:
            wire.writer.write(wire.outgoing.read())
            return


HEALTHY: Script = speaking_tls(server())
SICK: Mapping[str, Script] = {
    "certificate of pacs.example, it ended 2 days ago; have it renewed at the node": speaking_tls(server(days=-2.5)),
}
