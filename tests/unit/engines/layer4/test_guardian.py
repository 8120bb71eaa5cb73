from collections.abc import Collection, Mapping

import pytest

from equipoise.engines.layer4.artifact import Pool
from equipoise.engines.layer4.guardian import Guardian
from equipoise.engines.layer4.kernel import Counts
from equipoise.engines.layer4.kernel_tables import Names
from equipoise.plan.inputs import Way
from equipoise.plan.model import ManagedAddress
from equipoise.state.events import Event
from equipoise.state.network_events import FlowsFull, NeighbourMoved
from tests.unit.engines.layer4.fake_kernel import FakeKernel
from tests.unit.engines.layer4.plans import WayTo, artifact_of, by_eth0, text_of

NODES = "{a: {address: 10.0.0.11}, b: {address: 10.0.0.12}}"
SERVICES = f"""
d: {{protocol: tcp, ports: [80], mode: l4_dr, listen: 10.0.0.100, nodes: {NODES}}}
n: {{protocol: tcp, ports: [81], mode: l4_nat, listen: 10.0.0.100, nodes: {{a: {{address: 10.0.0.11}}}}}}
"""

A, B = (ManagedAddress(address, "eth0") for address in ("10.0.0.11", "10.0.0.12"))
MAC, OTHER = "02:00:00:00:00:11", "02:00:00:00:00:99"


def moved(before: str, after: str | None) -> NeighbourMoved:
    return NeighbourMoved(address=A.host, interface=A.interface, before=before, after=after)


class Watch:
    """A guardian over rules that were written just now."""

    def __init__(self, way_to: WayTo = by_eth0, packets: Mapping[str, tuple[int, int]] | None = None) -> None:
        self.events: list[Event] = []
        self.kernel = FakeKernel()
        self.guardian = Guardian(self.kernel, self.events.append)
        self.kernel.hardware, self.kernel.packets = {A: MAC}, dict(packets or {})
        self.artifact = artifact_of(SERVICES, way_to)
        self.kernel.load(text_of(self.artifact))
        self.guard()

    def guard(self) -> None:
        """Have it take what there is for what should be."""
        before = self.kernel.generation() - 1
        self.guardian.guard(self.artifact, self.kernel.interfaces(self.artifact.interfaces), before)

    def answered(self, *macs: str | None) -> list[Event]:
        """Return what is told where node `a` answers from these MAC addresses, one after the other."""
        for mac in macs:
            self.kernel.hardware[A] = mac
            self.guardian.look({})
        return self.events


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_nothing_is_lost_where_nothing_changed(watch: Watch) -> None:
    assert watch.guardian.lost() is None
    assert watch.guardian.problems() == {}


def test_elements_that_we_change_ourselves_are_no_loss(watch: Watch) -> None:
    watch.kernel.load("flush map netdev equipoise slots-d\n")
    watch.guardian.wrote()
    assert watch.guardian.lost() is None
    assert not watch.guardian.touched


def test_what_others_do_while_we_write_is_seen_at_the_next_look(watch: Watch) -> None:
    before = watch.kernel.generation()
    watch.kernel.load(text_of(watch.artifact))
    watch.kernel.touch()  # a flush of our elements, for example
    watch.guardian.guard(watch.artifact, watch.kernel.interfaces(watch.artifact.interfaces), before)
    assert watch.guardian.suspects()
    assert watch.guardian.lost() == "another program changed rules while ours were written"
    watch.guard()
    assert watch.guardian.lost() is None


def test_what_others_do_with_their_tables_is_theirs(watch: Watch) -> None:
    assert not watch.guardian.touched
    watch.kernel.touch()
    assert watch.guardian.lost() is None
    assert watch.guardian.touched, "elements of ours may be gone, which nobody looks at"
    watch.guard()
    assert not watch.guardian.touched
    watch.kernel.touch()
    watch.kernel.load("flush map netdev equipoise slots-d\n")
    watch.guardian.wrote()
    assert watch.guardian.lost() is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("delete table inet equipoise", "another program removed our table inet"),
        ("flush chain netdev equipoise from-d", "another program changed our rules"),
        ("delete set netdev equipoise takes-d", "another program changed our rules"),
        ("delete counter inet equipoise in-n/a", "another program changed our rules"),
        ("add chain inet equipoise theirs", "another program changed our rules"),
    ],
)
def test_what_others_do_with_ours_is_said(watch: Watch, text: str, said: str) -> None:
    watch.kernel.load(text)
    assert watch.guardian.lost() == said
    assert watch.guardian.lost() == said, "until it is mended"


def test_everything_wiped(watch: Watch) -> None:
    watch.kernel.wipe()
    assert watch.guardian.lost() == "another program removed our table inet, netdev"


