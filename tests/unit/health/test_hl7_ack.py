"""What `hl7_ack` sends, and what it makes of answers of every kind, of real receivers too."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from equipoise.base.clock import SystemClock
from equipoise.health.asking import Outcome
from equipoise.health.checks.hl7_ack import CHECK, Params
from equipoise.health.hl7 import QUERY, filled_in
from equipoise.health.runner import probe_once
from tests.system.hl7_peers import ApyReceiver, Receiver, StreamsReceiver, package
from tests.unit.health.conftest import Run
from tests.unit.health.fake_peer import Script, probed
from tests.unit.health.peers.hl7_ack import (
    ACK_BLOCK,
    END,
    START,
    acknowledgement,
    answering,
    control_id,
    framing,
    replying,
    saying,
)
from tests.unit.health.peers.tls import server
from tests.unit.health.plans import node_tls

MESSAGE = "MSH|^~\\&|RIS|NORTH|PACS|NORTH|||ADT^A08||P|2.5\nEVN|A08\nPID|||CHECK^^^NORTH||EQUIPOISE^CHECK\n"
ANY = node_tls(verify="none")
CODES = ["AA", "AE", "AR", "CA", "CE", "CR"]
QUERY_SENT = re.compile(
    re.escape(b"\x0bMSH|^~\\&|EQUIPOISE||||")
    + rb"\d{14}\+0000"
    + re.escape(b"||NMQ^N01^NMQ_N01|")
    + rb"[0-9a-f]{16}"
    + re.escape(b"|P|2.5.1\rNST|N\r\x1c\r")
)


def ask(run: Run, script: Script, **settings: Any) -> tuple[Outcome, bytes]:
    result: tuple[Outcome, bytes] = run(probed(CHECK, script, **settings))
    return result


def test_the_query_has_a_time_and_a_control_id_of_its_own(run: Run) -> None:
    found = []
    for _ in range(2):
        outcome, heard = ask(run, answering())
        assert (outcome.ok, outcome.reason) == (True, "acknowledged with AA")
        assert QUERY_SENT.fullmatch(heard), heard
        found.append(control_id(heard[1:]))
    assert found[0] != found[1]


@pytest.mark.parametrize("code", CODES)
def test_every_answer_to_the_query_is_a_sign_of_life(run: Run, code: str) -> None:
    outcome, _ = ask(run, answering(code.encode()))
    assert (outcome.ok, outcome.reason) == (True, f"acknowledged with {code}")


@pytest.mark.parametrize("code", CODES)
def test_a_message_of_the_site_must_be_taken(run: Run, code: str) -> None:
    outcome, heard = ask(run, answering(code.encode()), message=MESSAGE)
    assert outcome.ok is (code in ("AA", "CA")), outcome.reason
    assert heard.endswith(b"\rEVN|A08\rPID|||CHECK^^^NORTH||EQUIPOISE^CHECK\r\x1c\r")
    assert "CHECK" not in outcome.reason


def test_the_codes_may_be_said(run: Run) -> None:
    outcome, _ = ask(run, answering(b"AR"), message=MESSAGE, codes=["AA", "AR"])
    assert outcome.ok
    outcome, _ = ask(run, answering(b"AE"), codes="AA")
    said = "answered AE, an error in the message; expected AA, the node's log says why"
    assert (outcome.ok, outcome.reason) == (False, said)


def test_frames_may_be_others(run: Run) -> None:
    script = replying(lambda message: b"\x02" + acknowledgement(message) + b"\x03", end=b"\x03")
    outcome, heard = ask(run, script, frame_start="02", frame_end="03")
    assert outcome.ok, outcome.reason
    assert (heard[:4], heard[-1:]) == (b"\x02MSH", b"\x03")


@pytest.mark.parametrize(
    "reply",
    [
        lambda message: b"\0\0\r\n" + framing(acknowledgement)(message),
        lambda message: START + acknowledgement(message) + END[:1],  # no last CR
        lambda message: framing(acknowledgement)(message) * 2,
        lambda message: framing(acknowledgement)(message) + b"\x0bMSH|^~\\&|and half a",
        framing(lambda each: acknowledgement(each).replace(b"\r", b"\n")),
        framing(lambda each: acknowledgement(each).replace(b"|", b"!")),
        framing(lambda each: acknowledgement(each) + b"ERR|" + b"x" * 60_000 + b"\r"),
    ],
    ids=["junk before", "no last CR", "two", "one and a half", "LF", "other separators", "long"],
)
def test_what_real_receivers_do_passes(run: Run, reply: Any) -> None:
    outcome, _ = ask(run, replying(reply))
    assert outcome.ok, outcome.reason


def test_a_commit_block_comes_before_the_acknowledgement_and_is_answered_in_kind(run: Run) -> None:
    outcome, heard = ask(run, replying(lambda message: ACK_BLOCK + framing(acknowledgement)(message)))
    assert outcome.ok, outcome.reason
    assert heard.endswith(b"NST|N\r\x1c\r" + ACK_BLOCK)


def test_a_commit_block_alone_is_no_acknowledgement(run: Run) -> None:
    outcome, _ = ask(run, saying(ACK_BLOCK, closes=True))
    assert not outcome.ok
    outcome, _ = ask(run, saying(ACK_BLOCK), timeout=1.0)
    assert outcome.reason == "connected, but no whole answer within 1 s, only 4 bytes"


def test_no_reason_tells_a_word_of_the_receiver(run: Run) -> None:
    def rejecting(message: bytes) -> bytes:
        return acknowledgement(message, b"AR").rstrip(b"\r") + b"|DOE^JANE is unknown\rERR|||207^DOE\r"

    outcome, _ = ask(run, replying(framing(rejecting)), message=MESSAGE)
    assert outcome.reason == "answered AR, rejected; expected AA or CA, the node's log says why"


# Real receivers


@pytest.fixture(params=[StreamsReceiver, ApyReceiver])
def receiver(request: pytest.FixtureRequest) -> Any:
    started: Receiver = request.param()
    yield started
    started.close()


@pytest.mark.parametrize("settings", [{}, {"message": MESSAGE}], ids=["query", "message"])
def test_a_real_receiver_acknowledges(run: Run, receiver: Receiver, settings: dict[str, Any]) -> None:
    params = Params.model_validate({"timeout": 20.0, **settings})
    outcome = run(probe_once(CHECK, params, "127.0.0.1", receiver.port, SystemClock()))
    assert (outcome.ok, outcome.reason) == (True, "acknowledged with AA")
    assert [content[:4] for content in receiver.contents] == [b"MSH|"]


def test_over_tls(run: Run) -> None:
    receiver = StreamsReceiver(server())
    try:
        ask_it = probe_once(CHECK, Params(timeout=20), "127.0.0.1", receiver.port, SystemClock(), node_tls=ANY)
        assert run(ask_it).reason == "acknowledged with AA"
        plainly = run(probe_once(CHECK, Params(timeout=20), "127.0.0.1", receiver.port, SystemClock()))
        assert not plainly.ok
    finally:
        receiver.close()


def test_the_query_is_what_the_standard_has() -> None:
    parser = package("hl7apy.parser")
    message = parser.parse_message(filled_in(QUERY, "0123456789abcdef", 1_900_000_000).decode())
    assert message.validate()
    assert (message.name, message.msh.msh_7.to_er7()) == ("NMQ_N01", "20300317174640+0000")


# The message of a site


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("", "line 1 does not begin with MSH"),
        ("FHS|^~\\&|RIS\nMSH|^~\\&|RIS", "a batch (FHS, BHS) is none"),
        ("MSH", "line 1: MSH is not followed by a separator (MSH-1); write 'MSH|^~\\&|...'"),
        ("MSHX^~\\&XRIS", "line 1: MSH is not followed by a separator"),
        ("MSH|||RIS", "line 1: MSH-2 is not four different characters; write '^~\\&'"),
        ("MSH|^^\\&|RIS", "line 1: MSH-2 is not four different"),
        ("MSH|^~\\&|RIS|||||||1|P|2.5", "line 1: MSH-9 is '', not a type that is acknowledged; write for example 'AD"),
        ("MSH|^~\\&|RIS||||||ACK^A01|1|P|2.5", "line 1: MSH-9 is 'ACK^A01', not a type that is acknowledged"),
        ("MSH|^~\\&|RIS||||||ADT^A01", "line 1: MSH-11, the processing ID, is empty; write for example 'P'"),
        ("MSH|^~\\&|RIS||||||ADT^A01|1|P", "line 1: MSH-12, the version, is empty; write for example '2.5.1'"),
        ("MSH|^~\\&|RIS||||||ADT^A01|1|P|2.5|||NE|NE", "line 1: MSH-15 and MSH-16 are 'NE' and 'NE', so a message tha"),
        ("MSH|^~\\&|RIS||||||ADT^A01|1|P|2.5|||ER", "write 'AL' into one of them, or leave both empty"),
        ("MSH|^~\\&|RIS||||||ADT^A01|1|P|2.5\npid|1", "line 2 is no segment: three capitals or digits, then '|'; a te"),
        ("MSH|^~\\&|RIS||||||ADT^A01|1|P|2.5\nPID|1\n\nPV1", "line 3 is no segment"),
        ("MSH|^~\\&|RIS||||||ADT^A01|1|P|2.5\nPID^1", "line 2 is no segment"),
        ("MSH|^~\\&|RIS||||||ADT^A01|1|P|2.5\nMSH|^~\\&", "line 2 is a second MSH; a check sends one message"),
        ("MSH|^~\\&|RIS||||||ADT^A01|1|P|2.5\nPID|\x1c", "line 2 contains '\\x1c', a control character; take it out"),
        ("MSH|^~\\&|RIS||||||ADT^A01|1|P|2.5\nPID|É", "line 2 has a character that is not ASCII, and MSH-18 does not"),
        ("MSH|^~\\&|RIS||||||ADT^A01|1|P|2.5\nNTE|" + "x" * 65536, "the message has 65574 characters; a check sends"),
    ],
)  # fmt: skip
def test_a_broken_message_is_refused_with_its_line_and_the_rule(message: str, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Params(message=message)
    assert said in str(refused.value.errors()[0]["ctx"]["error"])


def test_a_message_is_kept_as_hl7_writes_it_and_reads_the_same_again() -> None:
    once = Params(message="\n  MSH#*~\\&#RIS######ADT*A01##P#2.5######UNICODE UTF-8\r\n  PID#1##É\n\n").message
    assert once == "MSH#*~\\&#RIS######ADT*A01##P#2.5######UNICODE UTF-8\rPID#1##É\r"
    assert Params(message=once).message == once
    sent = filled_in(once, "77", 0)
    assert sent == "MSH#*~\\&#RIS####19700101000000+0000##ADT*A01#77#P#2.5######UNICODE UTF-8\rPID#1##É\r".encode()
    assert control_id(sent) == b"77"


def test_enhanced_mode_takes_the_commit_acknowledgement(run: Run) -> None:
    message = "MSH|^~\\&|RIS||||||ADT^A01||P|2.5|||AL|NE\nPID|1\n"
    outcome, heard = ask(run, answering(b"CA"), message=message)
    assert (outcome.ok, outcome.reason) == (True, "acknowledged with CA")
    assert b"|P|2.5|||AL|NE\r" in heard
