"""HL7 senders and receivers that do everything wrong: each has a defined end and one event, and nobody else notices.

What is right though unusual is in `test_hl7_peers.py`, failures of whole machines in `test_hl7_failover.py`.
"""

import time
from collections.abc import Iterator

import pytest

from tests.system.balancer import eventually
from tests.system.hl7_hostile import MARKER, STALL_TIMEOUT_S, Hl7HostileSite, failed_since, marked
from tests.system.hl7_raw import END, START, answered, grown, wrap


@pytest.fixture(scope="module")
def site() -> Iterator[Hl7HostileSite]:
    with Hl7HostileSite() as site:
        yield site
        site.settled()


@pytest.fixture(autouse=True)
def others_go_on(site: Hl7HostileSite) -> Iterator[None]:
    with site.unharmed():
        yield


def arrived(site: Hl7HostileSite) -> list[bytes]:
    """Return what arrived of bad senders."""
    return [content for content in site.receiver.contents if b"|GOOD-" not in content]


# Senders


BAD_CONTENT = {
    "no MSH": b"PID|1||1001||" + MARKER.encode() + b"\r",
    "text": b"Hello, is this " + MARKER.encode() + b"?",
    "nothing": b"",
    "MSH alone": b"MSH",
    "UTF-16": marked("U16").decode().encode("utf-16-le"),
    "UTF-16 with its mark": marked("U16").decode().encode("utf-16"),
    "XML": b'<?xml version="1.0"?><ADT_A01><PID.5>' + MARKER.encode() + b"</PID.5></ADT_A01>",
    "only CR": b"\r\r\r",
}


@pytest.mark.parametrize("content", BAD_CONTENT.values(), ids=BAD_CONTENT)
def test_a_frame_without_a_message(site: Hl7HostileSite, content: bytes) -> None:
    before, failures = arrived(site), len(site.failures())
    sender = site.sender()
    sender.send(wrap(content))
    assert sender.over() == b""
    event = site.ended(sender)
    assert event["ended"] == "malformed", event
    assert arrived(site) == before, "it was passed on"
    failed_since(site, failures, 0)


@pytest.mark.parametrize("begin", [START, START + marked("NEVER") + END[:1] + b"x"])
def test_a_frame_that_never_ends(site: Hl7HostileSite, begin: bytes) -> None:
    sender = site.sender()
    began_s = time.monotonic()
    sender.send(begin)
    assert sender.over() == b""
    assert time.monotonic() - began_s >= STALL_TIMEOUT_S * 0.9
    assert site.ended(sender)["ended"] == "stalled"
    assert all(b"NEVER" not in content for content in arrived(site))


def test_a_sender_that_says_nothing_may_stay(site: Hl7HostileSite) -> None:
    sender = site.sender()
    sender.send(b"\r\n")  # what lies between frames begins none
    time.sleep(STALL_TIMEOUT_S * 1.5)
    assert sender.ask(marked("PATIENT-1")) == ("AA", "PATIENT-1")
    sender.close()
    assert site.ended(sender)["ended"] == "closed"


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_message_over_the_limit(site: Hl7HostileSite, is_whole: bool) -> None:
    sender = site.sender()
    content = START + grown(marked("HUGE"), 64 * 1024 + 1) + (END if is_whole else b"")
    sender.send(content)
    assert sender.over() == b""
    event = site.ended(sender)
    assert event["ended"] == "too_long", event
    assert "max_message" in event["reason"]
    assert all(b"HUGE" not in content for content in arrived(site))


def test_a_message_of_just_the_limit_passes(site: Hl7HostileSite) -> None:
    sender = site.sender()
    assert sender.ask(grown(marked("JUST-1"), 64 * 1024)) == ("AA", "JUST-1")
    sender.close()
    site.ended(sender)


def test_a_good_message_before_a_bad_one_is_acknowledged(site: Hl7HostileSite) -> None:
    sender = site.sender()
    sender.send(wrap(marked("FIRST-1")) + wrap(b"nonsense"))
    assert answered(sender.frame()) == ("AA", "FIRST-1")
    assert sender.over() == b""
    event = site.ended(sender)
    assert event["ended"] == "malformed"
    assert [(count["type"], count["answer"], count["count"]) for count in event["messages"]] == [("ADT^A01", "AA", 1)]


