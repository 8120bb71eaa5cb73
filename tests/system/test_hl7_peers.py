"""Real HL7 senders and receivers through the balancer: what arrives is what was sent, byte for byte.

Bad manners are in `test_hl7_bad_input.py`, what fails in `test_hl7_failover.py`, an hour of both in `test_hl7_soak.py`.
"""

import importlib
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from equipoise.sim import hl7_messages
from tests.system import hl7_npm, hl7_peers
from tests.system.balancer import eventually
from tests.system.certificates import Authority, Issued
from tests.system.dcmjs import installed_modules
from tests.system.hl7_peers import Receiver, Sent
from tests.system.hl7_raw import (
    END,
    START,
    RawReceiver,
    RawSender,
    acknowledgement,
    answered,
    control_id,
    grown,
    message,
    wrap,
)
from tests.system.hl7_stage import interleaved, memory_bytes, receivers_failed, sender_ended, serve
from tests.system.stage import Stage

RECEIVERS: dict[str, Callable[[], Receiver]] = {
    "raw": RawReceiver,
    "hl7": hl7_peers.StreamsReceiver,
    "hl7apy": hl7_peers.ApyReceiver,
    "node-hl7-server": hl7_npm.NodeReceiver,
}
SENDERS = ("raw", "mllp_send", "hl7.client", "hl7.mllp", "node-hl7-client")
MIB = 1024 * 1024
ACK = b"\x06"  # what commits a block in release 2


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.fixture(scope="module", params=list(RECEIVERS))
def pair(request: pytest.FixtureRequest) -> Iterator[list[Receiver]]:
    """Two receivers of a kind."""
    receivers = [RECEIVERS[request.param]() for _ in range(2)]
    yield receivers
    for receiver in receivers:
        receiver.close()


@pytest.fixture
def raw_pair() -> Iterator[list[RawReceiver]]:
    with RawReceiver() as a, RawReceiver() as b:
        yield [a, b]


def send(kind: str, port: int, messages: Sequence[bytes], folder: Path) -> Sent:
    match kind:
        case "raw":
            return hl7_peers.raw_send(port, messages)
        case "mllp_send":
            return hl7_peers.mllp_send(port, messages, folder)
        case "hl7.client":
            return hl7_peers.client_send(port, messages)
        case "hl7.mllp":
            return hl7_peers.streams_send(port, messages)
        case _:
            return hl7_npm.send(port, messages)


def nodes(receivers: Sequence[Any]) -> dict[str, int]:
    return {f"r{number}": receiver.port for number, receiver in enumerate(receivers)}


@pytest.mark.parametrize("sender", SENDERS)
def test_what_is_sent_arrives_and_is_acknowledged(
    stage: Stage, pair: list[Receiver], sender: str, tmp_path: Path
) -> None:
    # Some of these receivers end each connection after one message; they are to be told apart from those that die.
    served = serve(stage, nodes(pair), {"key": "message", "idle_timeout": getattr(pair[0], "idle_timeout", "10m")})
    before = [len(receiver.contents) for receiver in pair]
    messages = [message(f"{served.name}-{number}", str(1000 + number)) for number in range(6)]
    sent = send(sender, served.port, messages, tmp_path)
    assert sent.answers == tuple(("AA", control_id(content)) for content in messages)
    arrived = [receiver.contents[start:] for receiver, start in zip(pair, before, strict=True)]
    assert interleaved(list(sent.contents), arrived), arrived
    assert [len(part) for part in arrived] == [3, 3]
    receivers_failed(served, 0)


def package_messages(name: str) -> list[bytes]:
    hl7_peers.package("hl7")
    if name == "hl7apy":
        hl7_peers.package("hl7apy")
        modules = [importlib.import_module(f"hl7apy.{part}") for part in ("parser", "exceptions")]
        return hl7_peers.messages_in_doctests(*modules)
    return hl7_peers.messages_in_markdown((installed_modules() / name / "README.md").read_text())


