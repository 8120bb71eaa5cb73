"""The peer's server and its client, over real sockets."""

import asyncio
import gc
import socket
import ssl
import subprocess
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import uvloop

from equipoise.api import peer_entrance
from equipoise.api.peer import PeerServer, serve_pair
from equipoise.api.peer_entrance import MAX_STRANGERS, Entrance
from equipoise.api.quiet_server import tell_the_loop
from equipoise.base.errors import EquipoiseError, PeerError
from equipoise.base.tasks import Tasks
from equipoise.cluster.calls import HELLO, MAX_MESSAGE_BYTES, MAX_SOFT_BYTES, TAKE, TAKE_SOFT
from equipoise.cluster.conversation import Conversation, OtherVersionError, RefusedError
from equipoise.cluster.identity import store_peer
from equipoise.cluster.link import Link
from equipoise.cluster.messages import VERSION, Answer, SoftAnswer
from equipoise.cluster.trust import pair_client, pair_server
from equipoise.plan.model import Endpoint, Secured
from equipoise.sim.ports import free_port
from tests.unit.api.two_halves import DOCUMENT, HAND_OVER, OVERRIDES, Half, hello, push
from tests.unit.cluster.two_machines import Machine, SetClock, machine, pair

LOOPBACK = "127.0.0.1"
HELLO_REQUEST = b"POST " + HELLO.path.encode() + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"


class Stage:
    """The first machine serves, the second asks."""

    def __init__(self, first: Machine, second: Machine, server: PeerServer, half: Half, bugs: list[Any]) -> None:
        self.first, self.second, self.server, self.half, self.bugs = first, second, server, half, bugs

    @property
    def port(self) -> int:
        return self.server.port

    @asynccontextmanager
    async def link(self, secured: Secured | None = None) -> AsyncIterator[Link]:
        link = Link(LOOPBACK, self.port, LOOPBACK, secured or self.second.secured)
        try:
            yield link
        finally:
            await link.close()

    @asynccontextmanager
    async def http(self) -> AsyncIterator[httpx.AsyncClient]:
        """What says anything, with the right certificate."""
        verify = pair_client(self.second.secured)
        async with httpx.AsyncClient(
            verify=verify, base_url=f"https://{LOOPBACK}:{self.port}", trust_env=False, timeout=20
        ) as client:
            yield client


@asynccontextmanager
async def staged(tmp_path: Path, half: Half | None = None, clock: SetClock | None = None) -> AsyncIterator[Stage]:
    first, second = pair(tmp_path, clock)
    bugs: list[Any] = []
    half = half or Half()
    server = await serve_pair(half, LOOPBACK, 0, first.secured, lambda *bug: bugs.append(bug))
    try:
        yield Stage(first, second, server, half, bugs)
    finally:
        await server.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_the_peer_is_answered(tmp_path: Path, run: Callable[[Any], None]) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage, stage.link() as link:
            assert await link.hello(hello()) == hello("secondary")
            assert await link.would_take(DOCUMENT) == Answer()
            assert await link.take(DOCUMENT) == Answer(refused="the site differs")
            assert await link.document() == DOCUMENT
            assert await link.take_overrides(OVERRIDES) == OVERRIDES
            assert await link.take_soft(push(3)) == SoftAnswer(resync=True)
            assert await link.hand_over(HAND_OVER) == Answer()
            assert await link.leave() == Answer()
            assert stage.half.heard == [
                *(hello(), DOCUMENT, DOCUMENT, "document", OVERRIDES, push(3), HAND_OVER, "leaves")
            ]
            assert stage.bugs == []

    run(play())


# Seconds since 1970: an hour off either way, a clock that was never set, and one that is far ahead.
@pytest.mark.parametrize("off_s", [-3600, 3600, -1.7e9, 1e9])
def test_a_wrong_clock_keeps_nobody_out(tmp_path: Path, off_s: float) -> None:
    async def play() -> None:
        clock = SetClock(time.time() + off_s)
        async with staged(tmp_path, clock=clock) as stage, stage.link() as link:
            assert await link.hello(hello()) == hello("secondary")

    asyncio.run(play())


