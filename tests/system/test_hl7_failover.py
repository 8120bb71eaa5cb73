"""HL7 receivers that fail, nodes that are taken out, and a balancer that is reloaded, killed and replaced under load.

Nothing acknowledged is lost, order holds within a connection and a patient, and nothing arrives more often than its
sender sent it.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from random import Random
from typing import Any

import pytest

from equipoise.sim.hl7_audit import Key
from equipoise.sim.ports import free_port
from tests.system.balancer import eventually
from tests.system.hl7_load import Load, Site, audit
from tests.system.hl7_raw import RawReceiver, RawSender, Side, answered, control_id, merge, message, segments, wrap
from tests.system.hl7_stage import events_of, receivers_failed, sender_ended, serve, settings_of
from tests.system.stage import Served, Stage, checked_elsewhere

UNTOUCHED = {"passive_health": {"failures": 0}}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.fixture
def a() -> Iterator[RawReceiver]:
    with RawReceiver() as receiver:
        yield receiver


@pytest.fixture
def b() -> Iterator[RawReceiver]:
    with RawReceiver() as receiver:
        yield receiver


@contextlib.contextmanager
def connected(port: int) -> Iterator[RawSender]:
    sender = RawSender(port)
    yield sender
    sender.close()


def says(code: str) -> Callable[[Side, bytes], None]:
    return lambda side, content: side.answer(content, code)


# A receiver fails


def test_a_receiver_that_refuses_connections_is_not_noticed(stage: Stage, b: RawReceiver) -> None:
    dead = {"address": f"127.0.0.1:{free_port()}"}
    served = serve(
        stage, {"dead": dead, "b": b.port}, balance="first_up", health=checked_elsewhere(b.port), **UNTOUCHED
    )
    with connected(served.port) as sender:
        for number in range(3):
            assert sender.ask(message(f"D{number}")) == ("AA", f"D{number}")
    assert b.ids == ["D0", "D1", "D2"]
    failed = eventually(
        lambda: events_of(stage.balancer, served.name, "receiver.failed"), what="an event of the dead one"
    )
    assert {(event["node"], event["why"], event["then"]) for event in failed} == {("dead", "refused", "next")}


def test_a_receiver_that_dies_with_a_message_leaves_the_choice_to_the_sender(stage: Stage, b: RawReceiver) -> None:
    with Site() as site:
        a = site.receiver("a", "--delay", "30s")
        served = serve(stage, {"a": a.port, "b": b.port}, balance="first_up", **UNTOUCHED)
        sender = RawSender(served.port)
        sender.send(wrap(message("K1")))
        eventually(lambda: served.status()["nodes"]["a"]["bytes_in"], what="the message at a")
        a.kill()
        assert sender.frame() is None
        (event,) = receivers_failed(served, 1)
        assert (event["node"], event["why"], event["then"]) == ("a", "lost", "closed")
        ended = sender_ended(served, sender)
        assert ended["ended"] == "unacknowledged"
        assert "ADT^A01 K1" in ended["reason"]
        with connected(served.port) as again:
            assert again.ask(message("K1")) == ("AA", "K1")
        assert b.ids == ["K1"]
        assert a.taken == []


def test_a_receiver_that_dies_is_replaced_where_receivers_deduplicate(stage: Stage, b: RawReceiver) -> None:
    with Site() as site:
        a = site.receiver("a", "--delay", "30s")
        hl7 = {"receivers_deduplicate": True}
        served = serve(stage, {"a": a.port, "b": b.port}, hl7, balance="first_up", **UNTOUCHED)
        with connected(served.port) as sender:
            sender.send(wrap(message("K2")))
            eventually(lambda: served.status()["nodes"]["a"]["bytes_in"], what="the message at a")
            a.kill()
            assert answered(sender.frame()) == ("AA", "K2")
            assert sender.ask(message("K3")) == ("AA", "K3")
        assert b.ids == ["K2", "K3"]


def test_a_receiver_that_accepts_and_closes_at_once_does_not_keep_a_message(stage: Stage, b: RawReceiver) -> None:
    with RawReceiver(greeting=lambda side: side.sock.close()) as a:
        served = serve(stage, {"a": a.port, "b": b.port})
        for _ in range(20):  # whether it was closed before or after something was written, nobody can say
            with connected(served.port) as sender:
                answer = sender.ask(message("G1"))
            if answer is not None:
                break
        assert answer == ("AA", "G1")
        assert (a.arrived, b.ids) == ([], ["G1"])


@pytest.mark.parametrize("code", ["AR", "CR"])
def test_what_one_receiver_rejects_another_may_take(stage: Stage, a: RawReceiver, b: RawReceiver, code: str) -> None:
    a.manners = says(code)
    served = serve(stage, {"a": a.port, "b": b.port}, {"try_next": True}, balance="first_up", **UNTOUCHED)
    with connected(served.port) as sender:
        assert sender.ask(message("T1")) == ("AA", "T1")
        assert (a.ids, b.ids) == (["T1"], ["T1"])
        b.manners = says(code)  # all have rejected it: so the sender hears
        assert sender.ask(message("T2")) == (code, "T2")
        b.manners = a.manners = says("AE")
        assert sender.ask(message("T3")) == ("AE", "T3")
    assert a.ids.count("T3") + b.ids.count("T3") == 1, "an error is the sender's to know"
    receivers_failed(served, 0)


@pytest.mark.parametrize("code", ["AR", "AE"])
def test_without_try_next_every_answer_is_the_senders(stage: Stage, a: RawReceiver, b: RawReceiver, code: str) -> None:
    a.manners = b.manners = says(code)
    served = serve(stage, {"a": a.port, "b": b.port})
    with connected(served.port) as sender:
        assert sender.ask(message("T1")) == (code, "T1")
    assert len(a.ids + b.ids) == 1


# Nobody is there


def disable(served: Served, *nodes: str) -> None:
    for node in nodes:
        served.operate("disable", node)


def test_no_node_closes_after_the_hold_and_the_listener_stays(stage: Stage, a: RawReceiver) -> None:
    served = serve(stage, {"a": a.port}, {"hold": "400ms"})
    disable(served, "a")
    sender = RawSender(served.port)
    began_s = time.monotonic()
    assert sender.ask(message("N1")) is None
    assert time.monotonic() - began_s >= 0.35
    assert sender_ended(served, sender)["ended"] == "no_node"
    served.operate("enable", "a")
    with connected(served.port) as again:
        assert again.ask(message("N1")) == ("AA", "N1")
    assert a.ids == ["N1"]


@pytest.mark.parametrize(("answers", "code"), [("", "AR"), ("|||AL|NE", "CR")])
def test_no_node_rejects_where_it_is_told_to(stage: Stage, a: RawReceiver, answers: str, code: str) -> None:
    served = serve(stage, {"a": a.port}, {"hold": "0s", "on_no_node": "reject"})
    disable(served, "a")
    content = message("N2").replace(b"|P|2.5", f"|P|2.5{answers}".encode())
    with connected(served.port) as sender:
        assert sender.ask(content) == (code, "N2")
        served.operate("enable", "a")
        assert sender.ask(message("N3")) == ("AA", "N3")  # on the same connection
    assert a.ids == ["N3"]


def test_a_message_that_is_held_goes_on_when_a_node_returns(stage: Stage, a: RawReceiver) -> None:
    served = serve(stage, {"a": a.port}, {"hold": "20s"})
    disable(served, "a")
    with connected(served.port) as sender:
        sender.send(wrap(message("N4")))
        time.sleep(0.2)
        served.operate("enable", "a")
        assert answered(sender.frame()) == ("AA", "N4")


# An operator takes nodes out


@pytest.mark.parametrize("action", ["drain", "disable"])
def test_a_node_is_taken_out_between_messages(stage: Stage, a: RawReceiver, b: RawReceiver, action: str) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slowly(side: Side, content: bytes) -> None:
        asked.set()
        assert go_on.wait(15)
        side.answer(content)

    served = serve(stage, {"a": a.port, "b": b.port}, balance="first_up")
    with connected(served.port) as sender:
        assert sender.ask(message("O1")) == ("AA", "O1")
        a.manners = slowly
        sender.send(wrap(message("O2")))
        assert asked.wait(15)
        served.operate(action, "a")
        go_on.set()
        assert answered(sender.frame()) == ("AA", "O2")  # what is under way comes to its end
        assert sender.ask(message("O3")) == ("AA", "O3")
        eventually(lambda: a.open_now == 0, what="no connection to a")
        assert (a.ids, b.ids) == (["O1", "O2"], ["O3"])
    receivers_failed(served, 0)


# The balancer itself changes, under load


def reload(stage: Stage, text: str) -> None:
    """Replace the document as editors do, whole, and have it read."""
    balancer = stage.balancer
    draft = balancer.site.with_suffix(".new")
    draft.write_text(text)
    before = balancer.status()["plan"]
    draft.replace(balancer.site)
    assert balancer.process is not None
    balancer.process.send_signal(signal.SIGHUP)
    eventually(lambda: balancer.status()["plan"] != before, 30, "the new plan")


def test_nothing_is_lost_while_the_balancer_changes(stage: Stage) -> None:
    keys = (Key.CONNECTION, Key.PATIENT)
    with Site() as site, ExitStack() as stack:
        receivers = [site.receiver(name) for name in ("a", "b", "c")]
        nodes = {receiver.name: {"address": f"127.0.0.1:{receiver.port}", "weight": 100} for receiver in receivers}
        services = stage.serve_all([(nodes, settings_of({"key": key.value})) for key in keys])
        loads = [
            stack.enter_context(Load(served.port, 10, f"{key.value.upper()}-", seed=7, pause_s=0.03))
            for key, served in zip(keys, services, strict=True)
        ]

        def progress(messages: int) -> None:
            wanted = [len(load.sent) + messages for load in loads]
            eventually(lambda: all(len(load.sent) >= n for load, n in zip(loads, wanted, strict=True)), 60, "messages")

        progress(50)
        for weight in (101, 102):
            text = stage.balancer.site.read_text()
            reload(stage, text.replace(f'"weight": {weight - 1}', f'"weight": {weight}'))
            progress(50)
        for action in ("drain", "enable"):
            for served in services:
                served.operate(action, "b")
            progress(50)
        stage.balancer.kill_supervisor()
        progress(50)
        stage.balancer.start()
        progress(50)
        assert [load.failures for load in loads] == [{}, {}], "a reload, a drain or the supervisor's loss was noticed"
        assert stage.balancer.cli("gateway", "replace").returncode == 0
        progress(100)
        for key, load in zip(keys, loads, strict=True):
            sent = load.finish()
            found = audit(sent, receivers, key)
            assert found.problems() == []
            assert len(found.unharmed) == len(sent) > 400
            assert min(found.by_receiver.values()) > 30, found.by_receiver
            # A connection that the old gateway closes between two messages may already carry the next one.
            assert sum(load.failures.values()) <= 10, load.failures
    eventually(lambda: len(stage.balancer.gateway_pids()) == 1, 40, "the end of the old gateway")
    assert stage.balancer.events("task.failed") == []


# One at a time


def test_a_receiver_for_one_connection_never_has_two(stage: Stage, a: RawReceiver, b: RawReceiver) -> None:
    def briefly(side: Side, content: bytes) -> None:
        time.sleep(0.002)
        side.answer(content)

    a.manners = b.manners = briefly
    nodes = {name: {"address": f"127.0.0.1:{r.port}", "max_connections": 1} for name, r in (("a", a), ("b", b))}
    served = serve(stage, nodes, {"key": "message"}, queue_wait="20s")
    stop = threading.Event()

    def send(sender_number: int) -> int:
        sender, count = RawSender(served.port), 0
        while not stop.is_set():
            name = f"X{sender_number}-{count}"
            while sender.ask(message(name)) is None:  # the old gateway has closed it: once more
                sender.close()
                sender = RawSender(served.port)
            count += 1
        sender.close()
        return count

    with ThreadPoolExecutor(10) as pool:
        jobs = [pool.submit(send, number) for number in range(10)]
        try:
            eventually(lambda: len(a.arrived) + len(b.arrived) > 100, 30, "100 messages")
            assert stage.balancer.cli("gateway", "replace").returncode == 0
            wanted = len(a.arrived) + len(b.arrived) + 100
            eventually(lambda: len(a.arrived) + len(b.arrived) > wanted, 30, "100 further messages")
        finally:
            stop.set()
        counts = [job.result(timeout=60) for job in jobs]
    assert (a.most_open, b.most_open) == (1, 1)
    assert len({*a.ids, *b.ids}) == sum(counts)
    assert min(counts) > 0


class UnderWay:
    """Which patients' messages are being worked at, by any receiver."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._patients: set[str] = set()
        self.together: list[str] = []  # messages that came while another one of their patient was worked at
        self.most = 0

    def work(self, side: Side, content: bytes) -> None:
        fields = {field[0]: field for field in segments(content) if field[0]}
        patients = {fields[b"PID"][3].decode()} | ({fields[b"MRG"][1].decode()} if b"MRG" in fields else set())
        with self._lock:
            if patients & self._patients:
                self.together.append(control_id(content))
            self._patients |= patients
            self.most = max(self.most, len(self._patients))
        time.sleep(0.003)
        with self._lock:
            self._patients -= patients
        side.answer(content)


def test_one_message_is_under_way_for_each_patient_and_merges_wait_for_both(
    stage: Stage, a: RawReceiver, b: RawReceiver
) -> None:
    under_way = UnderWay()
    a.manners = b.manners = under_way.work
    served = serve(stage, {"a": a.port, "b": b.port}, {"key": "patient"})
    patients = [str(number) for number in range(4)]

    def send(number: int) -> list[Any]:
        rng = Random(f"merges {number}")
        with connected(served.port) as sender:
            answers = []
            for count in range(40):
                name = f"Y{number}-{count}"
                of, other = rng.sample(patients, 2)
                content = merge(name, of, other) if rng.random() < 0.4 else message(name, of)
                answers.append(sender.ask(content))
        return answers

    with ThreadPoolExecutor(8) as pool:
        answers = [answer for each in pool.map(send, range(8)) for answer in each]
    assert {answer and answer[0] for answer in answers} == {"AA"}
    assert under_way.together == []
    assert under_way.most > 1, "nothing was ever under way at the same time"
    assert len(a.arrived) + len(b.arrived) == 320
