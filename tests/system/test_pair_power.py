"""A machine of the pair is gone, or cannot be heard: what users see of it, for each way that traffic travels."""

import time
from contextlib import ExitStack, closing

import pytest

from equipoise.proto.dicom.association import encode_request
from equipoise.proto.dicom.pdu import RELEASE_RP, RELEASE_RQ, PduType
from tests.lab.lab import SOURCES
from tests.system.balancer import eventually
from tests.system.pair_clients import everything_told, followed_downloads, nodes_of_clients, tracking
from tests.system.pair_machine import Machine
from tests.system.pair_stage import (
    DICOM,
    DIRECT,
    INTERRUPTED_S,
    TRANSLATED,
    VIP,
    WEB,
    WITHIN_S,
    Pair,
    nothing,
    short,
    silent,
    stays,
)
from tests.system.rawpeer import CONTEXTS, Wire

pytestmark = pytest.mark.timeout(300)


def test_power_loss_interrupts_new_connections_for_a_moment_and_the_machine_comes_back_unnoticed(pair: Pair) -> None:
    active, standby = pair.whole()
    ways = {"l4_dr": DIRECT, "l4_nat": TRANSLATED, "http": WEB, "dicom": DICOM}
    with ExitStack() as stack:
        probers = stack.enter_context(pair.probers(*ways.values()))
        with pair.without_power(active):
            pair.moved_from(active)
            pair.serves()
            found = [prober.stop() for prober in probers]
            afterwards = stack.enter_context(pair.prober())
        pair.whole()
    for way, seen in zip(ways, found, strict=True):
        short(seen, way)
    nothing(afterwards.seen)
    assert pair.holders() == [standby], "the addresses stay where they are"
    assert standby.balancer.events("cluster.peer_lost")[-1]["peer"] == active.address
    assert standby.cluster()["last_failover"], "and it says when and why it took over"


def test_layer_4_downloads_go_on_through_the_power_loss_of_their_balancer(pair: Pair) -> None:
    """Those of l4_nat where conntrackd runs, as docs/explanation say."""
    active, standby = pair.whole()
    with tracking(active, standby):
        downloads = followed_downloads(pair, active, standby)
        with pair.without_power(active):
            assert all(download.is_whole() for download in downloads)


def test_clients_find_the_same_node_on_the_other_machine_after_a_power_loss(pair: Pair) -> None:
    active, standby = pair.whole()
    web, senders = SOURCES[:9], SOURCES[10:19]
    before = nodes_of_clients(pair, web), nodes_of_senders(pair, active, senders)
    everything_told(active)
    pair.whole()
    with pair.without_power(active):
        pair.moved_from(active)
        # In another order, so that a balancer that knows nothing would choose otherwise.
        after = nodes_of_clients(pair, web[::-1]), nodes_of_senders(pair, standby, senders[::-1])
    assert after == before
    assert [set(found.values()) for found in before] == [{"a", "b"}, {"a", "b"}]


def test_a_pulled_cable_interrupts_new_connections_for_a_moment(pair: Pair) -> None:
    active, standby = pair.whole()
    with pair.prober() as prober:
        active.host.unplug()
        try:
            pair.moved_from(active)
            pair.serves()
        finally:
            active.host.plug()
        eventually(lambda: pair.holders() == [standby], WITHIN_S, "one holder, once the cable is back")
        pair.serves()
    short(prober.seen)


def test_while_the_active_machine_cannot_send_the_other_serves(pair: Pair) -> None:
    active, standby = pair.whole()
    with pair.prober() as prober:
        with pair.lost(active.host.sent()):
            pair.moved_from(active)
            silent(standby)
            pair.serves()
        pair.whole()
    assert prober.seen.longest_gap() < INTERRUPTED_S, prober.seen


@pytest.mark.parametrize("home", ["balancer", "standby"])
def test_while_the_standby_hears_nothing_users_are_served(pair: Pair, home: str) -> None:
    """It thinks that the active machine is gone; `home` is the one that hears nothing, the primary and the other."""
    active, standby = pair.whole()
    if standby.name != home:
        active.hand_over()
        active, standby = pair.whole()
    assert standby.name == home
    with pair.prober() as prober:
        with pair.lost(standby.host.heard()):
            silent(active)
            time.sleep(3)  # in which the address may come and go
            pair.serves()
        pair.whole()
    assert prober.seen.longest_gap() < INTERRUPTED_S, prober.seen


def test_a_pulled_cable_of_the_standby_is_noticed_by_operators_alone(pair: Pair) -> None:
    active, standby = pair.whole()
    with pair.prober() as prober:
        standby.host.unplug()
        try:
            silent(active)
            said = active.command("cluster", "status", good=(2,))
            stays(lambda: active.holds(VIP))
        finally:
            standby.host.plug()
        pair.whole()
    assert "NOT SURVIVE" in said
    nothing(prober.seen)
    assert pair.holders() == [active]


def associate(pair: Pair, source: str) -> None:
    """Open an association from one of the client's addresses, and release it."""
    with closing(pair.lab.far.host.connect(VIP, DICOM, source=source, timeout_s=20)) as connected:
        wire = Wire(connected)
        wire.send(encode_request("PACS", "SENDER", CONTEXTS))
        answer = wire.pdu()
        assert answer is not None
        assert answer.type is PduType.ASSOCIATE_AC, answer
        wire.send(RELEASE_RQ)
        answer = wire.pdu()
        assert answer is not None
        assert answer.encode() == RELEASE_RP


def nodes_of_senders(pair: Pair, machine: Machine, sources: tuple[str, ...]) -> dict[str, str]:
    """Return which node each of these senders reached, through this machine."""
    known = len(machine.balancer.events("association.ended"))
    for source in sources:
        associate(pair, source)

    def look() -> list[dict[str, str]]:
        found = [event for event in machine.balancer.events("association.ended")[known:] if event["node"]]
        return found if len(found) >= len(sources) else []

    events = eventually(look, WITHIN_S, "the end of all associations")
    return {event["client"].rpartition(":")[0]: event["node"] for event in events}