def _context(own: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if own is not None:
        context.load_cert_chain(own)
    return context


def _signed_by(peer: Machine, directory: Path) -> str:
    """Return a certificate that the peer signed for somebody else, with the peer's behind it."""
    key, request, cert, both = (directory / f"leaf.{ending}" for ending in ("key", "csr", "crt", "pem"))
    make = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-subj", "/CN=other", "-out", request]
    own = peer.secured.own
    sign = ["openssl", "x509", "-req", "-in", request, "-CA", own, "-CAkey", own, "-CAcreateserial", "-out", cert]
    for command in (make, sign):
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
    both.write_text(cert.read_text() + key.read_text())
    return str(both)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("stranger", ["another certificate", "no certificate", "one that the peer signed", "old TLS"])
def test_a_stranger_gets_no_http(tmp_path: Path, stranger: str) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage:
            match stranger:
                case "another certificate":
                    context = _context(str(machine(tmp_path / "third").identity.file))
                case "one that the peer signed":
                    context = _context(_signed_by(stage.second, tmp_path))
                case "old TLS":
                    context = _context(stage.second.secured.own)
                    context.minimum_version = ssl.TLSVersion.TLSv1
                    context.maximum_version = ssl.TLSVersion.TLSv1_1
                    context.set_ciphers("ALL:@SECLEVEL=0")
                case _:
                    context = _context(None)
            assert await _said_to(stage.port, context) == b""
            assert stage.half.heard == []
            assert stage.bugs == []

    asyncio.run(play())


async def _said_to(port: int, context: ssl.SSLContext | None) -> bytes:
    """Return what a client gets as an answer, before the connection ends."""
    async with asyncio.timeout(20):
        try:
            reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context)
            writer.write(HELLO_REQUEST)
            return await reader.read()
        except OSError:
            return b""


def test_who_speaks_no_tls_gets_no_http(tmp_path: Path) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage:
            answer = await _said_to(stage.port, None)
            assert b"HTTP" not in answer
            assert stage.half.heard == []
            assert stage.bugs == []

    asyncio.run(play())


def test_what_shows_another_certificate_is_told_nothing(tmp_path: Path) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage:
            third = machine(tmp_path / "third")
            store_peer(stage.second.state, third.identity.certificate)
            async with stage.link() as link:
                with pytest.raises(PeerError, match=r"shows another certificate.*equipoise cluster join"):
                    await link.hello(hello())
            assert stage.half.heard == []

    asyncio.run(play())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_machine_that_the_peer_forgot_is_told_to_join(
    tmp_path: Path, run: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_entrance, "LINGER_S", 60.0)  # however slow the other side reads

    async def play() -> None:
        async with staged(tmp_path) as stage:
            third = machine(tmp_path / "third")
            third.trusts(stage.first)
            async with stage.link(third.secured) as link:
                with pytest.raises(PeerError, match=r"does not know this machine's certificate; join.*cluster join"):
                    await link.hello(hello())
            assert stage.half.heard == []

    run(play())


def test_nobody_who_listens_is_said_in_words(tmp_path: Path) -> None:
    async def play() -> None:
        _, second = pair(tmp_path)
        port = free_port()
        link = Link(LOOPBACK, port, LOOPBACK, second.secured)
        with pytest.raises(PeerError, match=f"nobody listens at {LOOPBACK}:{port}; is equipoise running there"):
            await link.hello(hello())
        await link.close()

    asyncio.run(play())


def test_an_address_that_this_machine_lacks_is_said_in_words(tmp_path: Path) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage:
            link = Link(LOOPBACK, stage.port, "192.0.2.7", stage.second.secured)
            with pytest.raises(PeerError, match=r"does not have the address 192\.0\.2\.7"):
                await link.hello(hello())
            await link.close()

    asyncio.run(play())


