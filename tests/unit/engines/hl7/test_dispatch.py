"""Which message goes to which node, and when: keys, queues, holding."""

import pytest

from equipoise.base.errors import PeerError
from equipoise.engines.gateway.hl7.exchange import Stage
from equipoise.engines.gateway.pool import Picked
from equipoise.proto.hl7 import read_acknowledgement
from tests.unit.engines.hl7.scene import (
    NEVER,
    FakeSender,
    Site,
    acknowledgement,
    batch,
    message,
    node,
)


def homes(site: Site, count: int) -> str:
    """Send so many messages by one connection; return the nodes that answered them."""
    sender, nodes = site.sender(), ""
    for number in range(count):
        nodes += delivered(site, sender, message(str(number)))
    return nodes


def delivered(site: Site, sender: FakeSender, content: bytes) -> str:
    """Send a message and have it answered; return by which node."""
    exchange = sender.says(content)
    for link in site.opening:
        link.opens()
    link = next(link for link in site.links if link.exchange is exchange)
    link.acknowledges(exchange.header.control_id.decode())
    return link.node


# Nobody takes it


@pytest.mark.parametrize("nodes", ["", "a"])
def test_while_no_node_takes_work_a_message_is_held(nodes: str) -> None:
    site = Site(nodes)
    if nodes:
        site.is_now("a", "down")
    sender = site.sender()
    sender.says(message())
    assert (site.dispatch.held, site.dispatch.waiting, site.dispatch.in_flight) == (1, 1, 0)
    site.passes(2.9)
    assert sender.closed is None
    site.passes(0.2)
    assert sender.closed == "no_node"
    assert "for 3 s" in sender.why
    site.settled()


def test_a_node_that_comes_back_gets_what_is_held_at_once() -> None:
    site = Site("a")
    site.is_now("a", "down")
    sender = site.sender()
    sender.says(message())
    site.is_now("a", "up")
    site.last.opens().acknowledges()
    assert sender.done == ["AA"]


def test_what_all_have_refused_is_offered_again_twice_a_second() -> None:
    site = Site("ab")
    sender = site.sender()
    sender.says(message())
    site.last.is_refused()
    site.last.is_refused()
    assert (site.dispatch.held, len(site.links)) == (1, 2)
    for offers in range(2, 6):
        site.passes(0.6)
        assert len(site.links) == 2 * offers - 1
        site.last.is_refused()
        site.last.is_refused()
    for _ in range(20):
        site.passes(0.1)
        for link in site.opening:
            link.is_refused()
    assert sender.closed == "no_node"
    site.settled()


def test_holding_is_over_where_every_offer_takes_long() -> None:
    site = Site("ab", hl7={"hold_s": 3, "connect_timeout_s": 2})
    sender = site.sender()
    sender.says(message())
    site.passes(6)
    assert sender.closed is None
    site.passes(2.5)
    assert sender.closed == "no_node"
    site.settled()


def test_without_hold_a_sender_hears_at_once() -> None:
    site = Site("", hl7={"hold_s": 0})
    sender = site.sender()
    assert sender.says(message()).stage is Stage.OVER
    assert sender.closed == "no_node"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (message(), "AR"),
        (message(mode=("AL", "NE")), "CR"),
        (message(mode=("NE", "NE")), None),
        (message(mode=("NE", "AL")), None),
        (batch(), None),
    ],
    ids=["original", "commit", "none", "perhaps", "batch"],
)
def test_instead_of_being_closed_a_sender_may_be_told(content: bytes, code: str | None) -> None:
    site = Site("", on_no_node="reject")
    sender = site.sender()
    sender.says(content)
    site.passes(3.1)
    if code is None:
        assert (sender.closed, sender.answers) == ("no_node", [])
    else:
        said = read_acknowledgement(sender.answers[0])
        assert (said and said.code, sender.closed, sender.done) == (code, None, ["no_node"])
    site.settled()


def test_what_is_held_goes_with_its_sender() -> None:
    site = Site("")
    sender = site.sender()
    sender.says(message())
    sender.leaves()
    site.settled()


# Nobody has room


def test_who_waits_for_room_gets_it_first_come_first_served() -> None:
    site = Site("a", limit=1)
    first, link = site.asking()
    others = [site.sender() for _ in range(3)]
    for number, sender in enumerate(others):
        sender.says(message(str(number)))
    assert (site.dispatch.waiting, site.dispatch.held) == (3, 0)
    link.acknowledges()
    for number, sender in enumerate(others):
        assert [each.done for each in others[number + 1 :]] == [[]] * (2 - number)
        link.acknowledges(str(number))
        assert sender.done == ["AA"]
    assert len(site.links) == 1
    site.settled()
    assert first.done == ["AA"]


