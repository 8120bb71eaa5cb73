"""Whether a check could connect at all: what cuts a dead node's connections must not cut those of a sick one."""

import socket
from typing import Any

import pytest

from equipoise.base.clock import SystemClock
from equipoise.config.parts import Part
from equipoise.health.asking import Outcome
from equipoise.health.catalogue import checks
from equipoise.health.question import SYSTEM_TLS
from equipoise.health.runner import probe_once
from tests.unit.health.conftest import Run
from tests.unit.health.fake_peer import closes_at_once, resets, says_nothing, serving

CHECKS = checks()


async def probe(name: str, port: int, host: str = "127.0.0.1", **settings: Any) -> Outcome:
    tls = settings.pop("node_tls", None)
    params = CHECKS[name].params(**{"timeout": 1.0, **settings})
    return await probe_once(CHECKS[name], params, host, port, SystemClock(), node_tls=tls)


def closed_port() -> int:
    """Return a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("script", [says_nothing, closes_at_once, resets])
def test_a_node_that_answers_wrongly_is_connected(run: Run, script: Any) -> None:
    async def body() -> None:
        async with serving(script) as peer:
            outcome = await probe("dicom_echo", peer.port)
        assert (outcome.ok, outcome.connected) == (False, True)

    run(body())


def test_a_node_that_passes_is_connected(run: Run) -> None:
    async def body() -> None:
        async with serving(says_nothing) as peer:
            assert (await probe("tcp", peer.port)).connected

    run(body())


def test_tls_that_fails_is_connected(run: Run) -> None:
    async def body() -> None:
        async with serving(says_nothing) as peer:
            outcome = await probe("http", peer.port, node_tls=SYSTEM_TLS, tls=True)
        assert (outcome.ok, outcome.connected) == (False, True)
        assert "no TLS" in outcome.reason

    run(body())


def test_nobody_listens(run: Run) -> None:
    outcome = run(probe("dicom_echo", closed_port()))
    assert (outcome.ok, outcome.connected, outcome.reason) == (False, False, "connection refused")


def test_nobody_answers(run: Run) -> None:
    async def body() -> None:
        with socket.socket() as full:  # a backlog that is full: the kernel drops the SYN, as a dead machine would
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            waiting = [socket.socket() for _ in range(3)]
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(full.getsockname())
            outcome = await probe("tcp", full.getsockname()[1])
            for each in waiting:
                each.close()
        assert (outcome.ok, outcome.connected) == (False, False)
        assert outcome.reason == "no answer within 1 s"

    run(body())


def test_a_name_without_an_address(run: Run) -> None:
    outcome = run(probe("tcp", 104, host="pacs-b.invalid", timeout=10))  # RFC 2606: never resolves
    assert (outcome.ok, outcome.connected) == (False, False)


def test_what_this_machine_lacks_is_not_held_against_the_node(run: Run) -> None:
    async def body() -> None:
        async with serving(says_nothing) as peer:
            outcome = await probe("tcp", peer.port, source_address="192.0.2.7")  # not here
        assert (outcome.ok, outcome.connected) == (False, True)

    run(body())


def test_of_several_checks_one_that_connects_is_enough(run: Run) -> None:
    async def body() -> None:
        closed = closed_port()
        async with serving(says_nothing) as peer:
            open_one, closed_one = (Part("tcp", CHECKS["tcp"].params(port=port)) for port in (peer.port, closed))
            some = await probe("all_of", peer.port, checks=[open_one, closed_one])
            none = await probe("all_of", peer.port, checks=[closed_one, open_one])  # ends with the first failure
        assert (some.ok, some.connected) == (False, True)
        assert (none.ok, none.connected) == (False, False)

    run(body())


def test_a_script_says_nothing_of_connecting(run: Run) -> None:
    outcome = run(probe("script", closed_port(), program="/bin/false", timeout=10))
    assert (outcome.ok, outcome.connected) == (False, True)
