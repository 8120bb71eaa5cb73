"""How nodes are called: what they hear first, what is said of those that fail, and that nothing stays open."""

import asyncio
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import uvloop

from equipoise.engines.gateway.arrival import Arrival
from equipoise.engines.gateway.calling import Caller, CallError
from equipoise.engines.gateway.relay import Event
from equipoise.engines.gateway.side import Side
from equipoise.plan.model import Node, NodeTls, ProxyProtocol
from equipoise.proto.proxy_protocol import encode
from tests.system.certificates import Authority
from tests.unit.engines.running import eventually, task

CLIENT, CALLED = ("192.0.2.7", 5000), ("192.0.2.100", 104)
ARRIVAL = Arrival(CLIENT, CALLED, 104)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class Owner:
    """What a side belongs to: it remembers what the side tells."""

    stall_timeout_s = 60.0

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.lost_count = 0
        self.side = Side(self, memoryview(bytearray(1 << 16)), is_client=False)

    def event(self, event: Event) -> None: ...

    def received(self, side: Side, data: memoryview) -> None: ...

    def drained(self, side: Side) -> None: ...

    def lost(self, side: Side, why: str | None = None) -> None:
        self.lost_count += 1


class Listener:
    """A node before it says anything: its connections are taken raw."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.port = int(self.sock.getsockname()[1])

    async def take(self) -> socket.socket:
        """Return the next connection."""
        connection = await self.take_if_any(20)
        assert connection is not None, "nobody connected"
        return connection

    async def take_if_any(self, within_s: float) -> socket.socket | None:
        """Return the next connection, if one is made soon."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                connection, _ = await asyncio.get_running_loop().sock_accept(self.sock)
                return connection
        return None

    def node(self, address: str | None = None) -> Node:
        return Node("a", address or f"127.0.0.1:{self.port}", "127.0.0.1", self.port, 100, None, backup=False)


async def heard(connection: socket.socket, count: int) -> bytes:
    """Return the first bytes of a connection."""
    found = b""
    async with asyncio.timeout(20):
        while len(found) < count:
            data = await asyncio.get_running_loop().sock_recv(connection, count - len(found))
            assert data, found
            found += data
    return found


async def is_gone(connection: socket.socket) -> bool:
    """Wait for the end of a connection."""
    async with asyncio.timeout(10):
        try:
            while await asyncio.get_running_loop().sock_recv(connection, 4096):
                pass
        except ConnectionError:
            return True
    return True


def caller(context: ssl.SSLContext | None = None, **settings: Any) -> Caller:
    return Caller(task("s", **settings), context)


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.ca_file))


def serving(authority: Authority, name: str = "node", **settings: Any) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(authority.issue(name, **settings).both)
    return made


def run(scene: Callable[[Listener], Awaitable[None]]) -> None:
    async def play() -> None:
        listener = Listener()
        try:
            async with asyncio.timeout(60):
                await scene(listener)
        finally:
            listener.sock.close()

    uvloop.run(play())


async def failure(called: Caller, node: Node, owner: Owner) -> CallError:
    with pytest.raises(CallError) as found:
        await called.call(node, ARRIVAL, owner.side)
    return found.value


def test_a_plain_node_hears_nothing_before_what_is_sent() -> None:
    async def scene(listener: Listener) -> None:
        owner = Owner()
        await caller().call(listener.node(), ARRIVAL, owner.side)
        owner.side.send(b"hello")
        assert await heard(await listener.take(), 5) == b"hello"
        owner.side.close(linger=False)
        await eventually(lambda: owner.lost_count)

    run(scene)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_the_header_comes_before_everything(version: str, secure: bool, authority: Authority) -> None:
    async def scene(listener: Listener) -> None:
        owner = Owner()
        context = trusting(authority) if secure else None
        called = caller(context, proxy_protocol=ProxyProtocol(send=version))
        call = asyncio.create_task(called.call(listener.node(), ARRIVAL, owner.side))
        connection = await listener.take()
        header = encode(version, CLIENT, CALLED)
        assert await heard(connection, len(header)) == header
        if secure:
            connection.setblocking(True)
            server = serving(authority)
            connection = await asyncio.to_thread(server.wrap_socket, connection, server_side=True)
        await call
        owner.side.send(b"hello")
        connection.setblocking(True)
        assert await asyncio.to_thread(connection.recv, 5) == b"hello"
        owner.side.close(linger=False)
        connection.close()
        await eventually(lambda: owner.lost_count)

    run(scene)


def test_a_node_without_a_port_is_called_on_the_port_that_the_client_came_to() -> None:
    async def scene(listener: Listener) -> None:
        owner = Owner()
        node = Node("a", "127.0.0.1", "127.0.0.1", None, 100, None, backup=False)
        await caller().call(node, Arrival(CLIENT, CALLED, listener.port), owner.side)
        owner.side.close(linger=False)
        await eventually(lambda: owner.lost_count)

    run(scene)


def test_the_source_address_is_the_services() -> None:
    async def scene(listener: Listener) -> None:
        owner = Owner()
        await caller(source_address="127.0.0.77").call(listener.node(), ARRIVAL, owner.side)
        assert (await listener.take()).getpeername()[0] == "127.0.0.77"
        owner.side.close(linger=False)
        await eventually(lambda: owner.lost_count)

    run(scene)


# What is said of those that fail