def test_room_is_waited_for_so_long_and_no_longer() -> None:
    site = Site("a", limit=1, queue_wait_s=5)
    _, link = site.asking()
    sender = site.sender()
    sender.says(message("2"))
    site.passes(4.9)
    assert sender.closed is None
    site.passes(0.2)
    assert sender.closed == "full"
    link.acknowledges()
    site.settled()


def test_the_services_own_limit_counts_messages() -> None:
    site = Site("ab", balance="round_robin", service_limit=1)
    _, link = site.asking()
    sender = site.sender()
    sender.says(message("2"))
    assert site.dispatch.waiting == 1
    link.acknowledges()
    site.last.opens().acknowledges("2")
    assert sender.done == ["AA"]
    site.settled()


def test_who_belongs_to_a_full_node_waits_for_it_and_the_others_do_not_wait_for_them() -> None:
    site = Site("ab", key="sender", balance="round_robin", limit=1)
    ris = site.sender()
    home = delivered(site, ris, message("1", by="RIS"))
    lis = site.sender()
    other = delivered(site, lis, message("1", by="LIS"))
    assert {home, other} == {"a", "b"}
    ris.says(message("2", by="RIS"))
    site.sender().says(message("3", by="RIS"))
    assert site.dispatch.waiting == 1
    assert delivered(site, lis, message("4", by="LIS")) == other


def test_who_belongs_to_a_backup_is_not_kept_by_those_who_wait_for_primaries() -> None:
    site = Site((node("a", 1), node("z", 1, backup=True)))
    site.is_now("a", "down")
    at_backup, link = site.asking()
    later = site.sender()
    later.home = "z"  # it was settled there, too
    site.is_now("a", "up")
    site.asking(message("2"))
    site.sender().says(message("3"))
    later.says(message("4"))
    assert site.dispatch.waiting == 2
    link.acknowledges()
    assert at_backup.done == ["AA"]
    assert link.sent[-1] == message("4")


# What stays together


def test_a_connection_keeps_its_node() -> None:
    assert homes(Site("abc", balance="round_robin"), 5) == "aaaaa"


def test_each_message_goes_anywhere() -> None:
    assert homes(Site("abc", key="message", balance="round_robin"), 6) == "abcabc"


def test_connections_are_spread_anew_between_messages_and_not_at_each() -> None:
    site = Site("ab", balance="round_robin")
    site.is_now("b", "down")
    senders = [site.sender() for _ in range(4)]
    assert {delivered(site, sender, message()) for sender in senders} == {"a"}
    site.is_now("b", "up")
    assert {delivered(site, sender, message()) for sender in senders} == {"a"}
    site.passes(1.1)
    assert sorted(delivered(site, sender, message()) for sender in senders) == ["a", "a", "b", "b"]


def test_one_sender_keeps_its_node_over_all_its_connections() -> None:
    site = Site("abc", key="sender", balance="round_robin")
    assert {delivered(site, site.sender(), message(by="RIS")) for _ in range(4)} == {"a"}
    assert {delivered(site, site.sender(), message(by="LIS")) for _ in range(4)} == {"b"}


def test_a_patient_keeps_its_node_whoever_sends() -> None:
    site = Site("abc", key="patient")
    by_patient = {
        patient: {delivered(site, site.sender(), message(patient=patient)) for _ in range(3)} for patient in "123456"
    }
    assert {len(nodes) for nodes in by_patient.values()} == {1}
    assert len(set.union(*by_patient.values())) > 1


def test_messages_without_a_patient_go_by_their_connection() -> None:
    site = Site("abc", key="patient")
    for content in (message(), batch()):
        sender = site.sender()
        nodes = set()
        for _ in range(3):
            exchange = sender.says(content)
            if not site.last.is_open:
                site.last.opens()
            link = next(link for link in site.links if link.exchange is exchange)
            link.acknowledges()
            nodes.add(link.node)
        assert len(nodes) == 1


# One message a patient