@asynccontextmanager
async def _listener(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    server = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def test_the_link_comes_from_its_address_and_gives_up_in_time(tmp_path: Path) -> None:
    async def play() -> None:
        came: list[Any] = []
        over = asyncio.Event()

        async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            came.append(writer.get_extra_info("peername")[0])
            await over.wait()
            writer.close()

        _, second = pair(tmp_path)
        async with _listener(silent) as port:
            machine_there = Endpoint(LOOPBACK, port)
            talk = Conversation(machine_there, "127.0.0.9", pair_client(second.secured))
            with pytest.raises(PeerError, match=rf"{machine_there} did not answer within 0\.3 s"):
                await talk.ask(replace(HELLO, timeout_s=0.3), hello())
            await talk.close()
            assert came == ["127.0.0.9"]
            over.set()

    asyncio.run(play())


def test_another_program_on_the_port_is_said_in_words(tmp_path: Path) -> None:
    async def play() -> None:
        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        _, second = pair(tmp_path)
        async with _listener(plain) as port:
            link = Link(LOOPBACK, port, LOOPBACK, second.secured)
            with pytest.raises(PeerError, match="is another program on that port"):
                await link.hello(hello())
            await link.close()

    asyncio.run(play())


def test_a_refusal_comes_back_in_words(tmp_path: Path) -> None:
    async def play() -> None:
        half = Half(wrong=EquipoiseError("keepalived is not running"))
        async with staged(tmp_path, half) as stage, stage.link() as link:
            for answer in (link.take(DOCUMENT), link.would_take(DOCUMENT), link.hand_over(HAND_OVER), link.leave()):
                assert await answer == Answer(refused="keepalived is not running")
            with pytest.raises(RefusedError, match=r"^keepalived is not running$"):
                await link.take_overrides(OVERRIDES)
            assert stage.bugs == []

    asyncio.run(play())


def test_a_bug_is_reported_there_and_said_here(tmp_path: Path) -> None:
    async def play() -> None:
        bug = ZeroDivisionError("what the message held")
        async with staged(tmp_path, Half(wrong=bug)) as stage, stage.link() as link:
            with pytest.raises(PeerError, match="500: a bug in Equipoise: ZeroDivisionError") as error:
                await link.take_overrides(OVERRIDES)
            assert "what the message held" not in str(error.value)
            assert stage.bugs == [("api.peer POST /pair/v1/overrides", bug)]

    asyncio.run(play())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "truncated"),
        (b"\xff", "malformed"),
        (b"[]", "got `array`"),
        (msgspec.json.encode(DOCUMENT).replace(b":7,", b':"7",'), r"`$.revision.number`"),
        (msgspec.json.encode(DOCUMENT).replace(b'"text"', b'"test"'), "required field `text`"),
    ],
)
def test_what_makes_no_sense_is_answered_with_the_field(tmp_path: Path, content: bytes, said: str) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage, stage.http() as http:
            answer = await http.post(TAKE.path, content=content)
            assert answer.status_code == 400
            assert said in answer.json()["error"]
            assert stage.half.heard == []
            assert stage.bugs == []

    asyncio.run(play())


def test_a_message_may_not_be_too_long(tmp_path: Path) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage, stage.http() as http, stage.link() as link:
            for call, most in ((TAKE, MAX_MESSAGE_BYTES), (TAKE_SOFT, MAX_SOFT_BYTES)):
                answer = await http.post(call.path, content=b" " * (most + 1))
                assert answer.status_code == 413
                assert f"more than {most} bytes" in answer.json()["error"]
            with pytest.raises(PeerError, match=f"the peer takes {MAX_SOFT_BYTES} at most"):
                await link.take_soft(push(200_000))
            assert stage.half.heard == []
            assert await link.hello(hello()) == hello("secondary")

    asyncio.run(play())


def test_the_largest_document_goes_over(tmp_path: Path) -> None:
    async def play() -> None:
        document = msgspec.structs.replace(DOCUMENT, text="\n" * (1 << 20), ancestors=("c" * 64,) * 256)
        async with staged(tmp_path) as stage, stage.link() as link:
            await link.would_take(document)
            assert stage.half.heard == [document]

    asyncio.run(play())


def test_machines_of_different_versions_say_so(tmp_path: Path) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage, stage.http() as http, stage.link() as link:
            with pytest.raises(OtherVersionError, match=f"version {VERSION} .* the other {VERSION + 1}"):
                await link.hello(hello(version=VERSION + 1))
            answer = await http.post(f"/pair/v{VERSION + 1}/some/thing", content=b"{}")
            assert (answer.status_code, "update the older" in answer.text) == (426, True)
            assert (await http.post(f"/pair/v{VERSION}/something", content=b"{}")).status_code == 404
            assert (await http.get("/api/v1/status")).status_code == 404
            assert stage.half.heard == []

    asyncio.run(play())


def test_greetings_go_on_while_two_documents_wait(tmp_path: Path) -> None:
    async def play() -> None:
        half = Half(waits=asyncio.Event())
        async with staged(tmp_path, half) as stage, stage.link() as link, asyncio.TaskGroup() as group:
            other = msgspec.structs.replace(DOCUMENT, text="site: other\n")
            takes = [group.create_task(link.take(each)) for each in (DOCUMENT, other)]
            async with asyncio.timeout(20):
                await half.second.wait()
            assert await link.hello(hello()) == hello("secondary")
            assert not any(take.done() for take in takes)
            assert half.waits is not None
            half.waits.set()
            assert [await take for take in takes] == [Answer(refused="the site differs")] * 2
            texts = {each.text for each in half.heard if isinstance(each, type(DOCUMENT))}
            assert texts == {DOCUMENT.text, other.text}
            assert stage.bugs == []

    asyncio.run(play())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_strangers_who_say_nothing_keep_nobody_out(
    tmp_path: Path, run: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_entrance, "HANDSHAKE_S", 600.0)  # who goes is sent away for being the oldest

    async def play() -> None:
        async with staged(tmp_path) as stage:
            silent = [await asyncio.open_connection(LOOPBACK, stage.port) for _ in range(MAX_STRANGERS + 10)]
            async with stage.link() as link:
                assert await link.hello(hello()) == hello("secondary")
            async with asyncio.timeout(20):
                for reader, _ in silent[:10]:  # the oldest went
                    with suppress(ConnectionResetError):
                        assert await reader.read() == b""
            for _, writer in silent:
                writer.transport.abort()
            assert stage.bugs == []

    run(play())


