"""The audit's verdicts, each on a history made by hand that must be found bad, beside its good twin."""

import pytest

from equipoise.sim.hl7_audit import Key, MessageAudit, audit_messages
from equipoise.sim.hl7_ledger import Answered, Sent, Taken


def sent(name: str, *sends_s: float, acked: tuple[str, float] | None = None, by: str = "HIS", of: str = "P1") -> Sent:
    answers = [Answered(*acked)] if acked else []
    return Sent(name, "ADT^A08", by, tuple(of.split()), f"digest {name}", list(sends_s), answers)


def taken(name: str, at_s: float, code: str = "AA", digest: str | None = None) -> Taken:
    return Taken(
        at_s=at_s,
        control_id=name,
        kind="ADT^A08",
        patients=(),
        digest=digest or f"digest {name}",
        size_bytes=1,
        code=code,
    )


def look(said: list[Sent], *taken_by_a: Taken, key: Key = Key.CONNECTION, deduplicate: bool = False) -> MessageAudit:
    return audit_messages(said, {"a": taken_by_a}, key=key, receivers_deduplicate=deduplicate)


def test_a_good_history_is_good() -> None:
    said = [sent("1", 0, acked=("AA", 2)), sent("2", 3, acked=("CA", 5))]
    found = audit_messages(said, {"a": [taken("1", 1)], "b": [taken("2", 4)]}, key=Key.CONNECTION)
    assert found.problems() == []
    assert found == MessageAudit(unharmed=("1", "2"), by_receiver={"a": 1, "b": 1})


@pytest.mark.parametrize("code", ["AA", "CA"])
def test_acknowledged_and_nowhere_is_lost(code: str) -> None:
    found = look([sent("1", 0, acked=(code, 2))])
    assert found.lost == ("1",)
    assert found.problems() == ["1 acknowledged messages are at no receiver: 1"]


def test_acknowledged_and_rejected_by_its_receiver_is_lost() -> None:
    assert look([sent("1", 0, acked=("AA", 2))], taken("1", 1, code="AR")).lost == ("1",)


@pytest.mark.parametrize("code", ["AE", "AR", "CE", "CR", "other"])
def test_what_the_sender_heard_no_good_of_is_not_lost(code: str) -> None:
    assert look([sent("1", 0, acked=(code, 2)), sent("2", 3)]).problems() == []


def test_an_acknowledgement_before_the_delivery_is_early() -> None:
    found = look([sent("1", 0, acked=("AA", 2))], taken("1", 3))
    assert found.early == ("1",)
    assert found.problems() == ["1 messages were acknowledged before a receiver had them: 1"]


def test_other_bytes_are_harm() -> None:
    found = look([sent("1", 0, acked=("AA", 2))], taken("1", 1, digest="other"))
    assert (found.harmed, found.unharmed) == (("1",), ())
    assert found.problems() == ["1 messages are not as sent: 1"]


def test_twice_for_one_attempt_is_a_duplicate() -> None:
    found = look([sent("1", 0, acked=("AA", 5))], taken("1", 1), taken("1", 2))
    assert found.duplicated == ("1",)
    assert found.problems() == ["1 messages were delivered more often than they were sent: 1"]


def test_twice_for_two_attempts_is_none() -> None:
    found = look([sent("1", 0, 2, acked=("AA", 5))], taken("1", 1), taken("1", 3))
    assert (found.problems(), found.repeated) == ([], 1)


def test_a_later_attempt_does_not_explain_an_earlier_delivery() -> None:
    assert look([sent("1", 0, 3, acked=("AA", 5))], taken("1", 1), taken("1", 2)).duplicated == ("1",)


def test_receivers_that_deduplicate_may_get_more() -> None:
    found = look([sent("1", 0, acked=("AA", 5))], taken("1", 1), taken("1", 2), deduplicate=True)
    assert (found.problems(), found.repeated) == ([], 1)


def test_what_a_receiver_rejected_was_not_delivered() -> None:
    said = [sent("1", 0, acked=("AA", 5))]
    found = audit_messages(said, {"a": [taken("1", 1, code="AR")], "b": [taken("1", 2)]}, key=Key.CONNECTION)
    assert (found.problems(), found.by_receiver) == ([], {"b": 1})


OVERTAKEN = ([sent("1", 0, of="P1 P2"), sent("2", 3, of="P2"), sent("3", 4, of="P3")], taken("2", 4), taken("1", 5))


@pytest.mark.parametrize(
    ("key", "found"), [(Key.CONNECTION, ("1",)), (Key.SENDER, ("1",)), (Key.PATIENT, ("1",)), (Key.MESSAGE, ())]
)
def test_an_overtaken_message_is_out_of_order_where_its_key_keeps_order(key: Key, found: tuple[str, ...]) -> None:
    said, *lines = OVERTAKEN
    assert look(said, *lines, key=key).out_of_order == found


def test_it_is_told_once_and_in_words() -> None:
    said, *lines = OVERTAKEN
    found = look(said, *lines, taken("3", 4.5))
    assert found.problems() == ["1 messages came after later ones of the same sender: 1"]


def test_other_patients_and_other_senders_may_overtake() -> None:
    patients = [sent("1", 0, of="P1"), sent("2", 3, of="P2")]
    assert look(patients, taken("2", 4), taken("1", 5), key=Key.PATIENT).out_of_order == ()
    senders = [sent("1", 0, by="HIS"), sent("2", 3, by="RIS")]
    assert look(senders, taken("2", 4), taken("1", 5)).out_of_order == ()


def test_a_repetition_behind_later_messages_is_in_order() -> None:
    said = [sent("1", 0, 1), sent("2", 3)]
    assert look(said, taken("1", 0.5), taken("2", 4), taken("1", 5)).out_of_order == ()


def test_what_was_refused_when_it_was_sent_again_may_come_late_from_its_first_receiver() -> None:
    late = taken("2", 6), taken("1", 8)
    assert look([sent("1", 0, 1, acked=("AE", 2)), sent("2", 5, acked=("AA", 7))], *late).out_of_order == ()
    assert look([sent("1", 0, acked=("AE", 2)), sent("2", 5, acked=("AA", 7))], *late).out_of_order == ("1",)
    assert look([sent("1", 0, 1, acked=("AA", 9)), sent("2", 5, acked=("AA", 7))], *late).out_of_order == ("1",)


def test_what_nobody_sent_and_what_nobody_was_told_of_is_counted() -> None:
    found = look([sent("1", 0)], taken("1", 1), taken("check", 2))
    assert (found.problems(), found.unacknowledged, found.unknown) == ([], 1, 1)