def test_a_patients_messages_go_one_by_one() -> None:
    site = Site("a", key="patient")
    _, link = site.asking(message("1", patient="P"))
    second, other = site.sender(), site.sender()
    second.says(message("2", patient="P"))
    other.says(message("3", patient="Q"))
    site.last.opens().acknowledges("3")
    assert (second.done, other.done) == ([], ["AA"])
    link.acknowledges("1")
    assert sum(message("2", patient="P") in each.sent for each in site.links) == 1
    next(each for each in site.links if each.exchange).acknowledges("2")
    assert second.done == ["AA"]
    site.settled()


def test_a_merge_waits_for_both_patients() -> None:
    site = Site("a", key="patient")
    _, of_p = site.asking(message("1", patient="P"))
    _, of_q = site.asking(message("2", patient="Q"))
    merging = site.sender()
    merging.says(message("3", patient="P", merged="Q", kind="ADT^A40"))
    later = site.sender()
    later.says(message("4", patient="Q"))
    of_p.acknowledges("1")
    assert len(site.links) == 2
    of_q.acknowledges("2")
    merge = next(each for each in site.links if each.exchange)
    assert merge.sent[-1] == message("3", patient="P", merged="Q", kind="ADT^A40")
    assert later.done == []
    merge.acknowledges("3")
    next(each for each in site.links if each.exchange).acknowledges("4")
    assert (merging.done, later.done) == (["AA"], ["AA"])
    site.settled()


def test_who_waits_too_long_for_earlier_messages_of_its_patient() -> None:
    site = Site("a", key="patient", hl7={"ack_timeout_s": 300}, queue_wait_s=5)
    _, link = site.asking(message("1", patient="P"))
    sender = site.sender()
    sender.says(message("2", patient="P"))
    link.says_bytes(b"\x0b" + bytes(20_000))  # its answer is long, and on its way
    site.passes(304, step_s=1)
    assert sender.closed is None
    site.passes(2)
    assert sender.closed == "full"
    assert "earlier messages of the same patient" in sender.why


def test_who_leaves_while_it_waits_for_its_patient_is_forgotten() -> None:
    site = Site("a", key="patient")
    _, link = site.asking(message("1", patient="P"))
    second, third = site.sender(), site.sender()
    second.says(message("2", patient="P"))
    third.says(message("3", patient="P"))
    second.leaves()
    link.acknowledges("1")
    assert link.sent == [message("1", patient="P"), message("3", patient="P")]
    link.acknowledges("3")
    assert third.done == ["AA"]
    site.settled()


def test_a_patients_turn_is_not_over_when_its_sender_has_left() -> None:
    site = Site("a", key="patient")
    first, link = site.asking(message("1", patient="P"))
    site.sender().says(message("2", patient="P"))
    first.leaves()
    assert len(site.links) == 1
    link.acknowledges("1")
    assert link.sent[-1] == message("2", patient="P")


def test_messages_of_more_patients_than_can_be_meant_are_not_taken() -> None:
    site = Site("a", key="patient")
    with pytest.raises(PeerError):
        site.sender().says(message(patient="~".join(map(str, range(20_000)))))
    site.settled()


@pytest.mark.parametrize("why", ["none is answered", "none is held"])
def test_many_that_wait_for_one_patient_do_not_nest(why: str) -> None:
    mode = NEVER if why == "none is answered" else ("", "")
    site = Site("a", key="patient", hl7={"hold_s": 0})
    _, link = site.asking(message("1", patient="P"))
    senders = [site.sender() for _ in range(1000)]
    for sender in senders:
        sender.says(message("2", mode, patient="P"))
    if why == "none is held":
        site.is_now("a", "down")
    link.acknowledges("1")
    site.settled()
    assert all(sender.done or sender.closed for sender in senders)


def test_who_waits_for_its_patient_is_not_in_flight() -> None:
    site = Site("a", key="patient")
    site.asking(message("1", patient="P"))
    site.sender().says(message("2", patient="P"))
    assert site.dispatch.in_flight == 1


# A receiver that takes one connection


def test_the_next_message_waits_until_the_broken_connection_is_closed() -> None:
    site = Site("a", limit=1)
    _, broken = site.asking()
    broken.acknowledges("999")
    sender = site.sender()
    sender.says(message("2"))
    assert site.there("a") == 1
    broken.ends()
    assert site.there("a") == 1
    site.last.opens().acknowledges("2")
    assert sender.done == ["AA"]
    site.settled()


def test_where_that_takes_too_long_the_next_node_is_asked_and_nobody_blamed() -> None:
    site = Site((node("a", 1), node("b")))
    _, broken = site.asking()
    broken.acknowledges("999")
    site.blamed.clear()
    site.sender().says(message("2"))
    site.passes(2.1)
    assert site.last.node == "b"
    assert site.blamed == []


