"""One suite over every check there is that connects.  A new check brings `peers/NAME.py`.

That says HEALTHY, SICK and whether it LISTENS; where it needs them, SETTINGS, NODE_TLS, what each reason begins with
(BEGINS), how it calls an answer that is late (LATE), and that it does not dial (DIALS), so that its own tests are all.
"""

import asyncio
import importlib
import socket
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from equipoise.base.clock import SystemClock
from equipoise.health.asking import Outcome
from equipoise.health.base import Check
from equipoise.health.catalogue import checks
from equipoise.health.runner import probe_once
from tests.unit.health.conftest import Run
from tests.unit.health.fake_peer import (
    Script,
    closes_at_once,
    dripping,
    resets,
    says_nothing,
    sends_noise,
    sends_zeros,
    serving,
    speaks_http,
)

TIMEOUT_S = 0.3  # for what must not answer in time
ENOUGH_S = 5.0  # for what answers
LATEST_MS = 3000  # beyond the timeout: a busy machine
UNFINISHED = "connected, but no whole answer within 0.3 s, only "


def peers_of(check: Check) -> Any:
    try:
        return importlib.import_module(f"tests.unit.health.peers.{check.name}")
    except ModuleNotFoundError:
        raise AssertionError(f"write tests/unit/health/peers/{check.name}.py, as peers/tcp.py is written") from None


DIALLING = [check for _, check in sorted(checks().items()) if getattr(peers_of(check), "DIALS", True)]
EVERY = [pytest.param(check, id=check.name) for check in DIALLING]


async def probe(check: Check, port: int, **settings: Any) -> Outcome:
    peers = peers_of(check)
    params = check.params(**{"timeout": TIMEOUT_S, **getattr(peers, "SETTINGS", {}), **settings})
    node_tls = getattr(peers, "NODE_TLS", None)
    outcome = await probe_once(check, params, "127.0.0.1", port, SystemClock(), node_tls=node_tls)
    assert outcome.reason.isprintable(), "one line"
    assert outcome.took_ms < settings.get("timeout", TIMEOUT_S) * 1000 + LATEST_MS
    begins = getattr(peers, "BEGINS", "")
    assert outcome.reason.startswith(begins)
    assert outcome.reason != begins
    return replace(outcome, reason=outcome.reason.removeprefix(begins))


async def outcome_with(check: Check, script: Script, **settings: Any) -> Outcome:
    async with serving(script) as peer:
        outcome = await probe(check, peer.port, **settings)
        await peer.left_alone()
    return outcome


@pytest.mark.parametrize("check", EVERY)
def test_passes_at_a_healthy_peer(run: Run, check: Check) -> None:
    outcome = run(outcome_with(check, peers_of(check).HEALTHY, timeout=ENOUGH_S))
    assert outcome.ok, outcome.reason


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        pytest.param(check, reason, id=f"{check.name}: {reason[:40]}")
        for check in DIALLING
        for reason in peers_of(check).SICK
    ],
)
def test_fails_at_a_sick_peer_and_says_why(run: Run, check: Check, reason: str) -> None:
    outcome = run(outcome_with(check, peers_of(check).SICK[reason], timeout=ENOUGH_S))
    assert (outcome.ok, outcome.reason) == (False, reason)


BAD = [says_nothing, closes_at_once, resets, speaks_http, sends_noise, sends_zeros]


@pytest.mark.parametrize(
    ("check", "script"),
    [pytest.param(check, script, id=f"{check.name}-{script.__name__}") for check, script in product(DIALLING, BAD)],
)
def test_a_peer_that_answers_nothing_of_use_fails_a_check_that_listens(run: Run, check: Check, script: Script) -> None:
    listens = peers_of(check).LISTENS
    outcome = run(outcome_with(check, script, timeout=TIMEOUT_S if listens else ENOUGH_S))
    assert outcome.ok is not listens, outcome.reason


@pytest.mark.parametrize("check", EVERY)
def test_a_peer_that_sends_a_byte_a_time_costs_no_more_than_the_timeout(run: Run, check: Check) -> None:
    outcome = run(outcome_with(check, dripping(peers_of(check).HEALTHY, pause_s=0.05)))
    assert outcome.ok is not peers_of(check).LISTENS
    if peers_of(check).LISTENS:
        assert outcome.reason.startswith(getattr(peers_of(check), "LATE", UNFINISHED))


@pytest.mark.parametrize("check", EVERY)
def test_where_the_answer_is_cut_into_bytes_does_not_matter(run: Run, check: Check) -> None:
    outcome = run(outcome_with(check, dripping(peers_of(check).HEALTHY, pause_s=0), timeout=ENOUGH_S))
    assert outcome.ok, outcome.reason


@pytest.mark.parametrize("check", EVERY)
def test_fails_where_nobody_listens(run: Run, check: Check) -> None:
    with socket.socket() as bound:  # bound and not listening: the kernel refuses
        bound.bind(("127.0.0.1", 0))
        outcome = run(probe(check, bound.getsockname()[1], timeout=ENOUGH_S))
    assert (outcome.ok, outcome.reason) == (False, "connection refused")


@pytest.mark.parametrize("check", EVERY)
def test_fails_where_the_connection_is_not_answered(run: Run, check: Check) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # one connection fits; the next ones get no answer
        callers = [socket.socket() for _ in range(4)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(full.getsockname())
        outcome = run(probe(check, full.getsockname()[1]))
        for caller in callers:
            caller.close()
    assert (outcome.ok, outcome.reason) == (False, "no answer within 0.3 s")


@pytest.mark.parametrize("check", EVERY)
def test_calls_from_the_source_address(run: Run, check: Check) -> None:
    async def talk() -> tuple[Outcome, list[str]]:
        async with serving(peers_of(check).HEALTHY) as peer:
            return await probe(check, peer.port, source_address="127.0.0.9", timeout=ENOUGH_S), peer.sources

    outcome, sources = run(talk())
    assert outcome.ok
    assert sources == ["127.0.0.9"]


@pytest.mark.parametrize("check", EVERY)
@pytest.mark.parametrize(
    ("source", "why"), [("192.0.2.77", "it is not an address of this machine"), ("::1", "one is IPv4, the other IPv6")]
)
def test_a_source_address_that_cannot_be_used_is_said(run: Run, check: Check, source: str, why: str) -> None:
    outcome = run(probe(check, 9, source_address=source))
    assert outcome.reason == (
        f"cannot call 127.0.0.1 from {source}: {why}; "
        "set health.source_address to an address of this machine that reaches the node"
    )


@pytest.mark.parametrize("check", EVERY)
def test_a_cancelled_check_leaves_its_peer(run: Run, check: Check) -> None:
    async def talk() -> None:
        async with serving(says_nothing) as peer:
            task = asyncio.create_task(probe(check, peer.port, timeout=20))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await peer.left_alone()

    run(talk())
