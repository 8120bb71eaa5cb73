"""What `render` makes, run by a real HAProxy in front of nodes that tell what reached them; clients that read all."""

import http.client
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from equipoise.app.wiring import catalogue
from equipoise.config.loading import load
from equipoise.engines.haproxy.artifact import DIRECTORY_VARIABLE, WORKER_SOCKET, Artifact, Pool
from equipoise.engines.haproxy.render import render
from equipoise.engines.haproxy.states import shown
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Plan
from equipoise.plan.states import NodeStates

PATIENCE_S = 15.0


def plan_of(services: str, resolved: Mapping[str, str | None] | None = None) -> Plan:
    """Return the plan of these services, written as in a document."""
    indented = "\n".join(f"  {line}" for line in services.strip("\n").splitlines())
    return compile_plan(load(f"site: x\nservices:\n{indented}\n", "f", catalogue()).site, HostFacts(resolved or {}))


def text_of(artifact: Artifact, states: NodeStates | None = None) -> str:
    return artifact.text(lambda line: shown(line, states or {}, ()))


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Say nothing: HAProxy's own check connects and goes."""


class Node:
    """A web server that answers with what it was asked, or as its path says: /slow, /break."""

    def __init__(self, name: str, context: ssl.SSLContext | None = None) -> None:
        node, self.name, self.asked = self, name, list[str]()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                node.asked.append(f"{self.command} {self.path}")
                if self.path == "/break":
                    self.close_connection = True
                    return
                time.sleep(1.5 if self.path == "/slow" else 0)
                told = {"node": name, "headers": [[key.lower(), value] for key, value in self.headers.items()]}
                body = json.dumps(told).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else body)

        for method in ("GET", "POST", "HEAD", "PUT"):
            setattr(Handler, f"do_{method}", Handler.answer)
        self._server = _Quiet(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes
    told: dict[str, str] = field(default_factory=dict)
    node: str = ""


def asked(
    connection: http.client.HTTPConnection, path: str = "/", method: str = "GET", body: bytes = b"", /, **headers: str
) -> Answer:
    """Return the answer; `told` are the headers that the node saw, and fails where it saw one twice."""
    named = {key.replace("__", "-"): value for key, value in headers.items()}
    connection.request(method, path, body=body or None, headers=named)
    response = connection.getresponse()
    answer = Answer(response.status, response.headers, response.read())
    if response.status == 200 and method != "HEAD":
        content = json.loads(answer.body)
        answer.node, answer.told = content["node"], dict(content["headers"])
        assert len(answer.told) == len(content["headers"]), content["headers"]
    return answer


class Running:
    """A HAProxy that runs a plan; `said` collects what it printed."""

    def __init__(self, directory: Path, artifact: Artifact) -> None:
        self.directory, self.artifact = directory, artifact

    @property
    def pool(self) -> Pool:
        return self.artifact.pools[0]

    def tell(self, command: str) -> str:
        """Return what the runtime socket answers."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(PATIENCE_S)
            link.connect(str(self.directory / WORKER_SOCKET))
            link.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: link.recv(65536), b"")).decode().strip()

    def states(self) -> dict[str, str]:
        """Return what HAProxy's statistics say of each server of the first pool."""
        head, *rows = [line.split(",") for line in self.tell("show stat").removeprefix("# ").splitlines()]
        rows = [row for row in rows if row[0] == self.pool.service and row[1] in self.pool.nodes]
        return {row[1]: f"{row[head.index('status')]} {row[head.index('check_status')]}" for row in rows}

    def wait_for(self, node: str, state: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while state not in self.states()[node]:
            assert time.monotonic() < deadline_s, self.states()
            time.sleep(0.05)


@contextmanager
def running(
    program: str,
    directory: Path,
    plan: Plan,
    files: Mapping[str, bytes] | None = None,
    states: NodeStates | None = None,
) -> Iterator[Running]:
    """Run what a plan means; `files` are the contents of certificates by their path in the document."""
    artifact = render(plan)
    for bundle in artifact.bundles:
        (directory / bundle.name).parent.mkdir(exist_ok=True)
        (directory / bundle.name).write_bytes(b"".join((files or {})[part] for part in bundle.parts))
    for page in artifact.pages:
        (directory / page.name).parent.mkdir(exist_ok=True)
        (directory / page.name).write_bytes(page.content)
    (directory / "haproxy.cfg").write_text(text_of(artifact, states))
    with (directory / "said").open("wb") as said:
        process = subprocess.Popen(
            [program, "-db", "-f", directory / "haproxy.cfg"],
            env={DIRECTORY_VARIABLE: str(directory), "PATH": os.environ["PATH"]},
            stdout=said,
            stderr=said,
        )
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not (directory / WORKER_SOCKET).exists():
            assert process.poll() is None, (directory / "said").read_text()
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        yield Running(directory, artifact)
    finally:
        process.kill()
        process.wait()