@pytest.mark.parametrize("resets", [False, True])
def test_a_sender_that_leaves_before_its_answer(site: Hl7HostileSite, resets: bool) -> None:
    failures = len(site.failures())
    sender = site.sender()
    sender.send(wrap(marked(f"SLOW-{resets:d}")))
    eventually(lambda: any(f"SLOW-{resets:d}".encode() in content for content in arrived(site)), what="the message")
    if resets:
        sender.reset()
    else:
        sender.close()
    event = site.ended(sender)
    if resets:
        assert event["ended"] == "gone", event
        assert f"ADT^A01 SLOW-{resets:d}" in event["reason"], event
    else:  # it cannot be told from one that sends no more and waits: it is answered
        assert event["ended"] == "closed", event
        assert [(count["answer"], count["count"]) for count in event["messages"]] == [("AA", 1)]
    failed_since(site, failures, 0)  # the receiver did nothing wrong


def test_a_sender_that_leaves_within_a_message(site: Hl7HostileSite) -> None:
    sender = site.sender()
    sender.send(START + marked("CUT-1")[:100])
    time.sleep(0.05)
    sender.close()
    assert site.ended(sender)["ended"] == "gone"
    assert all(b"CUT-1" not in content for content in arrived(site))


def test_a_sender_that_closes_its_half_within_a_message(site: Hl7HostileSite) -> None:
    sender = site.sender()
    sender.send(START + marked("CUT-2")[:100])
    sender.half_close()
    assert sender.over() == b""
    assert site.ended(sender)["ended"] == "gone"


# Receivers: of `bad` alone, the sender is closed and decides; of `pair`, the spare one is asked

WHY = {
    "OTHER": "unmatched",
    "LATE": "timeout",
    "HALF": "lost",
    "SILENT": "timeout",
    "CLOSES": "lost",
    "RESETS": "lost",
    "HALFCLOSES": "lost",
    "NOMSA": "malformed",
    "NOHL7": "malformed",
    "TOOLONG": "too_long",
    "ENDLESS": "timeout",
    "JUNK": "timeout",
}


@pytest.mark.parametrize(("manner", "why"), WHY.items())
def test_a_receiver_that_does_not_acknowledge(site: Hl7HostileSite, manner: str, why: str) -> None:
    failures = len(site.failures())
    sender = site.sender()
    sender.send(wrap(marked(f"{manner}-1")))
    assert sender.over() == b""
    (event,) = failed_since(site, failures, 1)
    assert (event["service"], event["node"], event["why"], event["then"]) == ("bad", "bad", why, "closed"), event
    ended = site.ended(sender)
    assert ended["ended"] == "unacknowledged", ended
    assert f"ADT^A01 {manner}-1" in ended["reason"]
    assert [(count["type"], count["answer"], count["count"]) for count in ended["messages"]] == [
        ("ADT^A01", "closed", 1)
    ]
    # It is not the sender's fault: it comes back and goes on.
    again = site.sender()
    assert again.ask(marked(f"AGAIN-{manner}")) == ("AA", f"AGAIN-{manner}")
    again.close()


@pytest.mark.parametrize(
    ("manner", "why"), [pair for pair in WHY.items() if pair[0] not in ("LATE", "ENDLESS", "JUNK")]
)
def test_where_receivers_deduplicate_another_one_acknowledges(site: Hl7HostileSite, manner: str, why: str) -> None:
    failures = len(site.failures())
    sender = site.sender(site.pair_port)
    assert sender.ask(marked(f"{manner}-2")) == ("AA", f"{manner}-2")
    (event,) = failed_since(site, failures, 1)
    assert (event["service"], event["node"], event["why"], event["then"]) == ("pair", "bad", why, "next"), event
    assert site.spare.ids.count(f"{manner}-2") == 1
    sender.close()
    assert site.ended(sender)["ended"] == "closed"


def test_a_second_acknowledgement_is_not_passed_on(site: Hl7HostileSite) -> None:
    failures = len(site.failures())
    sender = site.sender()
    assert sender.ask(marked("TWICE-1")) == ("AA", "TWICE-1")
    for number in range(5):
        assert sender.ask(marked(f"AFTER-{number}")) == ("AA", f"AFTER-{number}")
    sender.close()
    assert sender.buffer == b""
    (event,) = failed_since(site, failures, 1)
    assert (event["why"], event["then"]) == ("unasked", None), event


# At last


def test_nothing_of_a_patient_is_written_anywhere(site: Hl7HostileSite) -> None:
    found = site.written()
    assert any(name.endswith("events.jsonl") and content for name, content in found.items())
    assert [name for name, content in found.items() if MARKER.encode() in content] == []
    assert [name for name, content in found.items() if b"NORTH^" in content or b"1001^" in content] == []
