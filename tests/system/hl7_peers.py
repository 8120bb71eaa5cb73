"""Real HL7 peers in Python: the packages `hl7` (command, clients, asyncio server) and `hl7apy` (server with threads).

And the messages that come inside of packages: in the examples of their documentation.
"""

import ast
import asyncio
import doctest
import importlib
import re
import ssl
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pytest

from tests.system.hl7_raw import END, PATIENCE_S, START, RawSender, answered, wrap

ONE_MESSAGE = "0s"  # the hl7.idle_timeout for receivers that take one message a connection
_LONGEST_LINE = 64 * 1024 * 1024


def package(name: str) -> Any:
    """Return a package that only these tests need, or skip the test."""
    return pytest.importorskip(name, reason=f"{name} is not tested: it is not installed")


@dataclass(frozen=True, slots=True)
class Sent:
    """What a sender put into its frames, and MSA-1 and MSA-2 of each answer."""

    contents: tuple[bytes, ...]
    answers: tuple[tuple[str, str] | None, ...]


class Receiver(Protocol):
    """A receiver that runs."""

    port: int

    @property
    def contents(self) -> list[bytes]:
        """Return what arrived, in order."""

    def close(self) -> None:
        """End it."""


Send = Callable[[int, Sequence[bytes]], Sent]


def raw_send(port: int, messages: Sequence[bytes]) -> Sent:
    """Send with a bare socket."""
    sender = RawSender(port)
    answers = tuple(sender.ask(message) for message in messages)
    sender.close()
    return Sent(tuple(messages), answers)


def mllp_send(port: int, messages: Sequence[bytes], folder: Path) -> Sent:
    """Send a file of messages with the command `mllp_send` of `hl7`, which takes the last CR away from each."""
    package("hl7")
    file = folder / f"to-{port}.hl7"
    file.write_bytes(b"".join(map(wrap, messages)))
    command = [sys.executable, "-m", "hl7.client", "--port", str(port), "--file", str(file), "127.0.0.1"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answers = [answered(part.lstrip(b"\n").removeprefix(START)) for part in done.stdout.split(END)[:-1]]
    return Sent(tuple(message.rstrip(b"\r") for message in messages), tuple(answers))


def client_send(port: int, messages: Sequence[bytes]) -> Sent:
    """Send with `hl7.client.MLLPClient`."""
    package("hl7")
    client = importlib.import_module("hl7.client")
    with client.MLLPClient("127.0.0.1", port) as connection:
        answers = [answered(connection.send_message(message)[1:].removesuffix(END)) for message in messages]
    return Sent(tuple(messages), tuple(answers))


def streams_send(port: int, messages: Sequence[bytes], tls: ssl.SSLContext | None = None) -> Sent:
    """Send with `hl7.mllp.open_hl7_connection`, parsed and written anew by the package."""
    hl7 = package("hl7")
    mllp = importlib.import_module("hl7.mllp")

    async def converse() -> list[tuple[str, str]]:
        name = None if tls is None else "localhost"
        reader, writer = await mllp.open_hl7_connection(
            "127.0.0.1", port, encoding="utf-8", ssl=tls, server_hostname=name, limit=_LONGEST_LINE
        )
        answers = []
        for message in messages:
            writer.writemessage(hl7.parse(message.decode()))
            await writer.drain()
            found = await asyncio.wait_for(reader.readmessage(), PATIENCE_S)
            answers.append((str(found.segment("MSA")[1]), str(found.segment("MSA")[2])))
        writer.close()
        return answers

    answers = asyncio.run(converse())
    return Sent(tuple(str(hl7.parse(message.decode())).encode() for message in messages), tuple(answers))


class StreamsReceiver:
    """`hl7.mllp.start_hl7_server`, in a loop and a thread of its own."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._hl7, self._mllp = package("hl7"), importlib.import_module("hl7.mllp")
        self.contents: list[bytes] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None] | None] = set()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(tls, started), daemon=True)
        self._thread.start()
        assert started.wait(PATIENCE_S)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)

    def _run(self, tls: ssl.SSLContext | None, started: threading.Event) -> None:
        start = self._mllp.start_hl7_server(self._serve, "127.0.0.1", 0, encoding="utf-8", ssl=tls, limit=_LONGEST_LINE)
        server = self._loop.run_until_complete(start)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: Any, writer: Any) -> None:
        try:
            while True:
                content = await reader.readblock()
                self.contents.append(content)
                writer.writemessage(self._hl7.parse(content.decode()).create_ack("AA"))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the other side has ended it
        finally:
            writer.close()


class ApyReceiver:
    """`hl7apy.mllp.MLLPServer`: a thread for each connection, which it ends after one message."""

    idle_timeout = ONE_MESSAGE

    def __init__(self) -> None:
        package("hl7apy")
        mllp, core, parser = (importlib.import_module(f"hl7apy.{name}") for name in ("mllp", "core", "parser"))
        self.contents: list[bytes] = []
        contents = self.contents

        def reply(handler: Any) -> str:
            contents.append(handler.incoming_message.encode())
            asked = parser.parse_message(handler.incoming_message, find_groups=False)
            answer = core.Message("ACK", version="2.5")
            answer.msh.msh_9 = "ACK"
            answer.msa.msa_1 = "AA"
            answer.msa.msa_2 = asked.msh.msh_10.to_er7()
            return str(answer.to_mllp())

        handler = type("Handler", (mllp.AbstractHandler,), {"reply": reply})

        class EveryKind(dict[str, Any]):
            def __missing__(self, kind: str) -> Any:
                if kind == "ERR":
                    raise KeyError(kind)
                return (handler,)

        self._server = mllp.MLLPServer("127.0.0.1", 0, EveryKind())
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


def messages_in_doctests(*modules: ModuleType) -> list[bytes]:
    """Return the messages that the examples in these modules' documentation write down."""
    found = []
    for module in modules:
        for test in doctest.DocTestFinder(exclude_empty=True).find(module):
            for example in test.examples:
                found += _messages_in(example.source)
    return found


def _messages_in(source: str) -> list[bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs write MSH-2 with a backslash that escapes nothing
        tree = ast.parse(source)
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    texts = [text for text in strings if isinstance(text, str) and text.startswith("MSH|^~\\&|")]
    return [text.replace("\n", "\r").rstrip("\r").encode() for text in texts if _is_whole(text)]


def messages_in_markdown(text: str) -> list[bytes]:
    """Return the messages that stand in a README by themselves, line by line."""
    found = re.findall(r"^(MSH\|.*(?:\n[A-Z][A-Z0-9]{2}\|.*)*)", text, re.MULTILINE)
    return [lines.replace("\n", "\r").encode() + b"\r" for lines in found if _is_whole(lines)]


def _is_whole(text: str) -> bool:
    """Say whether it has a control ID: some examples show what is wrong."""
    fields = re.split(r"[\r\n]", text)[0].split("|")
    return len(fields) > 11 and bool(fields[9])
