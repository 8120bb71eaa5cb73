"""Clients between their connect and their association: headers, handshakes, limits, and that every place comes back."""

import asyncio
import resource
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from equipoise.engines.gateway import entrance
from equipoise.plan.model import ProxyProtocol, Tls
from equipoise.proto.dicom.pdu import REJECT_LIMIT, PduType
from equipoise.proto.proxy_protocol import encode
from tests.system.certificates import EDI_PARTY_NAME, Authority, Issued
from tests.unit.engines.running import (
    Archive,
    Line,
    Running,
    dial,
    eventually,
    nodes,
    one_service,
    pieces,
    play,
    task,
)
from tests.unit.proto.captures import ECHOSCU_RQ

CLIENT = ("192.0.2.7", 5000)
HEADERS = [encode(version, CLIENT, ("192.0.2.100", 104)) for version in ("v1", "v2")]
BEHIND = ProxyProtocol(accept=True)
BROKER = ("127.0.0.1/32",)
SHORT: dict[str, Any] = {"artim_s": 0.3}
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Issued:
    return authority.issue("balancer")


def tls(own: Issued, **settings: Any) -> Tls:
    usual: dict[str, Any] = {"cert": str(own.both), "key": None, "client_ca": None, "min_version": "1.2", "ports": ()}
    return Tls(fingerprint="1", **{**usual, **settings})


