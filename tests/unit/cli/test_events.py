"""How an event of HL7 reads on a person's line."""

import json

from equipoise.cli.events import to_text
from equipoise.state.events import Event, Hl7Count, ReceiverFailed, SenderEnded


def said(event: Event) -> str:
    """Return the line that the journal's one becomes, without its time, which is local."""
    return to_text(json.loads(event.line(at=""))).strip()


def test_a_sender_that_ended_says_who_it_was_and_what_was_answered() -> None:
    event = SenderEnded(
        service="adt",
        client="10.0.0.40:50123",
        sender="RIS at MAIN SITE",
        ended="closed",
        reason="it closed between two messages",
        duration_s=86400.5,
        bytes_in=4096,
        bytes_out=512,
        messages=(Hl7Count(type="ADT^A01", answer="AA", count=12), Hl7Count(type="ORU^R01", answer="closed", count=1)),
    )
    assert said(event) == (
        'sender.ended        service=adt client=10.0.0.40:50123 sender="RIS at MAIN SITE" ended=closed '
        'reason="it closed between two messages" duration_s=86400.5 bytes_in=4096 bytes_out=512 '
        "messages=[(type=ADT^A01 answer=AA count=12), (type=ORU^R01 answer=closed count=1)] tls=none certificate=none"
    )


def test_a_receiver_that_failed_says_why_and_what_became_of_the_message() -> None:
    event = ReceiverFailed(service="adt", node="b", why="unmatched", reason="it acknowledged 'A 2'", then="closed")
    assert said(event) == (
        """receiver.failed     service=adt node=b why=unmatched reason="it acknowledged 'A 2'" then=closed"""
    )


def test_what_a_sender_calls_itself_does_not_steer_the_terminal() -> None:
    event = ReceiverFailed(service="adt", node="b", why="lost", reason="MSG\x1b[2J\nnode.up")
    assert "\x1b" not in said(event)
    assert "\n" not in said(event)
