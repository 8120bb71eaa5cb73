"""What is counted, how long it stands, and what becomes of a look that slots overtake."""

import asyncio
import threading
from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest

from equipoise.engines.layer4.artifact import Pool
from equipoise.engines.layer4.counting import SHARE_OF_A_CORE, Counting
from equipoise.engines.layer4.kernel import Counts
from equipoise.engines.layer4.kernel_tables import Names
from tests.unit.engines.layer4.fake_kernel import FakeKernel
from tests.unit.engines.layer4.plans import artifact_of, text_of

PATIENCE_S = 20.0
NODES = "{a: {address: 10.0.0.11}, b: {address: 10.0.0.12}}"
SERVICES = f"""
d: {{protocol: tcp, ports: [80], mode: l4_dr, listen: 10.0.0.100, nodes: {NODES}}}
n: {{protocol: tcp, ports: [81], mode: l4_nat, listen: 10.0.0.100, nodes: {NODES}}}
"""


class Scene(FakeKernel):
    """A kernel, and a clock; a look takes `takes_s` of a core, and one that `waits` does so until it `may_end`."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s, self.takes_s, self.waits = 1000.0, 0.0, False
        self.began, self.may_end = threading.Event(), threading.Event()
        self.artifact = artifact_of(SERVICES)
        self.load(text_of(self.artifact))
        self.d, self.n = self.artifact.pools
        self.counting = Counting(self, self)

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s

    def counts(self, pools: Collection[Pool], found: Mapping[str, Names]) -> Counts:
        counted = replace(super().counts(pools, found), cost_s=self.takes_s)
        if self.waits:
            self.waits = False
            self.began.set()
            assert self.may_end.wait(PATIENCE_S)
        return counted

    def look(self, *pools: Pool) -> None:
        asyncio.run(self.counting.look(pools or self.artifact.pools, self.found(), whole=not pools))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_nothing_was_counted_yet(scene: Scene) -> None:
    assert scene.counting.live(scene.d) == {"a": 0, "b": 0}
    assert scene.counting.next_slot(scene.d) == 0
    assert not scene.counting.is_fresh


def test_only_what_is_of_a_pools_nodes_is_theirs(scene: Scene) -> None:
    a, b = (member.mark for member in scene.n.members)
    scene.connections = {a: 3, b: 1, 0x45FFFFFF: 9}
    scene.packets = {"inet in-n/a": (10, 1000), "inet out-n/a": (20, 5000), "netdev in-n/a": (7, 7)}
    scene.look()
    assert scene.counting.live(scene.n) == {"a": 3, "b": 1}
    found = scene.counting.observation(scene.artifact.pools, {"d": "the interface is gone"})
    assert found.connections == {"d": 0, "n": 4}
    assert found.problems == {"d": "the interface is gone"}
    count = found.nodes["n/a"]
    assert (count.connections, count.bytes_in, count.bytes_out) == (3, 1000, 5000)
    assert set(found.nodes) == {"d/a", "d/b", "n/a", "n/b"}


def test_the_next_slot_goes_round_with_the_picks(scene: Scene) -> None:
    scene.packets = {"netdev picks-d": (scene.d.slots * 3 + 17, 0), "inet picks-n": (4, 0)}
    scene.look()
    assert (scene.counting.next_slot(scene.d), scene.counting.next_slot(scene.n)) == (17, 4)


def test_who_was_silent_for_long_is_live_and_makes_nobody_busy(scene: Scene) -> None:
    """Of direct routing alone: connection tracking sees both ways, and knows what is over."""
    d, n = scene.d.members[0].mark, scene.n.members[0].mark
    scene.connections, scene.talking = {d: 5, n: 5}, {d: 2}
    scene.look()
    assert (scene.counting.live(scene.d), scene.counting.busy(scene.d)) == ({"a": 5, "b": 0}, {"a": 2, "b": 0})
    assert scene.counting.busy(scene.n) == scene.counting.live(scene.n) == {"a": 5, "b": 0}
    assert scene.counting.observation(scene.artifact.pools, {}).connections == {"d": 5, "n": 5}


def test_a_look_at_some_pools_leaves_the_others_as_they_were_counted(scene: Scene) -> None:
    d, n = scene.d.members[0].mark, scene.n.members[0].mark
    scene.connections = {d: 1, n: 1}
    scene.look()
    scene.connections = {d: 2, n: 2}
    scene.look(scene.d)
    assert (scene.counting.live(scene.d)["a"], scene.counting.live(scene.n)["a"]) == (2, 1)


@pytest.mark.parametrize(("takes_s", "fresh_s"), [(0.0, 0.2), (0.003, 0.2), (0.06, 2.0), (3.0, 100.0)])
def test_a_look_stands_the_longer_the_longer_it_took(scene: Scene, takes_s: float, fresh_s: float) -> None:
    """Looking takes its share of the time at the most."""
    scene.takes_s = takes_s
    scene.look()
    scene.now_s += fresh_s * 0.99
    assert scene.counting.is_fresh
    scene.now_s += fresh_s * 0.02
    assert not scene.counting.is_fresh
    assert takes_s <= fresh_s * SHARE_OF_A_CORE * 1.001


def test_a_look_at_some_pools_is_none_at_all(scene: Scene) -> None:
    scene.look(scene.d)
    assert not scene.counting.is_fresh


def test_with_new_slots_turns_begin_anew_and_what_is_live_is_known(scene: Scene) -> None:
    mark = scene.d.members[0].mark
    scene.packets = {"netdev picks-d": (17, 0)}
    scene.look()
    scene.connections = {mark: 5}
    asyncio.run(scene.counting.restart(scene.artifact.pools, scene.found()))
    assert scene.counting.live(scene.d)["a"] == 5
    assert scene.counting.next_slot(scene.d) == 0
    assert not scene.counting.is_fresh


def test_a_look_that_new_slots_overtake_is_discarded(scene: Scene) -> None:
    """It has read the former counter of turns."""
    mark = scene.d.members[0].mark
    scene.connections, scene.packets = {mark: 9}, {"netdev picks-d": (17, 0)}

    async def act() -> None:
        scene.waits = True
        pools, found = scene.artifact.pools, scene.found()
        looking = asyncio.get_running_loop().create_task(scene.counting.look(pools, found, whole=True))
        assert await asyncio.to_thread(scene.began.wait, PATIENCE_S)
        scene.connections = {mark: 1}
        await scene.counting.restart(pools, found)
        scene.may_end.set()
        await looking
        assert scene.counting.live(scene.d)["a"] == 1
        assert scene.counting.next_slot(scene.d) == 0
        assert not scene.counting.is_fresh
        await scene.counting.look(pools, found, whole=True)
        assert scene.counting.next_slot(scene.d) == 17, "the next look counts"
        assert scene.counting.is_fresh

    asyncio.run(act())


def test_a_look_at_counters_alone_does_not_shorten_the_pause_after_a_dear_one(scene: Scene) -> None:
    scene.takes_s = 0.6
    scene.look()
    scene.takes_s = 0.001
    asyncio.run(scene.counting.look((), scene.found()))
    assert scene.counting.pause_s == pytest.approx(0.6 / SHARE_OF_A_CORE)
