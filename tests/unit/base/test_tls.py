"""Handshakes between contexts of ours and Python's and OpenSSL's peers, on the event loop that the gateway runs on."""

import asyncio
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop

from equipoise.base.errors import EquipoiseError
from equipoise.base.tls import (
    CertificateFileError,
    client_context,
    handshake_problem,
    peer_names,
    server_context,
    start_tls,
)
from tests.system.certificates import Authority, Issued

ASSOCIATE_RQ = b"\x01\x00\x00\x00\x00\xd0\x00\x01" + bytes(206)
HANDSHAKE_S = 0.5
Peer = Callable[[socket.socket], None]


@dataclass
class Party:
    """What a site has: an authority, and another one that nobody knows."""

    directory: Path
    ours: Authority = field(init=False)
    strange: Authority = field(init=False)
    good: Issued = field(init=False)

    def __post_init__(self) -> None:
        self.ours = Authority(self.directory / "ours")
        self.strange = Authority(self.directory / "strange", "Strange CA")
        self.good = self.ours.issue("balancer")

    def server(self, *, clients: bool = False, min_version: str = "1.2") -> ssl.SSLContext:
        ca = str(self.ours.ca_file) if clients else None
        return server_context(cert=str(self.good.both), key=None, client_ca=ca, min_version=min_version)

    def client(self, verify: str = "name", own: Issued | None = None, min_version: str = "1.2") -> ssl.SSLContext:
        cert = None if own is None else str(own.both)
        return client_context(ca=str(self.ours.ca_file), verify=verify, cert=cert, key=None, min_version=min_version)


@pytest.fixture(scope="module")
def party(tmp_path_factory: pytest.TempPathFactory) -> Party:
    return Party(tmp_path_factory.mktemp("party"))


class Ours(asyncio.Protocol):
    """Our end of a connection; says how it was lost."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(exc)


class Beginning(asyncio.Protocol):
    """Starts TLS in the very moment of the connection, as the gateway does."""

    def __init__(self, start: Callable[[asyncio.Transport], Awaitable[Any]]) -> None:
        self._start = start
        self.secured: Awaitable[Any] | None = None

    def connection_made(self, transport: Any) -> None:
        self.secured = self._start(transport)


@dataclass(frozen=True)
class Met:
    version: str | None = None
    cipher: str | None = None
    names: str | None = None
    problem: str | None = None


def meet(context: ssl.SSLContext, peer: Peer, *, server: bool, host: str = "localhost") -> Met:
    """Return how a connection between our context and a peer goes; `peer` gets the other end of the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
        theirs.settimeout(5)
        talk = threads.submit(peer, theirs)
        try:
            return uvloop.run(_meet(context, ours, server=server, host=host))
        finally:
            talk.result()
            theirs.close()


async def _meet(context: ssl.SSLContext, ours: socket.socket, *, server: bool, host: str) -> Met:
    loop, end = asyncio.get_running_loop(), Ours()

    def start(raw: asyncio.Transport) -> Awaitable[Any]:
        name = None if server else host
        return start_tls(
            raw,
            end,
            context,
            server_side=server,
            server_hostname=name,
            handshake_timeout_s=HANDSHAKE_S,
            shutdown_timeout_s=1,
        )

    raw, beginning = await loop.create_connection(lambda: Beginning(start), sock=ours)
    try:
        assert beginning.secured is not None
        transport, session = await beginning.secured
        met = Met(session.version(), str(session.cipher()), peer_names(session))
        transport.write(b"hello")
        lost = await asyncio.wait_for(end.lost, 5)  # under TLS 1.3 the peer refuses us only now
    except (OSError, ssl.CertificateError) as error:
        raw.abort()
        return Met(problem=handshake_problem(error, server=server))
    return met if lost is None else Met(problem=handshake_problem(lost, server=server))


def secured_by(context: ssl.SSLContext, *, server: bool) -> Peer:
    def talk(end: socket.socket) -> None:
        name = None if server else "localhost"
        try:
            with context.wrap_socket(end, server_side=server, server_hostname=name) as secured:
                secured.recv(100)
        except OSError:
            end.close()

    return talk