@pytest.mark.parametrize("package", ["hl7apy", "node-hl7-client"])
def test_the_messages_of_the_packages_own_examples(
    stage: Stage, raw_pair: list[RawReceiver], package: str, tmp_path: Path
) -> None:
    messages = package_messages(package)
    if not messages:
        pytest.skip(f"{package} has no whole message in its documentation any more")
    served = serve(stage, nodes(raw_pair), {"key": "message"})
    sent = send("mllp_send", served.port, messages, tmp_path)
    assert [answer and answer[0] for answer in sent.answers] == ["AA"] * len(messages)
    assert sorted(raw_pair[0].contents + raw_pair[1].contents) == sorted(sent.contents)


@pytest.mark.parametrize("version", ["2.1", "2.3.1", "2.5.1", "2.8"])
def test_messages_of_all_types_versions_and_batches(stage: Stage, raw_pair: list[RawReceiver], version: str) -> None:
    served = serve(stage, nodes(raw_pair), {"key": "patient"})
    factory = hl7_messages.Messages("ALL", seed=5, version=version)
    made = [factory.make(kind) for kind in factory.kinds]
    made.append(factory.batch([factory.any() for _ in range(3)]))
    contents = [each.content for each in made]
    for receiver in raw_pair:  # a batch is acknowledged by the number of its header
        receiver.manners = lambda side, content: side.answer(content, of=_batch_id(content) or control_id(content))
    sender = RawSender(served.port)
    for content in contents:
        expected = _batch_id(content) or control_id(content)
        sender.send(wrap(content))
        assert answered(sender.frame()) == ("AA", expected)
    sender.close()
    assert interleaved(contents, [receiver.contents for receiver in raw_pair])
    event = sender_ended(served, sender)
    assert sum(count["count"] for count in event["messages"]) == len(contents)
    assert {count["answer"] for count in event["messages"]} == {"AA"}


def _batch_id(content: bytes) -> str:
    return content.split(b"|")[10].partition(b"\r")[0].decode() if content.startswith((b"FHS", b"BHS")) else ""


@pytest.mark.parametrize("size", [230, 1024, 16 * 1024, 5 * MIB])
def test_messages_of_all_sizes(stage: Stage, raw_pair: list[RawReceiver], size: int) -> None:
    served = serve(stage, nodes(raw_pair), {"key": "message"})
    sender = RawSender(served.port)
    contents = [grown(message(f"S{number}"), size) for number in range(4)]
    for number, content in enumerate(contents):
        assert sender.ask(content) == ("AA", f"S{number}")
    sender.close()
    assert interleaved(contents, [receiver.contents for receiver in raw_pair])


def test_a_message_of_100_mb_costs_less_than_200_mb(stage: Stage, raw_pair: list[RawReceiver]) -> None:
    served = serve(stage, nodes(raw_pair))
    (gateway,) = stage.balancer.gateway_pids()
    content = grown(message("HUGE"), 100_000_000)
    Path(f"/proc/{gateway}/clear_refs").write_text("5")  # VmHWM begins anew
    before = memory_bytes(gateway, "VmRSS")
    sender = RawSender(served.port)
    assert sender.ask(content, timeout_s=60) == ("AA", "HUGE")
    assert memory_bytes(gateway) - before < 200_000_000
    assert [*raw_pair[0].contents, *raw_pair[1].contents] == [content]
    # The memory is there for the next one, whether the allocator gave it back or not.
    assert sender.ask(grown(message("AGAIN"), 100_000_000), timeout_s=60) == ("AA", "AGAIN")
    assert memory_bytes(gateway) - before < 200_000_000
    sender.close()


# How senders write


@pytest.fixture
def one(stage: Stage) -> Iterator[Any]:
    """One receiver behind one service."""
    with RawReceiver() as receiver:
        yield SimpleNamespace(receiver=receiver, served=serve(stage, {"r": receiver.port}))


def test_a_sender_that_forgets_the_last_cr(one: Any) -> None:
    sender = RawSender(one.served.port)
    for number in range(3):
        sender.send(START + message(f"N{number}") + END[:1])
        assert answered(sender.frame()) == ("AA", f"N{number}")
    sender.close()
    assert one.receiver.contents == [message(f"N{number}") for number in range(3)]


