"""A simulated node as a program: its arguments, its line when it is ready, its end.

It prints one JSON line with its port once it listens, and ends on SIGTERM or, where asked, with its standard input.
Source: ours; `sim/archive.py` behaves likewise.
"""

import argparse
import asyncio
import json
import signal
import ssl
import sys
import threading
from pathlib import Path
from typing import Protocol

from equipoise.sim.http_server import Handler, HttpServer


class Server(Protocol):
    """What listens at a port."""

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen and return the port.  Raises: OSError."""

    def stop(self) -> None:
        """Stop listening; what is open ends with the process."""


def arguments_of(module: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments that all nodes have."""
    parser = argparse.ArgumentParser(prog=f"python -m equipoise.sim.{module}", description=description)
    parser.add_argument("--name", default="node", help="what the node calls itself in its answers")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--certificate", type=Path, help="PEM file of certificate and key: speak TLS with it")
    parser.add_argument("--end-with-input", action="store_true", help="end when standard input ends: with the parent")
    return parser


def run(handler: Handler, arguments: argparse.Namespace) -> None:
    """Serve HTTP until SIGTERM, SIGINT or the end of standard input.  Raises: OSError."""
    serve(HttpServer(handler), arguments)


def serve(server: Server, arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM, SIGINT or the end of standard input.  Raises: OSError."""
    asyncio.run(_run(server, arguments))


async def _run(server: Server, arguments: argparse.Namespace) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if arguments.end_with_input:
        threading.Thread(target=_watch_input, args=(loop, ended), daemon=True).start()
    port = await server.start(arguments.host, arguments.port, _tls(arguments.certificate))
    ready = {"ready": True, "name": arguments.name, "host": arguments.host, "port": port}
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    await ended.wait()
    server.stop()


def _watch_input(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    sys.stdin.buffer.read()  # returns when the process that holds the other end is gone, however it went
    loop.call_soon_threadsafe(ended.set)


def _tls(certificate: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