def test_a_stranger_who_says_nothing_goes_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_entrance, "HANDSHAKE_S", 0.2)

    async def play() -> None:
        async with staged(tmp_path) as stage, asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(LOOPBACK, stage.port)
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            assert stage.bugs == []

    asyncio.run(play())


def test_a_message_that_breaks_off_is_no_bug(tmp_path: Path) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage:
            _, writer = await asyncio.open_connection(LOOPBACK, stage.port, ssl=_context(stage.second.secured.own))
            writer.write(HELLO_REQUEST.replace(b"length: 0", b"length: 99") + b"{")
            await asyncio.sleep(0.1)
            writer.transport.abort()
            async with stage.link() as link:
                assert await link.hello(hello()) == hello("secondary")
            assert stage.bugs == []

    asyncio.run(play())


def test_the_link_finds_a_peer_again_that_was_restarted(tmp_path: Path) -> None:
    async def play() -> None:
        async with staged(tmp_path) as stage, stage.link() as link:
            await link.hello(hello())
            port = stage.port
            await stage.server.close()
            with pytest.raises(PeerError, match="nobody listens"):
                await link.hello(hello())
            stage.server = await serve_pair(stage.half, LOOPBACK, port, stage.first.secured)
            assert await link.hello(hello()) == hello("secondary")
            await stage.server.close()

    asyncio.run(play())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_who_comes_while_the_server_closes_is_sent_away(tmp_path: Path, run: Callable[[Any], None]) -> None:
    def ask(late: socket.socket, own: str) -> bytes:
        with suppress(OSError):  # refused, reset, or the end in the middle of the handshake
            secured = _context(own).wrap_socket(late)
            secured.sendall(HELLO_REQUEST)
            return secured.recv(100)
        return b""

    async def play() -> None:
        async with staged(tmp_path) as stage:
            closing = asyncio.create_task(stage.server.close())
            await asyncio.sleep(0)  # it has begun, and listens for a moment more
            with socket.socket() as late:
                late.settimeout(20)
                with suppress(ConnectionRefusedError):
                    await asyncio.to_thread(late.connect, (LOOPBACK, stage.port))
                await closing
                assert await asyncio.to_thread(ask, late, stage.second.secured.own) == b""

    run(play())


def test_a_handshake_that_begins_as_the_server_closes_leaves_nothing_behind(tmp_path: Path) -> None:
    async def play() -> None:
        first, second = pair(tmp_path)
        context, only = pair_server(first.secured), second.identity.fingerprint
        entrance = Entrance(context, only, None, Tasks(tell_the_loop))
        ours, theirs = socket.socketpair()
        with theirs:
            raw, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, ours)
            entrance.protocol().connection_made(raw)
            await entrance.close()
            await asyncio.sleep(0)
            theirs.settimeout(20)
            assert await asyncio.to_thread(theirs.recv, 1) == b""

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        asyncio.run(play())
        gc.collect()
    assert [each for each in said if "never awaited" in str(each.message)] == []


def test_an_address_need_not_be_here_yet_and_must_be_one(tmp_path: Path) -> None:
    async def play() -> None:
        first, _ = pair(tmp_path)
        server = await serve_pair(Half(), "192.0.2.7", 0, first.secured)
        with pytest.raises(EquipoiseError, match="another program has the port"):
            await serve_pair(Half(), "192.0.2.7", server.port, first.secured)
        await server.close()
        for everywhere in ("0.0.0.0", "::"):
            with pytest.raises(EquipoiseError, match="name the address"):
                await serve_pair(Half(), everywhere, 0, first.secured)

    asyncio.run(play())


def test_ten_thousand_entries_arrive_within_a_second(tmp_path: Path) -> None:
    async def play() -> None:
        many = push(10_000)
        took_s = []
        async with staged(tmp_path) as stage, stage.link() as link:
            for _ in range(3):
                began_s = time.monotonic()
                await link.take_soft(many)
                took_s.append(time.monotonic() - began_s)
            assert stage.half.heard == [many] * 3
        assert min(took_s) < 1, took_s

    asyncio.run(play())