def trusting(authority: Authority, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class Handshake:
    """A client's side of TLS whose bytes we send ourselves, as we like."""

    def __init__(self, line: Line, context: ssl.SSLContext) -> None:
        self.line = line
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def advance(self) -> bytes:
        """Go on as far as what has come allows; return what is to be sent."""
        with suppress(ssl.SSLWantReadError):
            self._session.do_handshake()
        return self._outgoing.read()

    async def hear(self) -> None:
        self._incoming.write(await self.line.reader.read(1 << 16))

    def encrypted(self, data: bytes) -> bytes:
        self._session.write(data)
        return self._outgoing.read()

    async def read(self, count: int) -> bytes:
        """Return so many bytes of what the other side says."""
        found = b""
        while len(found) < count:
            try:
                found += self._session.read(count - len(found))
            except ssl.SSLWantReadError:
                await self.hear()
        return found


async def is_closed(line: Line) -> bool:
    """Read to the end; say whether nothing came before it."""
    async with asyncio.timeout(20):
        try:
            return await line.reader.read() == b""
        except ConnectionError:
            return True


# A plain service


def test_a_plain_client_is_an_association_at_once() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        port = await one_service(running, {"a": archive.port})
        line = await dial(port)
        await eventually(lambda: running.services["s"].observe().clients == 1, "an association before any byte")
        assert running.room.held == 1
        await line.associate()
        await line.echo()
        await line.release()
        (event,) = await running.all_ended(1)
        assert (event.ended, event.client, event.node, event.tls) == ("released", line.address, "a", None)
        archive.close()

    play(scene)


@pytest.mark.parametrize("kind", ["plain", "tls", "header", "header and tls"])
def test_clients_that_reset_as_soon_as_they_are_there_leave_nothing(kind: str, own: Issued) -> None:
    async def scene(running: Running) -> None:
        settings: dict[str, Any] = {"tls": tls(own)} if "tls" in kind else {}
        if "header" in kind:
            settings |= {"proxy_protocol": BEHIND, "allow_from": BROKER}
        port = await one_service(running, {"a": 1}, **settings)
        sent = {"plain": ECHOSCU_RQ, "tls": b"\x16\x03\x01"}.get(kind, HEADERS[1])
        for number in range(120):
            with socket.create_connection(("127.0.0.1", port)) as client:
                if number % 3:
                    client.sendall(sent * (number % 3 - 1) + b"\x16" * (number % 2))
                if number % 5:
                    await asyncio.sleep(0)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await running.all_ended(120)

    play(scene)


# Behind an outer balancer


def behind(**settings: Any) -> dict[str, Any]:
    return {"proxy_protocol": BEHIND, "allow_from": BROKER, **settings}


@pytest.mark.parametrize("header", HEADERS, ids=["v1", "v2"])
def test_a_header_may_be_cut_anywhere(header: bytes) -> None:
    """The request is right behind it, whole or in part, in the same segment."""

    async def scene(running: Running) -> None:
        archive = await Archive().start()
        port = await one_service(running, {"a": archive.port}, **behind())
        wire = header + ECHOSCU_RQ

        async def call(cuts: list[int]) -> None:
            line = await dial(port)
            for piece in pieces(wire, cuts):
                line.send(piece)
                await asyncio.sleep(0.01)
            assert (await line.pdu())[:1] == bytes([PduType.ASSOCIATE_AC]), cuts
            await line.release()

        cuts = [[at] for at in range(1, len(header) + 8)]
        await asyncio.gather(*(call(each) for each in [[], *cuts, list(range(1, len(header) + 8))]))
        events = await running.all_ended(len(cuts) + 2)
        assert {(event.ended, event.client) for event in events} == {("released", "192.0.2.7:5000")}
        archive.close()

    play(scene)


@pytest.mark.parametrize("header", HEADERS, ids=["v1", "v2"])
@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_a_client_hello_right_behind_the_header_is_not_lost(
    header: bytes, version: ssl.TLSVersion, authority: Authority, own: Issued
) -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        port = await one_service(running, {"a": archive.port}, **behind(tls=tls(own)))
        for _ in range(3):
            line = await dial(port)
            talk = Handshake(line, trusting(authority, version))
            line.send(header + talk.advance())
            await talk.hear()
            line.send(talk.advance())
            if version is ssl.TLSVersion.TLSv1_2:
                await talk.hear()
                talk.advance()
            line.send(talk.encrypted(ECHOSCU_RQ))
            assert (await talk.read(6))[:1] == bytes([PduType.ASSOCIATE_AC])
            line.close()
        events = await running.all_ended(3)
        said = {1: "TLSv1.2", 2: "TLSv1.3"}[1 + VERSIONS.index(version)]
        assert {(event.client, event.tls) for event in events} == {("192.0.2.7:5000", said)}
        archive.close()

    play(scene)


@pytest.mark.parametrize(
    ("sent", "ended", "reason"),
    [
        (HEADERS[0][:11], "timed_out", "the PROXY header was not whole within 0.3 s"),
        (HEADERS[1][:-1], "timed_out", "the PROXY header was not whole within 0.3 s"),
        (b"", "timed_out", "the PROXY header was not whole within 0.3 s"),
        (ECHOSCU_RQ, "proxy_failed", "but a DICOM A-ASSOCIATE-RQ; proxy_protocol.accept is set"),
        (b"PROXY TCP4 x y 1 2\r\n", "proxy_failed", "is not of the form"),
        (b"PROXY UNKNOWN" + bytes(200), "proxy_failed", "without an end within"),
    ],
)
def test_no_header_no_association(sent: bytes, ended: str, reason: str) -> None:
    async def scene(running: Running) -> None:
        port = await one_service(running, {"a": 1}, **behind(dicom=SHORT))
        line = await dial(port)
        line.send(sent)
        assert await is_closed(line)
        (event,) = await running.all_ended(1)
        assert (event.ended, event.client) == (ended, line.address)
        assert reason in event.reason
        assert ("must send a header" in event.reason) is (sent == ECHOSCU_RQ), "only who sent none hears that"
        line.close()

    play(scene)


@pytest.mark.parametrize("sent", [b"", HEADERS[0][:20], HEADERS[1][:14]])
def test_a_client_may_leave_within_the_header(sent: bytes) -> None:
    async def scene(running: Running) -> None:
        port = await one_service(running, {"a": 1}, **behind())
        line = await dial(port)
        line.send(sent)
        await asyncio.sleep(0.02)
        line.close()
        (event,) = await running.all_ended(1)
        assert (event.ended, event.reason) == ("no_request", "closed before its PROXY header was whole")

    play(scene)


def test_only_the_outer_balancer_may_say_who_somebody_is() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        port = await one_service(running, {"a": archive.port}, **behind(allow_from=("127.0.0.9/32",)))
        stranger = await dial(port, source="127.0.0.8")
        stranger.send(HEADERS[0] + ECHOSCU_RQ)
        assert await stranger.pdu() == REJECT_LIMIT.encode()
        assert await is_closed(stranger)
        broker = await dial(port, source="127.0.0.9")
        await broker.associate(HEADERS[0] + ECHOSCU_RQ)
        await broker.release()
        refused, taken = await running.all_ended(2)
        assert (refused.ended, refused.client) == ("refused", stranger.address)
        assert refused.reason == "source 127.0.0.8 is not in allow_from"
        assert (taken.ended, taken.client) == ("released", "192.0.2.7:5000")
        stranger.close()
        archive.close()

    play(scene)


# How many of one address


def test_max_per_source_counts_what_is_open_and_no_more() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        port = await one_service(running, {"a": archive.port}, max_per_source=2)
        first, second = [await (await dial(port, source="127.0.0.5")).associate() for _ in range(2)]
        third = await dial(port, source="127.0.0.5")
        third.send(ECHOSCU_RQ)
        assert await third.pdu() == REJECT_LIMIT.encode()
        other = await (await dial(port, source="127.0.0.6")).associate()
        await first.release()
        await eventually(lambda: running.room.held == 2, "the first gone")
        fourth = await (await dial(port, source="127.0.0.5")).associate()
        for line in (second, fourth, other):
            await line.echo()
            await line.release()
        refused = [event for event in await running.all_ended(5) if event.ended != "released"]
        assert [event.reason for event in refused] == ["127.0.0.5 has 2 connections open, which is max_per_source"]
        assert refused[0].client == third.address
        third.close()
        archive.close()

    play(scene)


def test_max_per_source_is_about_who_stands_behind_the_outer_balancer() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        port = await one_service(running, {"a": archive.port}, **behind(max_per_source=1))
        lines = []
        for number in (1, 2, 2):
            line = await dial(port)
            line.send(encode("v2", (f"192.0.2.{number}", 5000), ("192.0.2.100", 104)) + ECHOSCU_RQ)
            lines.append((line, (await line.pdu())[:1]))
        assert [kind[0] for _, kind in lines] == [PduType.ASSOCIATE_AC, PduType.ASSOCIATE_AC, PduType.ASSOCIATE_RJ]
        for line, _ in lines:
            line.close()
        await running.all_ended(3)
        archive.close()

    play(scene)


@pytest.mark.parametrize("failing", ["tls", "header", "request", "silence"])
def test_what_comes_to_nothing_is_not_counted_any_more(failing: str, authority: Authority, own: Issued) -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        settings: dict[str, Any] = {"max_per_source": 1, "dicom": SHORT}
        if failing in ("tls", "silence"):
            settings["tls"] = tls(own)
        elif failing == "header":
            settings = behind(**settings)
        port = await one_service(running, {"a": archive.port}, **settings)
        for _ in range(4):
            line = await dial(port)
            line.send({"tls": ECHOSCU_RQ, "silence": b"\x16\x03"}.get(failing, b"\x09rubbish"))
            await line.reader.read()
            line.close()
            await eventually(lambda: running.room.held == 0, "its place back")
        events = await running.all_ended(4)
        assert "refused" not in {event.ended for event in events}, events
        good = await dial(port, tls=trusting(authority) if "tls" in settings else None)
        if failing == "header":
            good.send(HEADERS[0])
        await good.associate()
        await good.release()
        archive.close()

    play(scene)


def test_a_limit_that_is_taken_away_or_comes_counts_from_then_on() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        place = running.endpoint()
        given: dict[str, Any] = {"listen": (place,), "nodes": nodes({"a": archive.port})}
        lines = []
        for limit, count in ((None, 2), (1, 1), (None, 2), (1, 0)):
            await running.serve(task("s", max_per_source=limit, **given))
            lines += [await (await dial(place.port)).associate() for _ in range(count)]
        for line in lines:
            await line.release()
        await eventually(lambda: running.room.held == 0, "all gone")
        await (await (await dial(place.port)).associate()).release()
        await running.all_ended(6)
        archive.close()

    play(scene)


def test_past_the_room_of_the_process_a_client_is_told_and_holds_no_place() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        port = await one_service(running, {"a": archive.port})
        first, second = [await (await dial(port)).associate() for _ in range(2)]
        third = await dial(port)
        assert await third.pdu() == REJECT_LIMIT.encode()
        assert running.room.held == 2
        await first.release()
        await eventually(lambda: running.room.held == 1, "a place")
        fourth = await (await dial(port)).associate()
        await second.release()
        await fourth.release()
        assert [event.ended for event in await running.all_ended(4)].count("no_room") == 1
        third.close()
        archive.close()

    play(scene, room=2)


@pytest.mark.parametrize("limit", ["max_per_source", "room"])
def test_who_is_turned_away_and_stays_is_held_for_a_moment_and_only_so_many(limit: str) -> None:
    """They hear it, and each costs a descriptor that nothing counts: a flood of them must not take all there are."""

    async def scene(running: Running) -> None:
        archive = await Archive().start()
        settings: dict[str, Any] = {"max_per_source": 1} if limit == "max_per_source" else {}
        port = await one_service(running, {"a": archive.port}, **settings)
        inside = await (await dial(port, source="127.0.0.5")).associate()
        before = open_files()
        flood = [await dial(port, source="127.0.0.5") for _ in range(300)]
        for line in flood:
            assert await line.pdu() == REJECT_LIMIT.encode()
        held = open_files() - before - len(flood)
        assert held <= 64 + 1, f"{held} connections are held for clients that were turned away"
        await inside.echo()
        await inside.release()
        for line in flood:
            line.close()
        await running.all_ended(301)
        archive.close()

    play(scene, room=1 if limit == "room" else 1000)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# TLS


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_a_request_right_behind_the_handshake_is_not_lost(
    version: ssl.TLSVersion, authority: Authority, own: Issued
) -> None:
    """The client's last word of the handshake and its request come in one segment."""

    async def scene(running: Running) -> None:
        archive = await Archive().start()
        port = await one_service(running, {"a": archive.port}, tls=tls(own))
        for _ in range(5):
            line = await dial(port)
            talk = Handshake(line, trusting(authority, version))
            line.send(talk.advance())
            await talk.hear()
            last = talk.advance()
            if version is ssl.TLSVersion.TLSv1_2:  # the server speaks last
                line.send(last)
                await talk.hear()
                last = talk.advance()
            line.send(last + talk.encrypted(ECHOSCU_RQ))
            assert (await talk.read(6))[:1] == bytes([PduType.ASSOCIATE_AC])
            line.close()
        assert {event.node for event in await running.all_ended(5)} == {"a"}
        archive.close()

    play(scene)


@pytest.mark.parametrize("header", [b"", *HEADERS], ids=["first", "behind v1", "behind v2"])
@pytest.mark.parametrize("size", [0, 1, 5, 60, 200])
def test_a_handshake_that_never_ends_is_ended(header: bytes, size: int, authority: Authority, own: Issued) -> None:
    async def scene(running: Running) -> None:
        settings = behind() if header else {}
        port = await one_service(running, {"a": 1}, tls=tls(own), dicom=SHORT, **settings)
        line = await dial(port)
        line.send(header + Handshake(line, trusting(authority)).advance()[:size])
        began_s = asyncio.get_running_loop().time()
        await line.reader.read()
        assert 0.2 < asyncio.get_running_loop().time() - began_s < 5
        (event,) = await running.all_ended(1)
        assert event.ended in ("timed_out", "tls_failed")
        assert "within 0.3 s" in event.reason or "in time" in event.reason
        line.close()

    play(scene)


def test_who_is_half_way_when_the_service_is_stopped_is_ended_at_once(authority: Authority, own: Issued) -> None:
    async def scene(running: Running) -> None:
        port = await one_service(running, {"a": 1}, **behind(tls=tls(own)))
        in_header, in_handshake, fresh = [await dial(port) for _ in range(3)]
        in_header.send(HEADERS[0][:10])
        in_handshake.send(HEADERS[0] + Handshake(in_handshake, trusting(authority)).advance()[:50])
        fresh.send(HEADERS[1] + Handshake(fresh, trusting(authority)).advance())
        await fresh.reader.read(1)
        assert running.room.held == 3
        running.services["s"].abort_all("the balancer was stopped")
        for line in (in_header, in_handshake, fresh):
            await line.reader.read()
            line.close()
        events = await running.all_ended(3)
        assert {(event.ended, event.reason) for event in events} == {("drained", "the balancer was stopped")}

    play(scene)


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_a_client_that_leaves_right_behind_its_handshake_is_one_event(
    version: ssl.TLSVersion, authority: Authority, own: Issued
) -> None:
    async def scene(running: Running) -> None:
        port = await one_service(running, {"a": 1}, tls=tls(own))
        for number in range(20):
            line = await dial(port)
            talk = Handshake(line, trusting(authority, version))
            line.send(talk.advance())
            await talk.hear()
            line.send(talk.advance())
            if number % 2:
                line.reset()
            else:
                line.close()
        events = await running.all_ended(20)
        assert {event.ended for event in events} <= {"tls_failed", "no_request"}, events

    play(scene)


def test_a_certificate_that_could_never_be_read_lets_nobody_in_and_says_so(own: Issued) -> None:
    async def scene(running: Running) -> None:
        place, plain = running.endpoint(), running.endpoint()
        archive = await Archive().start()
        settings: dict[str, Any] = {"listen": (place, plain), "nodes": nodes({"a": archive.port})}
        await running.serve(task("s", **settings))
        broken = tls(own, cert="/nowhere/missing.pem", ports=(place.port,))
        await running.serve(task("s", tls=broken, **settings))
        assert "there is no such file" in running.problems[0]
        line = await dial(place.port)
        assert await is_closed(line)
        (event,) = await running.all_ended(1)
        assert (event.ended, event.client) == ("tls_failed", line.address)
        assert "`equipoise check` says why" in event.reason
        line.close()
        await (await (await dial(plain.port)).associate()).release()
        await running.all_ended(2)
        archive.close()

    play(scene)


def test_a_certificate_that_cannot_be_read_costs_no_place(authority: Authority, own: Issued) -> None:
    """Its names are of a kind that cryptography refuses with an exception of its own; OpenSSL has verified it."""
    odd = authority.issue("odd", names=(), addresses=(), client=True, more=(EDI_PARTY_NAME,))

    async def scene(running: Running) -> None:
        archive = await Archive().start()
        port = await one_service(running, {"a": archive.port}, tls=tls(own, client_ca=str(authority.ca_file)))
        line = await (await dial(port, tls=showing(authority, odd))).associate()
        await line.release()
        (event,) = await running.all_ended(1)
        assert (event.ended, event.certificate) == ("released", "a certificate that cannot be read")
        await eventually(lambda: running.room.held == 0, "its place back")
        archive.close()

    play(scene)


def test_a_bug_behind_the_handshake_costs_no_place(
    authority: Authority, own: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_session: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(entrance, "peer_names", fail)

    async def scene(running: Running) -> None:
        port = await one_service(running, {"a": 1}, tls=tls(own), dicom={"artim_s": 3600.0})
        line = await dial(port, tls=trusting(authority))
        assert await is_closed(line)
        (event,) = await running.all_ended(1)
        assert event.ended == "tls_failed"
        assert "bug" in event.reason
        assert running.room.held == 0
        assert [str(failure) for failure in running.failures] == ["('gateway.tls', RuntimeError('a bug'))"]
        running.failures.clear()  # it is told of, as it should be
        line.close()

    play(scene)


# Whose certificate it is


def showing(authority: Authority, issued: Issued, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = trusting(authority, version)
    context.load_cert_chain(issued.both)
    return context


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
@pytest.mark.parametrize(
    ("patterns", "comes_in"),
    [
        ((), True),
        (("CT WARD 3",), True),
        (("mr?.example", "CT?.example"), True),
        (("*.example",), True),
        (("10.0.0.*",), True),
        (("ct.example",), False),
        (("ct3.example.org", "ct3"), False),
    ],
)
def test_a_client_must_have_one_of_the_names(
    patterns: tuple[str, ...], comes_in: bool, version: ssl.TLSVersion, authority: Authority, own: Issued
) -> None:
    device = authority.issue("CT Ward 3", names=("ct3.example",), addresses=("10.0.0.7",), client=True)

    async def scene(running: Running) -> None:
        archive = await Archive().start()
        asking = tls(own, client_ca=str(authority.ca_file), client_names=patterns)
        port = await one_service(running, {"a": archive.port}, tls=asking)
        with nullcontext() if comes_in else suppress(ConnectionError):  # in 1.2 the handshake itself may be cut
            line = await dial(port, tls=showing(authority, device, version))
            line.send(ECHOSCU_RQ)
            assert (await line.pdu())[:1] == (bytes([PduType.ASSOCIATE_AC]) if comes_in else b"")
            if comes_in:
                await line.release()
            line.close()
        (event,) = await running.all_ended(1)
        assert event.ended == ("released" if comes_in else "tls_failed")
        if not comes_in:
            assert "CT Ward 3, ct3.example, 10.0.0.7" in event.reason
            assert "tls.client_names" in event.reason
            assert archive.heard == []
        await eventually(lambda: running.room.held == 0, "its place back")
        archive.close()

    play(scene)


def test_names_that_cannot_be_read_are_nobodys(authority: Authority, own: Issued) -> None:
    odd = authority.issue("odd", names=(), addresses=(), client=True, more=(EDI_PARTY_NAME,))

    async def scene(running: Running) -> None:
        asking = tls(own, client_ca=str(authority.ca_file), client_names=("*",))
        port = await one_service(running, {"a": 1}, tls=asking)
        line = await dial(port, tls=showing(authority, odd))
        assert await is_closed(line)
        (event,) = await running.all_ended(1)
        assert event.ended == "tls_failed"
        assert "cannot be read" in event.reason
        line.close()

    play(scene)


def test_a_port_of_its_own_stays_plain(authority: Authority, own: Issued) -> None:
    async def scene(running: Running) -> None:
        secure, plain = running.endpoint(), running.endpoint()
        archive = await Archive().start()
        await running.serve(
            task("s", listen=(secure, plain), nodes=nodes({"a": archive.port}), tls=tls(own, ports=(secure.port,)))
        )
        for place, context in ((secure, trusting(authority)), (plain, None)):
            line = await (await dial(place.port, tls=context)).associate()
            await line.echo()
            await line.release()
        assert [event.tls for event in await running.all_ended(2)] == ["TLSv1.3", None]
        archive.close()

    play(scene)


@contextmanager
def no_more_files() -> Iterator[None]:
    """Leave this process no descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_handshake_that_finds_no_descriptor_is_no_bug(own: Issued, authority: Authority) -> None:
    async def scene(running: Running) -> None:
        port = await one_service(running, {"a": 1}, **behind(tls=tls(own)))
        line = await dial(port)
        await eventually(lambda: running.room.held == 1)
        hello = Handshake(line, trusting(authority)).advance()
        with no_more_files():
            line.send(HEADERS[0] + hello)
            await asyncio.sleep(0.1)
        assert await is_closed(line)
        (event,) = await running.all_ended(1)
        assert event.ended == "tls_failed"
        assert event.reason == "no handshake could begin: Too many open files; raise LimitNOFILE"
        line.close()

    play(scene)


def test_the_address_that_was_called_goes_on_to_the_node() -> None:
    """With proxy_protocol on both sides the node hears what the outer balancer said."""

    async def scene(running: Running) -> None:
        heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.set_result(await reader.readline())
            writer.close()

        node = await asyncio.start_server(note, "127.0.0.1", 0)
        port = int(node.sockets[0].getsockname()[1])
        await one_service(running, {"a": port}, **behind(proxy_protocol=ProxyProtocol(send="v1", accept=True)))
        line = await dial(running.services["s"].task.listen[0].port)
        line.send(HEADERS[1] + ECHOSCU_RQ)
        assert await asyncio.wait_for(heard, 20) == b"PROXY TCP4 192.0.2.7 192.0.2.100 5000 104\r\n"
        line.close()
        await running.all_ended(1)
        node.close()

    play(scene)
