"""A second machine joins over real sockets: with the right token, with all kinds of wrong ones, and through a thief."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from equipoise.api import peer
from equipoise.api.peer import PeerServer, serve_invitation, serve_pair
from equipoise.base.errors import EquipoiseError, PeerError
from equipoise.cluster.calls import HELLO, JOIN, MAX_JOIN_BYTES
from equipoise.cluster.conversation import RefusedError
from equipoise.cluster.identity import store_peer
from equipoise.cluster.invitation import LASTS_S, MAX_WRONG, Invitation, Token, read_token
from equipoise.cluster.joining import ask_to_join
from equipoise.cluster.link import Link
from equipoise.cluster.messages import Join, Joined
from equipoise.cluster.trust import joining_client
from tests.unit.api.two_halves import Half, Host, hello
from tests.unit.cluster.two_machines import Machine, SetClock, machine

LOOPBACK = "127.0.0.1"


class Stage:
    """The first machine invites, the second has the token."""

    def __init__(self, first: Machine, second: Machine, host: Host, server: PeerServer, clock: SetClock) -> None:
        self.first, self.second, self.host, self.server, self.clock = first, second, host, server, clock
        self.bugs: list[Any] = []

    @property
    def token(self) -> Token:
        return self.host.invitation.token

    async def join(self, token: Token | None = None, role: str = "secondary") -> tuple[Joined, str]:
        token = token or self.token
        asked = Join(secret=token.secret, certificate=self.second.identity.certificate, address="10.0.0.3", role=role)
        return await ask_to_join(LOOPBACK, self.server.port, LOOPBACK, token, asked)


@asynccontextmanager
async def staged(tmp_path: Path) -> AsyncIterator[Stage]:
    clock = SetClock()
    first, second = machine(tmp_path / "first"), machine(tmp_path / "second")
    host = Host(Invitation(first.identity.fingerprint, clock))
    bugs: list[Any] = []
    server = await serve_invitation(host, LOOPBACK, 0, first.identity.file, lambda *bug: bugs.append(bug))
    stage = Stage(first, second, host, server, clock)
    stage.bugs = bugs
    try:
        yield stage
    finally:
        await server.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_two_machines_that_joined_talk(tmp_path: Path, run: Callable[[Any], None]) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage:
            joined, certificate = await stage.join(read_token(str(stage.token)))
            assert joined == Joined(address="10.0.0.2", role="secondary")
            assert certificate == stage.first.identity.certificate
            store_peer(stage.second.state, certificate)
            store_peer(stage.first.state, stage.host.asked[0].certificate)
            port = stage.server.port
            await stage.server.close()
            pair = await serve_pair(Half(), LOOPBACK, port, stage.first.secured)
            link = Link(LOOPBACK, port, LOOPBACK, stage.second.secured)
            assert await link.hello(hello()) == hello("secondary")
            await link.close()
            await pair.close()

    run(play())


def test_a_token_joins_one_machine(tmp_path: Path) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage:
            await stage.join()
            with pytest.raises(RefusedError, match="used already"):
                await stage.join()

    asyncio.run(play())


def test_where_the_pair_is_served_already_a_token_is_of_no_use(tmp_path: Path) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage:
            await stage.join()
            store_peer(stage.first.state, stage.host.asked[0].certificate)
            await stage.server.close()
            stage.server = await serve_pair(Half(), LOOPBACK, stage.server.port, stage.first.secured)
            with pytest.raises(PeerError, match="no invitation seems to be open"):
                await stage.join()

    asyncio.run(play())


def test_a_token_that_is_over_joins_nobody(tmp_path: Path) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage:
            stage.clock.now_s += LASTS_S
            with pytest.raises(RefusedError, match="lasts 15 minutes"):
                await stage.join()

    asyncio.run(play())


def test_guessing_ends_the_invitation(tmp_path: Path) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage:
            guess = Token("A" * 16, stage.token.fingerprint)
            for _ in range(MAX_WRONG):
                with pytest.raises(RefusedError, match="does not know this token"):
                    await stage.join(guess)
            with pytest.raises(RefusedError, match="wrong secrets"):
                await stage.join()
            assert stage.bugs == []

    asyncio.run(play())


def test_a_mistyped_token_is_never_sent(tmp_path: Path) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage:
            line = str(stage.token)
            with pytest.raises(EquipoiseError, match="mistyped"):
                read_token(line[:-1] + ("A" if line[-1] != "A" else "B"))
            assert stage.host.asked == []

    asyncio.run(play())


def test_who_stands_between_gets_no_secret(tmp_path: Path) -> None:
    async def play() -> None:
        got = bytearray()
        connections = 0

        async def thief(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            try:
                while data := await reader.read(65536):
                    got.extend(data)
            except OSError:
                pass
            writer.close()

        async with staged(tmp_path) as stage:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(machine(tmp_path / "thief").identity.file)
            server = await asyncio.start_server(thief, LOOPBACK, 0, ssl=context)
            port = server.sockets[0].getsockname()[1]
            asked = Join(secret=stage.token.secret, certificate="", address="10.0.0.3", role="secondary")
            with pytest.raises(PeerError, match=r"not the one that made the token.*secret was not sent") as error:
                await ask_to_join(LOOPBACK, port, None, stage.token, asked)
            assert stage.token.secret not in str(error.value)
            server.close()
        assert connections == 1
        assert got == b""

    asyncio.run(play())


def test_who_changes_places_after_the_look_gets_no_secret(tmp_path: Path) -> None:
    """The second connection, too, stands only with the certificate that the first one saw."""

    async def play() -> None:
        async with staged(tmp_path) as stage:
            context = joining_client(machine(tmp_path / "thief").identity.certificate)
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection(LOOPBACK, stage.server.port, ssl=context)
            right = joining_client(stage.first.identity.certificate)
            _, writer = await asyncio.open_connection(LOOPBACK, stage.server.port, ssl=right)
            writer.transport.abort()

    asyncio.run(play())


def test_nobody_there_is_said_in_words(tmp_path: Path) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage:
            await stage.server.close()
            with pytest.raises(PeerError, match="nobody listens"):
                await stage.join()

    asyncio.run(play())


def test_another_program_there_is_said_in_words(tmp_path: Path) -> None:
    async def play() -> None:
        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(plain, LOOPBACK, 0)
        token = Token("A" * 16, bytes(16))
        asked = Join(secret=token.secret, certificate="", address="10.0.0.3", role="")
        with pytest.raises(PeerError, match="is another program on that port"):
            await ask_to_join(LOOPBACK, server.sockets[0].getsockname()[1], None, token, asked)
        server.close()

    asyncio.run(play())


def test_who_is_invited_may_ask_for_nothing_else(tmp_path: Path) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage:
            verify = joining_client(stage.first.identity.certificate)
            base_url = f"https://{LOOPBACK}:{stage.server.port}"
            async with httpx.AsyncClient(verify=verify, base_url=base_url, trust_env=False) as http:
                refused = await http.post(HELLO.path, content=b"{}")
                assert (refused.status_code, "has invited another machine" in refused.text) == (503, True)
                assert (await http.get("/api/v1/status")).status_code == 404
                assert (await http.post(JOIN.path, content=b" " * (MAX_JOIN_BYTES + 1))).status_code == 413
                answer = await http.post(JOIN.path, content=b'{"secret": 5}')
                assert (answer.status_code, "`$.secret`" in answer.text) == (400, True)
            assert stage.host.asked == []

    asyncio.run(play())


def test_who_is_invited_and_says_nothing_goes_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "INVITED_S", 0.2)

    async def play() -> None:
        async with staged(tmp_path) as stage, asyncio.timeout(20):
            context = joining_client(stage.first.identity.certificate)
            reader, writer = await asyncio.open_connection(LOOPBACK, stage.server.port, ssl=context)
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            assert stage.bugs == []

    asyncio.run(play())


def test_the_secret_stands_in_no_log_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage:
            with caplog.at_level(logging.DEBUG):
                with pytest.raises(RefusedError, match="is the primary") as error:
                    await stage.join(role="primary")
                with pytest.raises(RefusedError):
                    await stage.join()
            assert caplog.records, "httpx does log"
            assert stage.token.secret not in caplog.text
            assert stage.token.secret not in str(error.value)

    asyncio.run(play())
