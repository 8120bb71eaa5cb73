"""Checks over TLS and behind the PROXY protocol: what the node sees, and what is said of each way to fail."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from equipoise.base.clock import SystemClock
from equipoise.base.errors import EquipoiseError
from equipoise.config.base import CheckParams
from equipoise.health.asking import Outcome, ask
from equipoise.health.base import one_line
from equipoise.health.catalogue import checks
from equipoise.health.question import Question
from equipoise.plan.model import NodeTls
from equipoise.proto import proxy_protocol
from tests.system.certificates import EDI_PARTY_NAME, Authority, Issued
from tests.unit.health.conftest import Run
from tests.unit.health.fake_peer import FakePeer, Script, says_nothing, serving
from tests.unit.health.peers import dicom_echo
from tests.unit.health.peers.tls import server, speaking_tls
from tests.unit.health.plans import node_tls

LOCAL_V2 = proxy_protocol.encode("v2", None, None)


@asynccontextmanager
async def tls_server(context: ssl.SSLContext, script: Script) -> AsyncIterator[int]:
    """Serve over TLS with asyncio's own, for whole conversations."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            await script(reader, writer)
            await reader.read()
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


def question(check: str, port: int, tls: NodeTls | None, host: str = "127.0.0.1", **settings: Any) -> Question:
    params: CheckParams = checks()[check].params.model_validate({"timeout": 2.0, **settings})
    return Question.by_hand(check, params, host, port, tls)


async def seen(asked: Question) -> Outcome:
    return await ask(asked, checks(), SystemClock())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def context(authority: Authority, *, client_ca: Path | None = None, **issued: Any) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(authority.issue("pacs.example", **issued).both)
    if client_ca is not None:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(client_ca)
    return made


def trusting(authority: Authority, **more: Any) -> NodeTls:
    return node_tls(**{"verify": "name", "ca": str(authority.ca_file), **more})


def outcome(run: Run, asked_of: Any, at: ssl.SSLContext, script: Script = says_nothing) -> Outcome:
    async def body() -> Outcome:
        async with tls_server(at, script) as port:
            return await seen(asked_of(port))

    found: Outcome = run(body())
    assert found.reason.isprintable()
    return found


def test_says_version_cipher_names_and_days_left(run: Run, authority: Authority) -> None:
    found = outcome(run, lambda port: question("tls", port, trusting(authority)), context(authority))
    assert found.ok, found.reason
    assert found.reason.startswith("TLSv1.3, TLS_")
    assert "certificate of pacs.example, localhost, 127.0.0.1, 29 days left" in found.reason


