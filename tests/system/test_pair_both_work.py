"""Both machines work: some addresses are at home on the second one, and either takes over those of the other."""

import json
from collections.abc import Iterator

import pytest

from tests.system.balancer import eventually
from tests.system.pair_stage import SECOND_VIP, VIP, WEB, WITHIN_S, Pair, in_pair, nothing, services, short

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    # Not l4_nat on the second one: its nodes have one default gateway, which moves with the primary's addresses.
    second = {name: each for name, each in services(SECOND_VIP, "second-").items() if each.get("mode") != "l4_nat"}
    shown, cluster = {**services(), **second}, {"on_secondary": [SECOND_VIP]}
    with in_pair(tmp_path_factory.mktemp("pair"), shown=shown, cluster=cluster) as pair:
        yield pair


def at_home(pair: Pair) -> None:
    """Have each machine carry its own addresses."""
    pair.whole()
    for machine, vip, group in ((pair.first, VIP, "primary"), (pair.second, SECOND_VIP, "secondary")):
        if not machine.holds(vip):
            machine.hand_over(group, here=True)
    pair.whole()
    assert (pair.holders(VIP), pair.holders(SECOND_VIP)) == ([pair.first], [pair.second])


def test_each_machine_serves_the_addresses_that_are_at_home_there(pair: Pair) -> None:
    at_home(pair)
    for vip, machine in ((VIP, pair.first), (SECOND_VIP, pair.second)):
        with pair.lab.far.call(vip, WEB) as call:
            assert call.who()[1] == machine.address, "the node sees the machine that the address is on"


@pytest.mark.parametrize("lost", ["first", "second"])
def test_either_machine_takes_over_the_work_of_the_other(pair: Pair, lost: str) -> None:
    at_home(pair)
    machine, vip, untouched = (pair.first, VIP, SECOND_VIP) if lost == "first" else (pair.second, SECOND_VIP, VIP)
    other = pair.other(machine)
    with pair.prober(vip=vip) as moved, pair.prober(vip=untouched) as kept, pair.without_power(machine):
        eventually(lambda: pair.holders(vip) == [other], WITHIN_S, "the other to have both")
        moved.stop()
        kept.stop()
    short(moved.seen)
    nothing(kept.seen)
    pair.whole()
    assert pair.holders(vip) == [other], "they stay until they are handed over"


def test_with_preempt_addresses_go_home_by_themselves(pair: Pair) -> None:
    at_home(pair)
    before = json.loads(pair.document())
    pair.first.apply(json.dumps({**before, "cluster": {**before["cluster"], "preempt": True}}))
    try:
        with pair.without_power(pair.second):
            eventually(lambda: pair.holders(SECOND_VIP) == [pair.first], WITHIN_S, "the other to have both")
        eventually(lambda: pair.holders(SECOND_VIP) == [pair.second], WITHIN_S, "the address at home")
        assert pair.holders(VIP) == [pair.first]
    finally:
        pair.first.apply(json.dumps(before))
    pair.whole()