def test_an_interface_that_is_gone_is_a_problem_until_it_is_back(watch: Watch) -> None:
    assert watch.guardian.problems() == {}
    watch.kernel.links = {}
    assert watch.guardian.lost() == "the interface eth0 went, or was made anew"
    watch.guard()
    assert watch.guardian.lost() is None
    assert watch.guardian.gone == ("eth0",)
    assert watch.guardian.problems() == {"d": "the interface eth0 is not there (any more)"}
    watch.kernel.links = {"eth0": 2}
    assert watch.guardian.lost() == "the interface eth0 went, or was made anew"
    watch.guard()
    assert watch.guardian.problems() == {}


def test_an_interface_under_another_number_is_another_one(watch: Watch) -> None:
    watch.kernel.links = {"eth0": 7}
    assert watch.guardian.lost() == "the interface eth0 went, or was made anew"


def test_a_full_table_is_told_with_the_connections_that_it_refused(watch: Watch) -> None:
    for refused in (0, 5, 5, 8, 8):
        watch.guardian.look({"netdev full-d": (refused, 0), "netdev full-x": (99, 0)})
    assert watch.events == [FlowsFull(service="d", refused=5), FlowsFull(service="d", refused=3)]


def test_what_a_former_supervisor_saw_refused_is_no_news() -> None:
    watch = Watch(packets={"netdev full-d": (5, 0)})
    for refused in (5, 7):
        watch.guardian.look({"netdev full-d": (refused, 0)})
    assert watch.events == [FlowsFull(service="d", refused=2)]


def test_refusals_are_counted_on_over_a_plan(watch: Watch) -> None:
    watch.guardian.look({"netdev full-d": (5, 0)})
    watch.events.clear()
    watch.kernel.packets = {"netdev full-d": (8, 0)}
    watch.guard()
    watch.guardian.look({"netdev full-d": (8, 0)})
    assert watch.events == [FlowsFull(service="d", refused=3)], "what came meanwhile is not forgotten"


def test_refusals_of_a_counter_that_was_made_anew_are_told_too(watch: Watch) -> None:
    """As it is when another program wiped the rules, and they were restored."""
    for refused in (5, 0, 2):
        watch.guardian.look({"netdev full-d": (refused, 0)})
    assert watch.events == [FlowsFull(service="d", refused=5), FlowsFull(service="d", refused=2)]


def test_a_node_that_answers_from_another_card_is_told_and_followed(watch: Watch) -> None:
    assert watch.answered(MAC) == [], "known for the first time"
    watch.kernel.asked.clear()
    assert watch.answered(OTHER) == [moved(MAC, OTHER)]
    assert watch.kernel.asked == [A, B]
    assert watch.answered(OTHER) == [moved(MAC, OTHER)], "once"


@pytest.mark.parametrize(
    ("macs", "told"),
    [
        ((None, MAC), []),
        ((MAC, None, None, MAC), [moved(MAC, None)]),
        ((MAC, None, None, OTHER, OTHER), [moved(MAC, None), moved(MAC, OTHER)]),
        ((MAC, None, MAC, None), [moved(MAC, None), moved(MAC, None)]),
        ((MAC, None, OTHER, None, MAC), [moved(MAC, None), moved(MAC, OTHER), moved(OTHER, None), moved(OTHER, MAC)]),
    ],
)
def test_a_node_that_falls_silent_is_told_once_and_where_it_answers_again(
    watch: Watch, macs: tuple[str | None, ...], told: list[Event]
) -> None:
    assert watch.answered(*macs) == told


def test_a_node_that_moves_while_a_plan_is_written_is_told(watch: Watch) -> None:
    watch.answered(MAC, None)
    watch.guard()
    assert watch.answered(None, OTHER) == [moved(MAC, None), moved(MAC, OTHER)]


def test_nobody_is_asked_where_the_interface_is_gone() -> None:
    watch = Watch(lambda address: Way("eth1" if address == B.host else "eth0"))
    asked = []
    for links in ({"eth0": 2}, {}, {"eth0": 2, "eth1": 3}):
        watch.kernel.links = dict(links)
        watch.guard()
        watch.kernel.asked.clear()
        watch.guardian.look({})
        asked.append(list(watch.kernel.asked))
    assert asked == [[A], [], [A, ManagedAddress(B.host, "eth1")]]


def test_a_look_while_a_plan_with_another_service_is_put_into_force_is_no_bug(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are done in threads of their own."""
    counts = watch.kernel.counts

    def look_first(pools: Collection[Pool], found: Mapping[str, Names]) -> Counts:
        watch.guardian.look({"inet full-more": (5, 300)})
        return counts(pools, found)

    monkeypatch.setattr(watch.kernel, "counts", look_first)
    more = "more: {protocol: tcp, ports: [82], mode: l4_nat, listen: 10.0.0.100, nodes: {a: {address: 10.0.0.11}}}"
    watch.artifact = artifact_of(f"{SERVICES}{more}\n")
    watch.kernel.load(text_of(watch.artifact))
    watch.guard()
    assert watch.events == []