def as_version_six(issued: Issued, directory: Path) -> ssl.SSLContext:
    """Return a server with a certificate of a version that there is not: OpenSSL takes it, cryptography does not."""
    der = ssl.PEM_cert_to_DER_cert(issued.cert.read_text())
    assert der.count(bytes.fromhex("a003020102")) == 1
    odd = directory / "odd.crt"
    odd.write_text(ssl.DER_cert_to_PEM_cert(der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020105"))))
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(odd, issued.key)
    return made


def test_a_certificate_that_cannot_be_read_is_an_answer(run: Run, authority: Authority, tmp_path: Path) -> None:
    odd = as_version_six(authority.issue("odd"), tmp_path)
    found = outcome(run, lambda port: question("tls", port, trusting(authority, verify="none", ca=None)), odd)
    assert not found.ok
    assert "the node's certificate cannot be read" in found.reason


def test_of_a_certificate_with_odd_names_the_rest_is_read(run: Run, authority: Authority) -> None:
    odd = context(authority, names=(), addresses=(), more=(EDI_PARTY_NAME,))
    found = outcome(run, lambda port: question("tls", port, trusting(authority, verify="authority")), odd)
    assert found.ok, found.reason
    assert "a certificate that cannot be read, 29 days left" in found.reason


def test_a_certificate_that_ends_soon(run: Run, authority: Authority) -> None:
    found = outcome(run, lambda port: question("tls", port, trusting(authority), min_days=31), context(authority))
    assert not found.ok
    assert found.reason.endswith("29 days left, fewer than min_days, 31; have it renewed at the node")


@pytest.mark.parametrize(
    ("changed", "issued", "said"),
    [
        ({}, {"addresses": ()}, "is not for the name or address 127.0.0.1"),
        ({"server_name": "other.example"}, {}, "is not for the name or address"),
        ({"verify": "authority"}, {"addresses": ()}, ""),
        ({}, {"days": -1}, "has expired"),
        ({"verify": "none"}, {"days": -1}, "it ended 1 day ago"),
        ({"ca": None}, {}, "from an authority that is not in node_tls.ca"),
        ({"server_name": "localhost"}, {"addresses": ()}, ""),
    ],
)
def test_whose_certificate_is_taken(
    run: Run, authority: Authority, changed: dict[str, Any], issued: dict[str, Any], said: str
) -> None:
    tls = trusting(authority, **changed)
    found = outcome(run, lambda port: question("tls", port, tls), context(authority, **issued))
    assert found.ok == (said == ""), found.reason
    assert said in found.reason


def test_a_certificate_of_ours(run: Run, authority: Authority) -> None:
    at = context(authority, client_ca=authority.ca_file)
    ours = authority.issue("balancer", client=True)
    shown = trusting(authority, cert=str(ours.cert), key=str(ours.key))
    assert outcome(run, lambda port: question("tls", port, shown), at).ok

    async def body() -> Outcome:
        async with serving(speaking_tls(at)) as peer:
            return await seen(question("dicom_echo", peer.port, trusting(authority)))

    # By TLS 1.3 the node says so only after the handshake: a check that listens hears it.
    refused = run(body())
    assert refused.reason == "the node asks for a certificate and was shown none; set node_tls.cert"


def test_a_whole_conversation_over_tls(run: Run, authority: Authority) -> None:
    found = outcome(
        run, lambda port: question("dicom_echo", port, trusting(authority)), context(authority), dicom_echo.HEALTHY
    )
    assert (found.ok, found.reason) == (True, "C-ECHO answered 0000")


def test_tls_at_a_plain_port_and_the_reverse(run: Run, authority: Authority) -> None:
    async def plain_port(script: Script) -> Outcome:
        async with serving(script) as peer:
            return await seen(question("tls", peer.port, trusting(authority)))

    found = run(plain_port(dicom_echo.saying(b"SSH-2.0-OpenSSH\r\n")))
    assert "TLS" in found.reason
    assert not found.ok
    late = run(plain_port(says_nothing))
    assert late.reason == "connected, but no TLS within 2 s; does the node speak TLS on this port?"
    reverse = outcome(run, lambda port: question("dicom_echo", port, None), context(authority))
    assert not reverse.ok


def test_a_node_that_never_says_goodbye_holds_up_nothing(run: Run) -> None:
    """Its side of the connection stays open when ours has ended."""

    mute = speaking_tls(server(), says_goodbye=False)

    async def body() -> Outcome:
        async with serving(mute) as peer:
            found = await seen(question("tls", peer.port, node_tls()))
            await peer.left_alone()
            return found

    found = run(body())
    assert found.ok
    assert found.took_ms < 1500


def test_the_node_sees_a_whole_handshake_and_a_goodbye(run: Run) -> None:
    """Its log would be full of broken handshakes else."""

    async def body() -> list[int]:
        async with serving(speaking_tls(server())) as peer:
            assert (await seen(question("tls", peer.port, node_tls()))).ok
            await peer.left_alone()
            return records(bytes(peer.heard[0].data))

    hello, change_cipher_spec, encrypted = 0x16, 0x14, 0x17  # RFC 8446 section 5.1
    assert run(body()) == [hello, change_cipher_spec, encrypted, encrypted]  # Finished, close_notify


def records(heard: bytes) -> list[int]:
    found = []
    while heard:
        found.append(heard[0])
        heard = heard[5 + int.from_bytes(heard[3:5], "big") :]
    return found


def test_a_file_of_ours_that_is_missing_says_nothing_of_the_node(run: Run, tmp_path: Path) -> None:
    tls = node_tls(verify="name", ca=str(tmp_path / "missing.pem"))

    async def body() -> None:
        async with serving(says_nothing) as peer:
            with pytest.raises(EquipoiseError, match=r"missing\.pem"):
                await seen(question("tls", peer.port, tls))
            await peer.left_alone()

    run(body())


def test_a_renewed_file_is_read_again(run: Run, tmp_path: Path) -> None:
    """Its fingerprint in the plan is another one."""
    ours = Authority(tmp_path / "a")
    at = context(ours)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(Authority(tmp_path / "b").ca_file.read_bytes())
    tls = node_tls(verify="name", ca=str(ca), fingerprint="1")
    assert not outcome(run, lambda port: question("tls", port, tls), at).ok
    ca.write_bytes(ours.ca_file.read_bytes())
    assert not outcome(run, lambda port: question("tls", port, tls), at).ok
    assert outcome(run, lambda port: question("tls", port, replace(tls, fingerprint="2")), at).ok


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_proxy_header_comes_first(run: Run, version: str) -> None:
    header = proxy_protocol.encode(version, None, None)

    async def behind(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(len(header)) == header
        await dicom_echo.HEALTHY(reader, writer)

    async def body() -> Outcome:
        async with serving(behind) as peer:
            return await seen(replace(question("dicom_echo", peer.port, None), proxy=version))

    assert run(body()).ok


def test_the_proxy_header_comes_before_tls(run: Run) -> None:
    async def behind(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(len(LOCAL_V2)) == LOCAL_V2
        await speaking_tls(server())(reader, writer)

    async def body() -> tuple[Outcome, FakePeer]:
        async with serving(behind) as peer:
            found = await seen(replace(question("tls", peer.port, node_tls()), proxy="v2"))
            await peer.left_alone()
            return found, peer

    found, peer = run(body())
    assert found.ok, found.reason
    assert bytes(peer.heard[0].data).startswith(LOCAL_V2 + b"\x16\x03")


def test_a_strangers_text_is_one_short_line() -> None:
    assert one_line("up\x07 and\nwell") == "up\\x07 and\\nwell"
    assert one_line("x" * 500) == "x" * 160 + "..."