def a_client(
    ca: Path | None = None,
    own: Issued | None = None,
    version: ssl.TLSVersion | None = None,
    ciphers: str = "ALL:@SECLEVEL=0",
) -> Peer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE if ca is None else ssl.CERT_REQUIRED
    context.set_ciphers(ciphers)
    if ca is not None:
        context.load_verify_locations(ca)
    if own is not None:
        context.load_cert_chain(own.both)
    return secured_by(_at(context, version), server=False)


def a_node(
    own: Issued, ca: Path | None = None, version: ssl.TLSVersion | None = None, ciphers: str = "ALL:@SECLEVEL=0"
) -> Peer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(ciphers)
    context.load_cert_chain(own.both)
    if ca is not None:
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return secured_by(_at(context, version), server=True)


def _at(context: ssl.SSLContext, version: ssl.TLSVersion | None) -> ssl.SSLContext:
    if version is not None:
        context.minimum_version, context.maximum_version = version, version
    return context


def plain(sent: bytes, *, after_s: float = 0.0) -> Peer:
    def talk(end: socket.socket) -> None:
        end.sendall(sent)
        time.sleep(after_s)
        end.shutdown(socket.SHUT_WR)
        while end.recv(1000):
            pass

    def forgiving(end: socket.socket) -> None:
        try:
            talk(end)
        except OSError:
            end.close()

    return forgiving


V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("version", [V12, V13])
def test_senders_and_nodes_are_met_in_both_versions(party: Party, version: ssl.TLSVersion) -> None:
    device = party.ours.issue("ct1", names=("ct1.example",), addresses=(), client=True)
    met = meet(party.server(clients=True), a_client(party.ours.ca_file, device, version), server=True)
    assert met.problem is None
    assert met.version == {V12: "TLSv1.2", V13: "TLSv1.3"}[version]
    assert met.names == "ct1, ct1.example"
    met = meet(party.client(), a_node(party.good, version=version), server=False)
    assert met.problem is None
    assert met.names == "balancer, localhost, 127.0.0.1"


def test_no_certificate_of_the_client_has_no_names(party: Party) -> None:
    met = meet(party.server(), a_client(), server=True)
    assert (met.problem, met.version, met.names) == (None, "TLSv1.3", None)


def test_an_address_is_matched_with_addresses_and_a_name_with_names(party: Party) -> None:
    by_address = party.ours.issue("by-address", names=(), addresses=("127.0.0.1",))
    by_name = party.ours.issue("by-name", names=("localhost",), addresses=())
    address_as_name = party.ours.issue("127.0.0.1", names=("127.0.0.1",), addresses=())
    by_common_name = party.ours.issue("localhost", names=(), addresses=())
    for own, host, good in [
        (by_address, "127.0.0.1", True),
        (by_address, "localhost", False),
        (by_name, "localhost", True),
        (by_name, "127.0.0.1", False),
        (address_as_name, "127.0.0.1", False),
        (by_common_name, "localhost", True),
    ]:
        met = meet(party.client(), a_node(own), server=False, host=host)
        assert (met.problem is None) is good, (own.cert.name, host, met.problem)


def test_what_is_verified(party: Party) -> None:
    other_name = party.ours.issue("elsewhere", names=("elsewhere.example",), addresses=())
    stranger = party.strange.issue("stranger")
    for verify, own, good in [
        ("name", other_name, False),
        ("authority", other_name, True),
        ("authority", stranger, False),
        ("none", stranger, True),
    ]:
        met = meet(party.client(verify), a_node(own), server=False)
        assert (met.problem is None) is good, (verify, own.cert.name, met.problem)
        if good:
            assert met.names  # also where nothing is verified


