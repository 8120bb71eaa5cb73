"""Simulated senders and receivers of HL7: against each other, through every fault, and against the package hl7."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from equipoise.base.clock import SystemClock
from equipoise.base.processes import Process, start_ready
from equipoise.sim.hl7_audit import Key, MessageAudit, audit_messages
from equipoise.sim.hl7_interfaces import INTERFACES, Interfaces
from equipoise.sim.hl7_ledger import ReceiverLedger, Sent, Taken, read_ledger
from equipoise.sim.hl7_messages import Made, Messages, Mode
from equipoise.sim.hl7_receiver import Fault, Receiver, ReceiverSettings
from equipoise.sim.hl7_sender import Sender, SenderSettings, send_all
from equipoise.sim.peers import Peer
from tests.unit.sim.nodes import Running

HOST = "127.0.0.1"
QUICK = SenderSettings(before_retry_s=0.01)
StartReceiver = Callable[..., int]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "receiver.jsonl"


@pytest.fixture
def start_receiver(ledger: Path) -> Iterator[StartReceiver]:
    """Start a receiver in a thread and return its port."""
    running: list[Running] = []

    def start(**settings: Any) -> int:
        receiver = Receiver(ReceiverSettings(**settings), ReceiverLedger(ledger), SystemClock())
        running.append(Running(receiver))
        return running[-1].port

    yield start
    for one in running:
        one.close()


def send(port: int, *lists: Sequence[Made], settings: SenderSettings = QUICK) -> list[Sender]:
    return asyncio.run(send_all(HOST, port, lists, SystemClock(), settings))


def records(senders: Sequence[Sender]) -> list[Sent]:
    return [one for sender in senders for one in sender.sent]


def audited(senders: Sequence[Sender], ledger: Path) -> MessageAudit:
    return audit_messages(records(senders), {"a": read_ledger(ledger)}, key=Key.CONNECTION)


def some(count: int, name: str = "SIM", **options: Any) -> list[Made]:
    messages = Messages(name, 1, **options)
    return [messages.any() for _ in range(count)]


def test_everything_arrives_once_in_order_and_as_sent(start_receiver: StartReceiver, ledger: Path) -> None:
    lists = [some(60, name) for name in ("A", "B", "C")]
    senders = send(start_receiver(), *lists)
    found = audited(senders, ledger)
    assert (found.problems(), len(found.unharmed), found.repeated, found.unacknowledged) == ([], 180, 0, 0)
    lines = {line.control_id: line for line in read_ledger(ledger)}
    for made in (one for many in lists for one in many):
        line = lines[made.control_id.decode()]
        assert (line.kind, line.size_bytes) == (made.kind, made.size_bytes)
        assert line.patients == tuple(patient.decode() for patient in made.patients)
    assert {line.connection for line in lines.values()} == {1, 2, 3}, "each sender keeps its connection"


@pytest.mark.parametrize("size", [200, 1_000_000, 30_000_000])
def test_any_size_arrives(size: int, start_receiver: StartReceiver, ledger: Path) -> None:
    senders = send(start_receiver(), [Messages("S", 1).make("ORU^R01", size)])
    assert len(audited(senders, ledger).unharmed) == 1
    assert [line.size_bytes for line in read_ledger(ledger)] == [size]


@pytest.mark.parametrize(
    ("mode", "codes"),
    [(Mode.ORIGINAL, ["AA"]), (Mode.COMMIT, ["CA"]), (Mode.BOTH, ["CA", "AA"]), (Mode.NONE, [])],
)
def test_each_mode_gets_the_answers_that_it_asks_for(
    mode: Mode, codes: list[str], start_receiver: StartReceiver, ledger: Path
) -> None:
    port = start_receiver(application_after_s=0.01)
    senders = send(port, some(5, mode=mode))
    assert [[answer.code for answer in one.answers] for one in records(senders)] == [codes] * 5
    deadline = time.monotonic() + 20  # nobody waited for those without an answer
    while len(read_ledger(ledger)) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(read_ledger(ledger)) == 5


def test_a_batch_is_acknowledged_as_one(start_receiver: StartReceiver, ledger: Path) -> None:
    messages = Messages("SIM", 1)
    batch = messages.batch([messages.any() for _ in range(3)])
    senders = send(start_receiver(), [batch])
    assert audited(senders, ledger).unharmed == (batch.control_id.decode(),)


def test_errors_and_rejections_are_answers_and_nothing_is_sent_again(
    start_receiver: StartReceiver, ledger: Path
) -> None:
    senders = send(start_receiver(error_every=3, reject_every=4), some(12))
    codes = Counter(one.answers[0].code for one in records(senders))
    assert codes == {"AA": 6, "AE": 4, "AR": 2}
    assert all(len(one.sends_s) == 1 for one in records(senders))
    found = audited(senders, ledger)
    assert (found.problems(), len(found.unharmed), found.by_receiver) == ([], 6, {"a": 6})


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.WRONG_ID, "answered another message"),
        (Fault.TWICE, "answered another message"),
        (Fault.LATE, "no answer in time"),
        (Fault.CLOSE, "closed before the answer"),
        (Fault.DROP, "closed before the answer"),
        (Fault.HALF, "closed before the answer"),
        (Fault.STOP, "no answer in time"),
    ],
)
def test_the_sender_gets_through_every_fault_and_the_audit_explains_what_came_twice(
    fault: Fault, reason: str, start_receiver: StartReceiver, ledger: Path
) -> None:
    slow = fault in {Fault.LATE, Fault.STOP}
    port = start_receiver(fault=fault, fault_every=3, late_s=3.0)
    settings = SenderSettings(before_retry_s=0.01, ack_timeout_s=0.7 if slow else 30)
    senders = send(port, some(4), settings=settings)
    assert set(senders[0].failures) == {reason}
    found = audited(senders, ledger)
    assert (found.problems(), len(found.unharmed)) == ([], 4)
    lines, kept = len(read_ledger(ledger)), fault is not Fault.DROP
    assert lines == sum(len(one.sends_s) for one in records(senders)) - (
        0 if kept else sum(senders[0].failures.values())
    )
    assert senders[0].again == sum(senders[0].failures.values()) >= 1


def test_a_sender_gives_up_after_its_last_attempt() -> None:
    with socket.create_server((HOST, 0)) as closed:
        port = closed.getsockname()[1]
    senders = send(port, some(1), settings=SenderSettings(before_retry_s=0, most_attempts=3))
    assert senders[0].failures == {"connection refused": 3}
    assert (records(senders)[0].sends_s, records(senders)[0].answers) == ([], [])


def test_release_2_commits_every_block(start_receiver: StartReceiver, ledger: Path) -> None:
    senders = send(start_receiver(release=2), some(10), settings=SenderSettings(release=2))
    assert len(audited(senders, ledger).unharmed) == 10
    assert not senders[0].failures
    deaf = SenderSettings(release=1, before_retry_s=0, most_attempts=1)
    assert send(start_receiver(release=2), some(1, "OTHER"), settings=deaf)[0].failures == {
        "answered without an MSA segment": 1
    }


def test_a_serial_receiver_works_at_one_message_at_a_time(start_receiver: StartReceiver, ledger: Path) -> None:
    lists = [some(5, name) for name in ("A", "B", "C", "D")]
    began = time.monotonic()
    send(start_receiver(delay_s=0.02, is_serial=True), *lists)
    assert time.monotonic() - began >= 20 * 0.02
    moments = [line.at_s for line in read_ledger(ledger)]
    assert all(after - before >= 0.019 for before, after in pairwise(moments))


def test_one_connection_at_most_and_others_wait(start_receiver: StartReceiver, ledger: Path) -> None:
    lists = [some(4, name) for name in ("A", "B", "C")]
    senders = send(start_receiver(max_connections=1, delay_s=0.01), *lists)
    assert len(audited(senders, ledger).unharmed) == 12
    by_connection = [line.connection for line in read_ledger(ledger)]
    assert by_connection == [1] * 4 + [2] * 4 + [3] * 4, "the next is accepted when the one before has gone"


def test_one_connection_at_most_and_others_are_closed(start_receiver: StartReceiver, ledger: Path) -> None:
    lists = [some(4, name) for name in ("A", "B")]
    senders = send(start_receiver(max_connections=1, refuses_more=True, delay_s=0.02), *lists)
    assert len(audited(senders, ledger).unharmed) == 8
    assert sum(sum(sender.failures.values()) for sender in senders) >= 1


def start_process(ledger: Path, log: Path, *words: str, port: int = 0) -> tuple[Process, int]:
    command = ["-m", "equipoise.sim.hl7_receiver", "--ledger", str(ledger), "--port", str(port), "--end-with-input"]
    process, ready = start_ready([sys.executable, *command, *words], log, timeout_s=30)
    return process, int(json.loads(ready)["port"])


def test_kill_9_loses_nothing_acknowledged_and_the_ledger_goes_on(ledger: Path, tmp_path: Path) -> None:
    process, port = start_process(ledger, tmp_path / "log")
    lists = [some(400, name) for name in ("A", "B", "C")]
    done: list[list[Sender]] = []
    settings = SenderSettings(before_retry_s=0.05)
    thread = threading.Thread(target=lambda: done.append(send(port, *lists, settings=settings)), daemon=True)
    thread.start()
    try:
        wait_for(lambda: len(read_ledger(ledger)) > 100)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = len(read_ledger(ledger))
        process, _ = start_process(ledger, tmp_path / "log", port=port)
        thread.join(60)
    finally:
        process.kill()
        process.wait()
    assert not thread.is_alive()
    found = audited(done[0], ledger)
    assert (found.problems(), len(found.unharmed)) == ([], 1200)
    assert 100 < before < len(read_ledger(ledger))
    assert sum(sum(sender.failures.values()) for sender in done[0]) >= 1


def test_half_a_line_is_dropped_when_the_receiver_returns(ledger: Path) -> None:
    line = Taken(at_s=1, control_id="1", kind="ACK", patients=(), digest="x", size_bytes=1, code="AA")
    with closing(ReceiverLedger(ledger)) as first:
        first.write(line)
    with ledger.open("ab") as file:
        file.write(b'{"at_s":2,"con')
    assert read_ledger(ledger) == [line]
    with closing(ReceiverLedger(ledger)) as second:
        second.write(line)
    assert read_ledger(ledger) == [line, line]


def test_mllp_send_of_the_package_hl7_is_answered(start_receiver: StartReceiver, ledger: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("mllp_send")
    if not program.exists():
        pytest.skip("the package hl7 is not installed")
    made, path = some(1)[0], tmp_path / "message.hl7"
    path.write_bytes(made.content)
    port = start_receiver()
    command = [str(program), "--loose", "--port", str(port), "--file", str(path), HOST]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert b"MSA|AA|" + made.control_id in done.stdout
    assert [line.control_id for line in read_ledger(ledger)] == [made.control_id.decode()]


def test_the_server_of_the_package_hl7_answers_our_sender() -> None:
    mllp = pytest.importorskip("hl7.mllp")

    async def serve(reader: Any, writer: Any) -> None:
        while not writer.is_closing():
            try:
                message = await reader.readmessage()
            except asyncio.IncompleteReadError:
                break
            writer.writemessage(message.create_ack())
            await writer.drain()

    async def run() -> list[Sender]:
        async with await mllp.start_hl7_server(serve, HOST, 0, limit=1 << 20) as server:
            port = server.sockets[0].getsockname()[1]
            return await send_all(HOST, port, [some(10, "A"), some(10, "B")], SystemClock(), QUICK)

    senders = asyncio.run(run())
    assert [answer.code for one in records(senders) for answer in one.answers] == ["AA"] * 20
    assert not any(sender.failures for sender in senders)


def test_the_interfaces_of_a_site_work_until_they_are_told_to_stop(start_receiver: StartReceiver, ledger: Path) -> None:
    stop = threading.Event()
    front = Peer("", HOST, start_receiver())
    interfaces = Interfaces((front,), SystemClock(), stop, seed=1, pause_s=0.005)
    thread = threading.Thread(target=interfaces.run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: interfaces.tally().acknowledged > 100)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    tally, sent = interfaces.tally(), interfaces.sent()
    assert tally.sent == tally.acknowledged == len(sent)
    assert (tally.again, tally.failures) == (0, {})
    assert {one.sender for one in sent} == set(INTERFACES)
    found = audit_messages(sent, {"a": read_ledger(ledger)}, key=Key.CONNECTION)
    assert (found.problems(), len(found.unharmed)) == ([], tally.sent)
    assert interfaces.accepted_between(0, float("inf")) == tally.acknowledged


def wait_for(look: Callable[[], bool], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)