def test_a_sender_that_forgets_the_last_cr_and_writes_on(one: Any) -> None:
    sender = RawSender(one.served.port)
    sender.send(b"".join(START + message(f"N{number}") + END[:1] for number in range(3)) + b"\r")
    assert [answered(sender.frame()) for _ in range(3)] == [("AA", f"N{number}") for number in range(3)]
    sender.close()
    assert one.receiver.contents == [message(f"N{number}") for number in range(3)]


@pytest.mark.parametrize("junk", [b"\x00" * 100, b"\r\n", b"junk \x1c\r between", b"\x1c\x0d\x1c\x0d"])
def test_what_lies_between_frames_is_not_passed_on(one: Any, junk: bytes) -> None:
    sender = RawSender(one.served.port)
    for number in range(3):
        sender.send(junk + wrap(message(f"J{number}")) + junk)
        assert answered(sender.frame()) == ("AA", f"J{number}")
    sender.close()
    assert one.receiver.contents == [message(f"J{number}") for number in range(3)]


def test_several_messages_in_one_segment_are_sent_one_after_the_other(one: Any) -> None:
    def slowly(side: Any, content: bytes) -> None:
        time.sleep(0.02)
        under_way.append(len(side.buffer))
        side.answer(content)

    under_way: list[int] = []
    one.receiver.manners = slowly
    contents = [message(f"P{number}") for number in range(10)]
    sender = RawSender(one.served.port)
    sender.send(b"".join(map(wrap, contents)))
    assert [answered(sender.frame()) for _ in contents] == [("AA", f"P{number}") for number in range(10)]
    sender.close()
    assert one.receiver.contents == contents
    assert under_way == [0] * 10, "the receiver had the next message before it acknowledged"


def test_one_byte_a_segment(one: Any) -> None:
    sender = RawSender(one.served.port)
    for byte in wrap(message("B1")):
        sender.send(bytes([byte]))
        time.sleep(0.0002)
    assert answered(sender.frame()) == ("AA", "B1")
    sender.close()
    assert one.receiver.contents == [message("B1")]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_that_end_otherwise_are_passed_on_as_they_are(one: Any, end: bytes) -> None:
    content = message("L1").replace(b"\r", end)
    sender = RawSender(one.served.port)
    assert sender.ask(content) == ("AA", "L1")
    sender.close()
    assert one.receiver.contents == [content]


def test_a_sender_that_closes_its_half_gets_its_answer(one: Any) -> None:
    sender = RawSender(one.served.port)
    sender.send(wrap(message("H1")))
    sender.half_close()
    assert answered(sender.frame()) == ("AA", "H1")
    assert sender.over() == b""
    assert one.receiver.contents == [message("H1")]
    assert sender_ended(one.served, sender)["reason"] is not None


def test_answers_that_come_in_pieces(one: Any) -> None:
    def in_pieces(side: Any, content: bytes) -> None:
        for byte in wrap(acknowledgement(content)):
            side.send(bytes([byte]))
            time.sleep(0.0005)

    one.receiver.manners = in_pieces
    sender = RawSender(one.served.port)
    for number in range(2):
        sender.send(wrap(message(f"A{number}")))
        assert sender.frame() == acknowledgement(message(f"A{number}"))  # byte for byte
    sender.close()


def test_a_message_that_wants_no_answer_gets_none(one: Any) -> None:
    one.receiver.manners = lambda side, content: None
    quiet = message("Q1").replace(b"|P|2.5", b"|P|2.5|||NE|NE")
    sender = RawSender(one.served.port)
    sender.send(wrap(quiet))
    eventually(lambda: one.receiver.contents == [quiet], what="the message")
    one.receiver.manners = lambda side, content: side.answer(content)
    assert sender.ask(message("Q2")) == ("AA", "Q2")
    sender.close()


def test_enhanced_mode_passes_the_commit_acknowledgement(one: Any) -> None:
    one.receiver.manners = lambda side, content: side.answer(content, "CA")
    content = message("E1").replace(b"|P|2.5", b"|P|2.5|||AL|NE")
    sender = RawSender(one.served.port)
    assert sender.ask(content) == ("CA", "E1")
    assert sender.ask(content.replace(b"E1", b"E2")) == ("CA", "E2")
    sender.close()