def test_one_nodes_own_certificate_may_be_the_authority(party: Party) -> None:
    pinned = client_context(ca=str(party.good.cert), verify="authority", cert=None, key=None, min_version="1.2")
    assert meet(pinned, a_node(party.good), server=False).problem is None
    assert "is from an authority" in str(meet(pinned, a_node(party.ours.issue("other")), server=False).problem)


def test_old_ciphers_are_not_offered(party: Party) -> None:
    offered = {cipher["name"] for cipher in party.server().get_ciphers() + party.client().get_ciphers()}
    assert {"TLS_AES_256_GCM_SHA384", "ECDHE-RSA-AES128-GCM-SHA256"} <= offered
    assert [name for name in offered if not name.startswith(("TLS_", "ECDHE-", "DHE-"))] == []
    assert [name for name in offered if not any(mode in name for mode in ("GCM", "CHACHA20"))] == []
    assert party.server().options & ssl.OP_NO_COMPRESSION
    assert party.server().options & ssl.OP_NO_RENEGOTIATION


CLIENTS: dict[str, tuple[Callable[[Party], Peer], str]] = {
    "TLS 1.0": (lambda _: a_client(version=ssl.TLSVersion.TLSv1), "offers no version of TLS that is allowed here"),
    "TLS 1.1": (lambda _: a_client(version=ssl.TLSVersion.TLSv1_1), "offers no version of TLS that is allowed here"),
    "CBC alone": (lambda _: a_client(version=V12, ciphers="ECDHE-ECDSA-AES128-SHA"), "no cipher in common"),
    "RSA exchange": (lambda _: a_client(version=V12, ciphers="AES128-GCM-SHA256"), "no cipher in common"),
    "no certificate": (lambda _: a_client(), "showed no certificate, and tls.client_ca asks for one"),
    "no certificate 1.2": (lambda _: a_client(version=V12), "showed no certificate"),
    "expired": (lambda p: a_client(own=p.ours.issue("old", days=-1, client=True)), "has expired"),
    "not yet": (
        lambda p: a_client(own=p.ours.issue("new", not_before=datetime.now(UTC) + timedelta(days=1), client=True)),
        "is not valid yet; compare the clocks",
    ),
    "stranger": (lambda p: a_client(own=p.strange.issue("x", client=True)), "is not in tls.client_ca"),
    "for servers": (lambda p: a_client(own=p.ours.issue("server")), "may not be used by a client"),
    "refuses us": (lambda p: a_client(ca=p.strange.ca_file), "refuses the certificate of this balancer (tls.cert)"),
    "plain DICOM": (lambda _: plain(ASSOCIATE_RQ), "does not speak TLS here, but something else"),
    "plain HTTP": (lambda _: plain(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "sent a plain HTTP request"),
    "plain HL7": (lambda _: plain(b"\x0bMSH|^~\\&|A|B\r\x1c\r"), "does not speak TLS here"),
    "PROXY v1": (lambda _: plain(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), "does not speak TLS here"),
    "PROXY v2": (lambda _: plain(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"), "does not speak TLS here"),
    "closes": (lambda _: plain(b""), "closed the connection during the handshake"),
    "closes in the middle": (
        lambda _: plain(b"\x16\x03\x01\x02\x00\x01"),
        "closed the connection during the handshake",
    ),
    "says nothing": (lambda _: plain(b"", after_s=2 * HANDSHAKE_S), "no whole handshake in time"),
    "stops in the middle": (
        lambda _: plain(b"\x16\x03\x01\x02", after_s=2 * HANDSHAKE_S),
        "no whole handshake in time",
    ),
}


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("name", CLIENTS)
def test_what_a_client_did_wrong_is_said(party: Party, name: str) -> None:
    peer, expected = CLIENTS[name]
    problem = meet(party.server(clients=name != "refuses us"), peer(party), server=True).problem
    assert problem is not None
    assert expected in problem
    assert "the client" in problem
    assert "{" not in problem


def test_a_client_below_the_least_version_is_told_so(party: Party) -> None:
    problem = meet(party.server(min_version="1.3"), a_client(version=V12), server=True).problem
    assert "min_version" in str(problem)


NODES: dict[str, tuple[Callable[[Party], Peer], str]] = {
    "TLS 1.0": (lambda p: a_node(p.good, version=ssl.TLSVersion.TLSv1), "offers no version of TLS that is allowed"),
    "TLS 1.1": (lambda p: a_node(p.good, version=ssl.TLSVersion.TLSv1_1), "offers no version of TLS that is allowed"),
    "CBC alone": (lambda p: a_node(p.good, version=V12, ciphers="ECDHE-ECDSA-AES128-SHA"), "no cipher in common"),
    "expired": (lambda p: a_node(p.ours.issue("old-node", days=-1)), "has expired"),
    "not yet": (
        lambda p: a_node(p.ours.issue("new-node", not_before=datetime.now(UTC) + timedelta(days=1))),
        "is not valid yet",
    ),
    "wrong name": (
        lambda p: a_node(p.ours.issue("elsewhere", names=("a.example",))),
        "is not for the name or address localhost",
    ),
    "stranger": (lambda p: a_node(p.strange.issue("x")), "is not in node_tls.ca"),
    "for clients": (lambda p: a_node(p.ours.issue("client", client=True)), "may not be used by a server"),
    "asks for a certificate": (lambda p: a_node(p.good, p.strange.ca_file), "set node_tls.cert"),
    "asks for a certificate 1.2": (lambda p: a_node(p.good, p.strange.ca_file, V12), "asks for a certificate"),
    "plain DICOM": (lambda _: plain(b"\x07\0\0\0\0\x04\0\0\x02\0"), "does not speak TLS here"),
    "HTTP": (lambda _: plain(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "does not speak TLS here"),
    "closes": (lambda _: plain(b""), "closed the connection during the handshake"),
    "says nothing": (lambda _: plain(b"", after_s=2 * HANDSHAKE_S), "no whole handshake in time"),
}


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("name", NODES)
def test_what_a_node_did_wrong_is_said(party: Party, name: str) -> None:
    peer, expected = NODES[name]
    problem = meet(party.client(), peer(party), server=False).problem
    assert problem is not None
    assert expected in problem
    assert "the node" in problem
    assert "{" not in problem


@pytest.mark.parametrize("version", [V12, V13])
def test_a_node_that_refuses_our_certificate(party: Party, version: ssl.TLSVersion) -> None:
    """TLS 1.3: our handshake is through before the node has looked at our certificate."""
    ours = {
        "does not know its authority": party.strange.issue("us", client=True),
        "has expired": party.ours.issue("us-old", days=-1, client=True),
    }
    for expected, own in ours.items():
        met = meet(party.client(own=own), a_node(party.good, party.ours.ca_file, version), server=False)
        assert f"the node refuses the certificate of this balancer (node_tls.cert): it {expected}" in str(met.problem)


@pytest.mark.parametrize(
    ("version", "own", "alert"),
    [
        (V12, None, "HANDSHAKE_FAILURE"),
        (V13, None, "CERTIFICATE_REQUIRED"),
        (V12, "old", "CERTIFICATE_EXPIRED"),
        (V13, "old", "CERTIFICATE_EXPIRED"),
        (V12, "strange", "UNKNOWN_CA"),
        (ssl.TLSVersion.TLSv1_1, None, "PROTOCOL_VERSION"),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_client_that_we_refuse_is_told_why(
    party: Party, version: ssl.TLSVersion, own: str | None, alert: str
) -> None:
    """Its log then says so, too: RFC 8446 section 6.2."""
    authority = party.strange if own == "strange" else party.ours
    shown = authority.issue(own, days=-1 if own == "old" else 30, client=True) if own else None
    heard: list[str | None] = []
    context = _at(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), version)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    if shown:
        context.load_cert_chain(shown.both)

    def talk(end: socket.socket) -> None:
        with pytest.raises(ssl.SSLError) as error, context.wrap_socket(end) as secured:
            secured.recv(100)
        heard.append(error.value.reason)

    assert meet(party.server(clients=True), talk, server=True).problem is not None
    assert alert in str(heard[0])


def test_what_comes_right_behind_plain_bytes_is_not_lost(party: Party) -> None:
    """A PROXY header and the ClientHello in one segment: the header is read exactly, TLS begins with the rest."""
    header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"

    class Reading(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.got = bytearray()
            self.space = bytearray(len(header))
            self.raw: Any = None
            self.secured = asyncio.get_running_loop().create_future()

        def connection_made(self, transport: Any) -> None:
            self.raw = transport

        def get_buffer(self, sizehint: int) -> memoryview:
            assert len(self.got) < len(header), "more was read than asked for"
            return memoryview(self.space)[: len(header) - len(self.got)]

        def buffer_updated(self, nbytes: int) -> None:
            self.got += self.space[:nbytes]
            if len(self.got) == len(header):
                begun = start_tls(
                    self.raw,
                    Ours(),
                    party.server(),
                    server_side=True,
                    handshake_timeout_s=HANDSHAKE_S,
                    shutdown_timeout_s=1,
                )
                self.secured.set_result(begun)

    async def serve(listener: socket.socket) -> str:
        loop = asyncio.get_running_loop()
        end, _ = await loop.run_in_executor(None, listener.accept)
        _, reading = await loop.create_connection(Reading, sock=end)
        transport, session = await (await reading.secured)
        transport.abort()
        return str(session.version())

    def call(port: int) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client = context.wrap_bio(incoming, outgoing)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        with socket.create_connection(("127.0.0.1", port), timeout=5) as end:
            end.sendall(header + outgoing.read())
            while True:
                incoming.write(end.recv(65536))
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    continue
            end.sendall(outgoing.read())
            with suppress(OSError):
                end.recv(100)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        calling = threads.submit(call, listener.getsockname()[1])
        assert uvloop.run(serve(listener)) == "TLSv1.3"
        calling.result()


def test_a_connection_that_is_gone_already(party: Party) -> None:
    async def begin(end: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        raw, protocol = await loop.create_connection(asyncio.Protocol, sock=end)
        raw.abort()
        begun = start_tls(
            raw, protocol, party.server(), server_side=True, handshake_timeout_s=HANDSHAKE_S, shutdown_timeout_s=1
        )
        with pytest.raises(ConnectionResetError):
            await begun

    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as end:
        uvloop.run(begin(end))


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_handshake_that_is_cancelled_leaves_no_descriptor(party: Party, when: str) -> None:
    def open_now() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def begin(end: socket.socket) -> int:
        loop = asyncio.get_running_loop()
        raw, protocol = await loop.create_connection(asyncio.Protocol, sock=end)
        before = open_now()
        begun = start_tls(
            raw, protocol, party.server(), server_side=True, handshake_timeout_s=HANDSHAKE_S, shutdown_timeout_s=1
        )
        assert open_now() == before + 1
        task = asyncio.ensure_future(begun)
        await asyncio.sleep(0 if when == "at once" else 0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        raw.abort()
        await asyncio.sleep(0.05)
        return open_now() - before

    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as end:
        assert uvloop.run(begin(end)) <= 0


def test_openssl_as_a_client(party: Party) -> None:
    """Another program than Python's: its summary says what was agreed on."""
    device = party.ours.issue("openssl-client", client=True)
    for option, version in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            command = ["openssl", "s_client", option, "-connect", f"127.0.0.1:{port}", "-verify_return_error"]
            command += ["-CAfile", str(party.ours.ca_file), "-cert", str(device.cert), "-key", str(device.key)]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            ) as program:
                end, _ = listener.accept()
                with party.server(clients=True).wrap_socket(end, server_side=True) as secured:
                    assert secured.version() == version
                    assert peer_names(secured) == "openssl-client, localhost, 127.0.0.1"
                said = program.communicate(timeout=10)[0].decode()
        assert "Verify return code: 0 (ok)" in said
        assert "Secure Renegotiation IS supported" in said or version == "TLSv1.3"
        assert "Compression: NONE" in said


def refused(**wanted: Any) -> CertificateFileError:
    with pytest.raises(EquipoiseError) as error:
        server_context(**{"key": None, "client_ca": None, "min_version": "1.2", **wanted})
    assert isinstance(error.value, CertificateFileError)
    assert "\n" not in str(error.value)
    return error.value


def test_a_file_that_cannot_be_used_is_named_with_its_setting(party: Party, tmp_path: Path) -> None:
    good, other = party.good, party.ours.issue("other")
    missing = str(tmp_path / "missing.pem")
    for wanted, setting, file, expected in [
        ({"cert": missing}, "cert", missing, "there is no such file"),
        ({"cert": str(good.cert), "key": missing}, "key", missing, "there is no such file"),
        ({"cert": str(good.both), "client_ca": missing}, "client_ca", missing, "there is no such file"),
        ({"cert": str(good.cert)}, "cert", good.cert, "holds no private key; name the file that holds it with `key`"),
        ({"cert": str(good.cert), "key": str(other.cert)}, "key", other.cert, "holds no private key"),
        ({"cert": str(good.key)}, "cert", good.key, "holds no certificate"),
        ({"cert": str(good.cert), "key": str(other.key)}, "key", other.key, "does not belong to the certificate in"),
        ({"cert": str(good.both), "client_ca": str(good.key)}, "client_ca", good.key, "holds no certificate"),
    ]:
        error = refused(**wanted)
        assert (error.setting, expected in str(error), str(file) in str(error)) == (setting, True, True), error


def test_a_key_of_another_kind_or_behind_another_certificate(party: Party, tmp_path: Path) -> None:
    rsa = party.ours.issue("rsa", rsa_bits=2048)
    error = refused(cert=str(party.good.cert), key=str(rsa.key))
    assert error.setting == "key"
    assert "does not belong" in str(error)
    turned = tmp_path / "turned.pem"  # the chain before our own certificate: a usual mistake
    turned.write_bytes(party.ours.ca_file.read_bytes() + party.good.both.read_bytes())
    error = refused(cert=str(turned))
    assert error.setting == "cert"
    assert "our own certificate first" in str(error)


def test_a_short_key_is_refused(party: Party) -> None:
    short = party.ours.issue("short", rsa_bits=1024)
    assert "too short (RSA needs 2048 bits)" in str(refused(cert=str(short.both)))


@pytest.mark.timeout(10)
def test_an_encrypted_key_is_refused_and_nobody_is_asked(party: Party, tmp_path: Path) -> None:
    for cipher in (["pkcs8", "-topk8", "-v2", "aes256"], ["ec", "-aes256"]):
        locked = tmp_path / "locked.key"
        options = ["-in", str(party.good.key), "-out", str(locked), "-passout", "pass:geheim"]
        subprocess.run(["openssl", *cipher, *options], check=True, capture_output=True)
        error = refused(cert=str(party.good.cert), key=str(locked))
        assert error.setting == "key"
        assert f"the private key in {locked} is encrypted with a passphrase" in str(error)


def test_a_damaged_key_is_refused_and_not_shown(party: Party, tmp_path: Path) -> None:
    lines = party.good.key.read_text().splitlines()
    damaged = tmp_path / "damaged.key"
    damaged.write_text("\n".join([lines[0], lines[1][:20], lines[-1]]))
    error = refused(cert=str(party.good.cert), key=str(damaged))
    assert "the private key in" in str(error)
    assert lines[1][:20] not in str(error)


def test_what_is_not_in_the_tables_is_still_said() -> None:
    unknown = ssl.SSLError(1, "[SSL: SOMETHING_NEW] something new")
    unknown.reason = "SOMETHING_NEW"
    assert handshake_problem(unknown, server=True) == (
        "the handshake with the client failed: something new; the log of the client may say more"
    )
    assert handshake_problem(OSError(), server=False).startswith("the node closed the connection")
    assert handshake_problem(ValueError("x"), server=False) == "the handshake failed: x"
