"""The checks against DCMTK's servers, and what they say of each way in which these refuse."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from equipoise.base.clock import SystemClock
from equipoise.base.tasks import Tasks
from equipoise.health.asking import Outcome
from equipoise.health.catalogue import checks
from equipoise.health.question import Question
from equipoise.health.runner import HealthRunner, Target, probe_once
from equipoise.health.verdict import Verdict
from equipoise.sim.ports import free_port
from tests.system import dcmtk
from tests.system.balancer import eventually


def probe(port: int, check: str = "dicom_echo", **settings: Any) -> Outcome:
    kind = checks()[check]
    params = kind.params.model_validate({"timeout": 10.0, **settings})
    return asyncio.run(probe_once(kind, params, "localhost", port, SystemClock()))


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[dcmtk.Peer]:
    with dcmtk.dcmqrscp(free_port(), tmp_path, "PACS") as peer:
        yield peer


@contextmanager
def stopped(peer: dcmtk.Peer) -> Iterator[None]:
    """A program that hangs: the kernel takes connections for it, and it does nothing."""
    assert peer.process is not None
    os.killpg(peer.process.pid, signal.SIGSTOP)
    yield
    os.killpg(peer.process.pid, signal.SIGCONT)


def test_storescp_answers(tmp_path: Path) -> None:
    with dcmtk.storescp(free_port(), tmp_path / "in") as peer:
        assert probe(peer.port).reason == "C-ECHO answered 0000"
        assert probe(peer.port, "tcp").reason == "connected"


def test_dcmqrscp_answers_to_its_title(archive: dcmtk.Peer) -> None:
    assert probe(archive.port, called_ae="PACS").ok


def test_dcmqrscp_does_not_answer_to_another_title(archive: dcmtk.Peer) -> None:
    assert probe(archive.port, called_ae="OTHER").reason == (
        "rejected (1,1,7): permanent, called AE title not recognized; the node does not answer to OTHER, "
        "or not when EQUIPOISE calls; set health.called_ae"
    )


def test_dcmqrscp_does_not_let_an_unknown_caller_in(archive: dcmtk.Peer) -> None:
    configuration = archive.directory / "dcmqrscp.cfg"
    archive.kill()
    configuration.write_text(configuration.read_text().replace(" ANY\n", " (CT1, localhost, 104)\n"))
    archive.start()
    outcome = probe(archive.port, called_ae="PACS", calling_ae="LB1")
    # It says so of the called title, too, where it is the calling one that it does not know.
    assert outcome.reason == (
        "rejected (1,1,7): permanent, called AE title not recognized; the node does not answer to PACS, "
        "or not when LB1 calls; set health.called_ae"
    )


def test_storescp_that_refuses(tmp_path: Path) -> None:
    with dcmtk.storescp(free_port(), tmp_path / "in", "--refuse") as peer:
        outcome = probe(peer.port)
    assert outcome.reason.startswith("rejected (1,1,1): permanent, no reason given; ")


def test_a_program_that_hangs_takes_connections_and_answers_nothing(tmp_path: Path) -> None:
    with dcmtk.storescp(free_port(), tmp_path / "in") as peer:
        with stopped(peer):
            assert probe(peer.port, "tcp").ok
            assert probe(peer.port, timeout=0.3).reason == "connected, but no answer within 0.3 s"
        assert probe(peer.port).ok


def test_a_program_that_is_gone(tmp_path: Path) -> None:
    with dcmtk.storescp(free_port(), tmp_path / "in") as peer:
        peer.kill()
        # A forked child holds the listening socket until the kernel has ended it, too.
        reason = eventually(lambda: (seen := probe(peer.port).reason) == "connection refused" and seen)
    assert reason == "connection refused"


def test_the_server_sees_an_orderly_end(tmp_path: Path) -> None:
    """DCMTK says what it thinks of how an association ended."""
    port, log = free_port(), tmp_path / "log"
    command = [str(dcmtk.BIN / "storescp"), "-v", "-od", str(tmp_path), str(port)]
    with dcmtk.Peer(["/bin/sh", "-c", 'exec "$@" >log 2>&1', "sh", *command], port, tmp_path):
        assert probe(port).ok
        assert probe(port).ok  # one process: it has ended the first one
    said = log.read_text()
    assert said.count("Association Release") == 2, said
    assert "Abort" not in said


def test_a_node_that_is_killed_goes_down_and_comes_up_again(tmp_path: Path) -> None:
    said: list[str | None] = []
    verdict = Verdict(rise=2, fall=2)

    def listen(_: Target, outcome: Outcome) -> None:
        if transition := verdict.feed(outcome.ok):
            said.append(transition)

    async def live(peer: dcmtk.Peer) -> None:
        tasks = Tasks(lambda name, failure: said.append(f"{name}: {failure!r}"))
        runner = HealthRunner(checks(), tasks, SystemClock(), listen, random=Random(1))
        params = checks()["dicom_echo"].params(interval=0.2, timeout=2.0)
        runner.set_targets([Target("ct", "a", Question.by_hand("dicom_echo", params, "127.0.0.1", peer.port), 2, 2)])
        for change, count in ((None, 1), (peer.kill, 2), (peer.start, 3)):
            if change is not None:
                await asyncio.to_thread(change)
            for _ in range(500):
                if len(said) >= count:
                    break
                await asyncio.sleep(0.02)
        await tasks.cancel_all()

    with dcmtk.storescp(free_port(), tmp_path / "in") as peer:
        asyncio.run(live(peer))
    assert said == ["up", "down", "up"]
