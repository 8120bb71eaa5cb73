"""What is known of the peer by what it said, and by how long ago that was."""

from msgspec.structs import replace

from equipoise.app.pair.peer import SILENT_AFTER_S, Peer
from tests.unit.api.two_halves import hello
from tests.unit.cluster.two_machines import SetClock


def test_since_when_it_has_addresses_is_said_by_our_clock() -> None:
    clock = SetClock(wall_s=5000.0)
    peer = Peer(clock)
    peer.hear(replace(hello(), clock_s=9000.0))  # an hour and more ahead of ours
    clock.wall_s, clock.now_s = clock.wall_s + 1, clock.now_s + 1
    group = peer.group("primary")
    assert group is not None
    assert group.for_s == 12.5
    assert peer.since(group) == 5000.0 - 12.5
    assert peer.clock_off_s == 4000.0


def test_what_it_said_does_not_hold_once_it_is_silent() -> None:
    clock = SetClock()
    peer = Peer(clock)
    assert not peer.is_connected
    peer.hear(hello())
    assert peer.is_connected
    assert peer.cannot_take(("primary",)) is None
    clock.now_s += SILENT_AFTER_S
    assert not peer.is_connected
    assert peer.group("primary") is None
    assert "does not answer" in str(peer.cannot_take(("primary",)))
    assert peer.said is not None  # for people, with its age