def test_frames_with_bytes_of_their_own(stage: Stage) -> None:
    def answers(side: Any, content: bytes) -> None:
        side.send(b"\x02" + acknowledgement(content) + b"\x03")

    with RawReceiver(framing=(b"\x02", b"\x03"), manners=answers) as receiver:
        served = serve(stage, {"r": receiver.port}, {"frame_start": "02", "frame_end": "03"})
        sender = RawSender(served.port, framing=(b"\x02", b"\x03"))
        sender.send(b"\x02" + message("F1") + b"\x03")
        assert answered(sender.frame()) == ("AA", "F1")
        sender.close()
        assert receiver.contents == [message("F1")]


def test_release_2_commits_every_block(stage: Stage) -> None:
    def commits(side: Any, content: bytes) -> None:
        if content != ACK:
            side.send(wrap(ACK))
            side.answer(content)

    with RawReceiver(commits) as receiver:
        served = serve(stage, {"r": receiver.port}, {"mllp_release": 2})
        sender = RawSender(served.port)
        for number in range(2):
            sender.send(wrap(message(f"C{number}")))
            assert sender.frame() == ACK
            assert answered(sender.frame()) == ("AA", f"C{number}")
            sender.send(wrap(ACK))
        eventually(lambda: len(receiver.contents) == 4, what="both commits of the sender")
        sender.close()
        assert receiver.contents == [message("C0"), ACK, message("C1"), ACK]


# TLS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Issued, Issued, Issued]:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    return authority, authority.issue("own"), authority.issue("receiver"), authority.issue("sender", client=True)


def test_tls_on_both_sides_with_every_kind_of_peer(
    stage: Stage, files: tuple[Authority, Issued, Issued, Issued]
) -> None:
    authority, own, receiver, client = files
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(receiver.both)
    asking = ssl.create_default_context(cafile=str(authority.ca_file))
    asking.load_cert_chain(client.both)
    # node-hl7-server wants a certificate of who connects, and there the balancer has none to show.
    with RawReceiver(tls=server) as raw:
        streams = hl7_peers.StreamsReceiver(server)
        try:
            served = serve(
                stage,
                {"raw": raw.port, "streams": streams.port},
                {"key": "message"},
                tls={"cert": str(own.cert), "key": str(own.key), "client_ca": str(authority.ca_file)},
                node_tls={"ca": str(authority.ca_file)},
            )
            contents = [message(f"T{number}") for number in range(4)]
            sender = RawSender(served.port, asking)
            assert [sender.ask(content) for content in contents] == [("AA", f"T{number}") for number in range(4)]
            sender.close()
            hl7_peers.streams_send(served.port, contents, asking)
            hl7_npm.send(served.port, contents, (client, authority.ca_file))
            assert len(raw.contents) == len(streams.contents) == 6
            # node-hl7-client leaves the last CR out.
            assert {content.rstrip(b"\r") + b"\r" for content in raw.contents + streams.contents} == set(contents)
            with pytest.raises(ssl.SSLError):
                raw_ask(served.port, ssl.create_default_context(cafile=str(authority.ca_file)), contents[0])
        finally:
            streams.close()


def raw_ask(port: int, tls: ssl.SSLContext, content: bytes) -> None:
    sender = RawSender(port, tls)  # in TLS 1.3 a refusal comes with the first bytes that are read
    sender.send(wrap(content))
    sender.frame()


# What real peers do wrong


def test_a_receiver_that_repeats_its_old_acknowledgements(stage: Stage) -> None:
    # node-hl7-server 2.5.0 answers all messages of a connection again with each new one.  The old answer is not taken
    # for the new one: that connection is closed, and the sender sends again.
    receiver = hl7_npm.NodeReceiver(keeps_connections=True)
    try:
        served = serve(stage, {"r": receiver.port})
        answers = []
        for number in range(3):
            while True:
                sender = RawSender(served.port)
                answer = sender.ask(message(f"R{number}"))
                sender.close()
                if answer is not None:
                    break
            answers.append(answer)
        assert answers == [("AA", f"R{number}") for number in range(3)]
    finally:
        receiver.close()