def test_a_node_that_refuses_is_its_own_fault() -> None:
    async def scene(listener: Listener) -> None:
        listener.sock.close()
        found = await failure(caller(), listener.node(), Owner())
        assert str(found) == f"127.0.0.1 port {listener.port}: Connection refused"
        assert not found.ours

    run(scene)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_an_address_that_is_not_here_is_ours(secure: bool, authority: Authority) -> None:
    async def scene(listener: Listener) -> None:
        called = caller(trusting(authority) if secure else None, source_address="192.0.2.1")
        found = await failure(called, listener.node(), Owner())
        assert found.ours
        assert "Cannot assign requested address" in str(found)

    run(scene)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_no_descriptor_is_ours(secure: bool, authority: Authority) -> None:
    async def scene(listener: Listener) -> None:
        context, owner = trusting(authority) if secure else None, Owner()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            found = await failure(caller(context), listener.node(), owner)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert found.ours
        assert "Too many open files" in str(found)

    run(scene)


async def with_server(
    authority: Authority, server: ssl.SSLContext, node_tls: dict[str, Any] | None = None
) -> CallError:
    """Call a node that serves so; return why it came to nothing."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(take, "127.0.0.1", 0, ssl=server)
    port = int(listening.sockets[0].getsockname()[1])
    node = Node("a", f"127.0.0.1:{port}", "127.0.0.1", port, 100, None, backup=False)
    settings = {} if node_tls is None else {"node_tls": NodeTls(None, "name", min_version="1.2", **node_tls)}
    try:
        return await failure(caller(trusting(authority), **settings), node, Owner())
    finally:
        listening.close()


def test_certificates_that_are_not_accepted_are_said_in_words(authority: Authority, tmp_path: Any) -> None:
    async def scene(listener: Listener) -> None:
        strange = Authority(tmp_path / "strange", "Strange CA")
        for server, words in {
            serving(authority, "old", days=-1): "has expired",
            serving(authority, "else", names=("a.example",), addresses=()): "is not for the name or address",
            serving(strange): "is not in node_tls.ca",
        }.items():
            found = await with_server(authority, server)
            assert words in str(found)
            assert str(found).startswith("127.0.0.1 port ")
            assert not found.ours
        fine = {"server_name": "a.example", "cert": None, "key": None, "fingerprint": "1"}
        found = await with_server(authority, serving(authority, "node"), fine)
        assert "a.example" in str(found), "server_name is what the certificate must be for"

    run(scene)


@pytest.mark.parametrize(("address", "name"), [("localhost.", None), ("127.0.0.1", "localhost.")])
def test_the_dot_of_the_root_is_in_no_certificate(address: str, name: str | None, authority: Authority) -> None:
    async def scene(listener: Listener) -> None:
        owner = Owner()
        settings = NodeTls(None, "name", name, None, None, "1.2", "1")
        called = caller(trusting(authority), node_tls=settings)
        call = asyncio.create_task(called.call(listener.node(f"{address}:{listener.port}"), ARRIVAL, owner.side))
        connection = await listener.take()
        connection.setblocking(True)
        node = await asyncio.to_thread(serving(authority, addresses=()).wrap_socket, connection, server_side=True)
        await call
        owner.side.close(linger=False)
        node.close()
        await eventually(lambda: owner.lost_count)

    run(scene)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"PACS V3\r\n", "does not speak TLS here"),
        (b"", "closed the connection during the handshake"),
        (b"\x16\x03\x03", "closed the connection during the handshake"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "refuses the handshake"),
    ],
)
@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
def test_a_node_that_ends_the_handshake_is_said_in_words(
    said: bytes, words: str, reset: bool, authority: Authority
) -> None:
    async def scene(listener: Listener) -> None:
        async def answer() -> None:
            connection = await listener.take()
            await heard(connection, 100 if reset else 5)
            connection.setblocking(True)
            connection.sendall(said)
            if not reset:
                connection.shutdown(socket.SHUT_WR)
                await asyncio.sleep(0.2)
            connection.close()  # what was not read makes it a reset

        answering = asyncio.create_task(answer())
        found = await failure(caller(trusting(authority)), listener.node(), Owner())
        await answering
        assert not found.ours
        if not reset:
            assert words in str(found)
        else:  # what was said may not have come through
            assert len(str(found)) > len(f"127.0.0.1 port {listener.port}: ")

    run(scene)


# Calls that are given up


@pytest.mark.parametrize("stage", ["begun", "connected", "in the handshake"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_call_that_is_cancelled_leaves_nothing_open(stage: str, secure: bool, authority: Authority) -> None:
    async def scene(listener: Listener) -> None:
        for turns in range(12):
            owner = Owner()
            context = trusting(authority) if secure else None
            call = asyncio.create_task(caller(context).call(listener.node(), ARRIVAL, owner.side))
            if stage == "begun":
                for _ in range(turns):
                    await asyncio.sleep(0)
                call.cancel()
                await asyncio.wait([call])
            connection = await listener.take_if_any(0.1 if stage == "begun" else 20)
            if connection is None:
                continue  # it was given up before it had begun
            if stage == "in the handshake" and secure:
                await heard(connection, 5)
            if stage != "begun":
                call.cancel()
                await asyncio.wait([call])
            if not call.cancelled():  # it was quicker: the side is the association's, which closes it
                assert call.exception() is None
                owner.side.close(linger=False)
            assert await is_gone(connection)
            connection.close()

    run(scene)


def test_a_node_is_never_called_in_the_clear_when_the_files_of_its_tls_cannot_be_used() -> None:
    async def scene(listener: Listener) -> None:
        missing = NodeTls("/nowhere/missing.pem", "name", None, None, None, "1.2", "1")
        found = await failure(caller(None, node_tls=missing), listener.node(), Owner())
        assert found.ours
        assert "node_tls" in str(found)
        assert await listener.take_if_any(0.1) is None

    run(scene)
