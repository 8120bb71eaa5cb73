"""The contexts of one service: made anew when their files changed, kept when they did not or cannot be used."""

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from equipoise.engines.gateway.security import Security, secured
from equipoise.plan.model import NodeTls, Tls
from tests.system.certificates import Authority, Issued
from tests.unit.engines.running import task


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def own(authority: Authority) -> Issued:
    return authority.issue("own")


def tls(own: Issued) -> Tls:
    return Tls(cert=str(own.cert), key=str(own.key), client_ca=None, min_version="1.2", ports=(), fingerprint="1")


def node_tls(authority: Authority) -> NodeTls:
    return NodeTls(str(authority.ca_file), "name", None, None, None, "1.2", "1")


def shown(context: ssl.SSLContext | None, authority: Authority) -> bytes:
    """Return the certificate that a client is shown."""
    assert context is not None
    found: list[bytes] = []

    async def scene() -> None:
        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        trusting = ssl.create_default_context(cafile=str(authority.ca_file))
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="localhost")
        found.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.close()
        server.close()

    asyncio.run(scene())
    return found[0]


def test_a_plain_service_has_none() -> None:
    assert secured(task("s"), Security(), None) == Security()


def test_the_same_task_has_the_same_contexts(authority: Authority, own: Issued) -> None:
    given = task("s", tls=tls(own), node_tls=node_tls(authority))
    first = secured(given, Security(), None)
    problem = first.problem
    assert problem is None
    assert first.to_clients is not None
    assert first.to_nodes is not None
    other = task("s", tls=tls(own), node_tls=node_tls(authority), max_connections=5)
    again = secured(other, first, given)
    problem = again.problem
    assert problem is None
    assert again == first


def test_a_renewed_file_makes_one_side_anew(authority: Authority, own: Issued) -> None:
    given = task("s", tls=tls(own), node_tls=node_tls(authority))
    first = secured(given, Security(), None)
    before = shown(first.to_clients, authority)
    authority.issue("own")
    renewed = task("s", tls=replace(tls(own), fingerprint="2"), node_tls=node_tls(authority))
    second = secured(renewed, first, given)
    problem = second.problem
    assert problem is None
    assert second.to_nodes is not None
    assert shown(second.to_clients, authority) != before
    assert shown(first.to_clients, authority) == before  # connections of before may still be agreed on


def test_a_spoiled_file_keeps_what_was_there_and_says_so(authority: Authority, own: Issued) -> None:
    given = task("s", tls=tls(own), node_tls=node_tls(authority))
    first = secured(given, Security(), None)
    before = shown(first.to_clients, authority)
    own.key.write_text("spoiled")
    changed = task("s", tls=replace(tls(own), fingerprint="2"), node_tls=replace(node_tls(authority), verify="none"))
    second = secured(changed, first, given)
    problem = second.problem
    assert problem is not None
    assert str(own.key) in problem
    assert second.to_clients is first.to_clients
    assert shown(second.to_clients, authority) == before
    assert second.to_nodes is not first.to_nodes, "the other side is taken all the same"


@pytest.mark.parametrize("stricter", ["client_ca", "min_version"])
def test_what_was_there_is_not_kept_under_stricter_settings(stricter: str, authority: Authority, own: Issued) -> None:
    given = task("s", tls=tls(own))
    first = secured(given, Security(), None)
    own.key.write_text("spoiled")
    renewed = replace(tls(own), fingerprint="2")
    wanted = {
        "client_ca": replace(renewed, client_ca=str(authority.ca_file)),
        "min_version": replace(renewed, min_version="1.3"),
    }
    asked = task("s", tls=wanted[stricter])
    second = secured(asked, first, given)
    problem = second.problem
    assert second.to_clients is None, "a client without a certificate would come in"
    assert problem is not None
    assert str(own.key) in problem
    assert "turned away" in problem


def test_nodes_are_not_called_more_trustingly_than_the_settings_say(authority: Authority, tmp_path: Path) -> None:
    given = task("s", node_tls=replace(node_tls(authority), ca=None, verify="none"))
    first = secured(given, Security(), None)
    assert first.to_nodes is not None
    asked = task("s", node_tls=replace(node_tls(authority), ca=str(tmp_path / "missing.pem")))
    second = secured(asked, first, given)
    problem = second.problem
    assert second.to_nodes is None
    assert problem is not None
    assert "its nodes are not called" in problem


def test_both_spoiled_are_both_told(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    spoiled = task(
        "s",
        tls=Tls(cert=missing, key=None, client_ca=None, min_version="1.2", ports=(), fingerprint="1"),
        node_tls=NodeTls(missing, "name", None, None, None, "1.2", "1"),
    )
    security = secured(spoiled, Security(), None)
    problem = security.problem
    assert (security.to_clients, security.to_nodes) == (None, None)
    assert problem is not None
    assert problem.count("there is no such file") == 2


def test_what_is_taken_out_is_plain_again(authority: Authority, own: Issued) -> None:
    given = task("s", tls=tls(own), node_tls=node_tls(authority))
    first = secured(given, Security(), None)
    assert secured(task("s"), first, given) == Security()


def test_a_file_that_could_never_be_used_is_tried_again_with_every_task(authority: Authority, own: Issued) -> None:
    """A gateway that started while a file was spoiled: nothing in the plan says that it is whole again."""
    good = own.key.read_bytes()
    own.key.write_text("spoiled")
    given = task("s", tls=tls(own), node_tls=node_tls(authority))
    first = secured(given, Security(), None)
    problem = first.problem
    assert problem is not None
    assert first.to_clients is None
    own.key.write_bytes(good)
    second = secured(given, first, given)
    problem = second.problem
    assert problem is None
    assert second.to_clients is not None
    assert second.to_nodes is not None