def test_a_node_without_a_port_has_one_connection_for_two_ports_of_ours() -> None:
    site = Site((node("a", 1, port=None),))
    one, two = site.sender(port=2575), site.sender(port=2576)
    one.says(message("1"))
    first = site.last.opens()
    first.acknowledges("1")
    two.says(message("2"))
    assert (first.is_closing, site.there("a")) == (True, 1)
    first.ends()
    assert (site.last.port, site.there("a")) == (2576, 1)
    site.last.opens().acknowledges("2")
    assert two.done == ["AA"]
    site.settled()


def test_a_connection_that_opens_for_nobody_serves_who_waits_for_it() -> None:
    site = Site("a", limit=1)
    gone = site.sender()
    gone.says(message("1"))
    link = site.last
    gone.leaves()
    sender = site.sender()
    sender.says(message("2"))
    link.opens()
    assert link.sent == [message("2")]


def test_who_waited_for_room_and_has_it_is_not_sent_again() -> None:
    site = Site("a", key="message", limit=2)
    _, one = site.asking(message("1"))
    _, two = site.asking(message("2"))
    two.acknowledges("999")  # is closed, and takes a while
    sender = site.sender()
    sender.says(message("3"))
    one.acknowledges("1")  # is free
    two.ends()
    assert one.sent[-1] == message("3")
    _, four = site.asking(message("4"))
    four.ends()
    for link in site.opening:
        link.opens()
    assert sum(message("3") in link.sent for link in site.links) == 1
    one.acknowledges("3")
    assert sender.done == ["AA"]


# The configuration is loaded anew


def test_connections_to_an_address_that_has_changed_are_used_no_more() -> None:
    site = Site("a")
    first, busy = site.asking()
    _, free = site.asking(message("2"))
    free.acknowledges("2")
    site.passes(1)
    site.configure((node("a", port=2600),))
    assert (busy.is_open, free.is_open) == (True, False)
    busy.acknowledges()
    assert first.done == ["AA"]
    assert not busy.is_open
    site.passes(1)
    _, fresh = site.asking(message("3"))
    assert fresh.port == 2600


def test_who_waits_for_room_goes_to_the_new_address() -> None:
    site = Site("a", limit=1)
    _, broken = site.asking()
    broken.acknowledges("999")
    site.sender().says(message("2"))
    site.configure((node("a", 1, port=2600),))
    site.passes(1)
    broken.ends()
    assert [link.port for link in site.opening] == [2600]


def test_a_node_that_leaves_the_configuration_ends_what_it_has() -> None:
    site = Site("ab")
    sender, link = site.asking()
    site.configure((node("b"),))
    link.acknowledges()
    assert sender.done == ["AA"]
    assert not link.is_open
    sender.says(message("2"))
    assert site.last.node == "b"
    site.last.opens().acknowledges("2")
    site.settled()


def test_what_is_held_goes_to_a_node_that_is_added() -> None:
    site = Site("")
    sender = site.sender()
    sender.says(message())
    site.configure((node("a"),))
    site.last.opens().acknowledges()
    assert sender.done == ["AA"]
    site.settled()


# A sender leaves


@pytest.mark.parametrize("stage", ["held", "full", "connecting"])
def test_what_no_receiver_has_seen_goes_with_its_sender(stage: str) -> None:
    site = Site("a", limit=1)
    place = site.pool.take("a") if stage == "full" else None
    if stage == "held":
        site.is_now("a", "down")
    sender = site.sender()
    sender.says(message())
    sender.leaves()
    if isinstance(place, Picked):
        site.pool.release(place)
    site.is_now("a", "up")
    site.settled()
    for link in site.opening:
        link.opens()
    assert all(link.sent == [] for link in site.links)
    assert site.delivery.counting.shown(0, 0).by_type == {"ADT^A01": {"closed": 1}}


def test_what_a_receiver_has_goes_on_to_its_answer() -> None:
    site = Site("a", limit=1)
    sender, link = site.asking()
    sender.leaves()
    second = site.sender()
    second.says(message("2"))
    assert site.dispatch.waiting == 1, "the receiver still has the first one"
    link.acknowledges()
    assert sender.answers == []
    link.acknowledges("2")
    assert second.answers == [acknowledgement("2")]
    site.settled()
