"""What a pool does for policies that weigh work."""

from dataclasses import dataclass

from equipoise.engines.gateway.pool import Picked, Pool
from equipoise.plan.model import Node, Persistence
from equipoise.policy.base import Client
from equipoise.policy.catalogue import policies

NONE = Persistence("none", 60, 32, 64)
GB = 1_000_000_000


@dataclass(slots=True)
class Flow:
    bytes_in: int = 0
    bytes_out: int = 0
    busy_s: float = 0.0

    def taken(self) -> tuple[int, float]:
        return self.bytes_in, self.busy_s


def pool(balance: str = "least_work", **weights: int) -> Pool:
    made = Pool(policies()[balance], NONE)
    made.configure(nodes(**weights), {}, 0)
    for calling_ae, moved in (("CT1", 2 * GB), ("CR1", 30_000_000)):
        made.learn(calling_ae, moved)
    return made


def nodes(**weights: int) -> tuple[Node, ...]:
    return tuple(Node(name, "address", "192.0.2.9", 104, weight, None, False) for name, weight in weights.items())


def pick(from_pool: Pool, calling_ae: str, now_s: float = 0, flow: Flow | None = None) -> Picked:
    picked = from_pool.pick(Client("192.0.2.1", calling_ae), (), now_s, flow or Flow())
    assert isinstance(picked, Picked), picked
    return picked


def test_large_studies_keep_out_of_each_others_way() -> None:
    """In the way of a CT three radiographs are less than one CT; in the way of a radiograph they are more."""
    one = pool(a=100, b=100)
    assert pick(one, "CT1").node.name == "a"
    for _ in range(3):
        one.pick(Client("192.0.2.1", "CR1"), ("a",), 0, Flow())
    assert [pick(one, "CR1").node.name for _ in range(2)] == ["a", "a"]
    assert pick(one, "CT1").node.name == "b"


def test_the_example_of_the_explanation_is_right() -> None:
    """docs/explanation/balancing.md, "How least_work decides", in MB."""
    one = Pool(policies()["least_work"], NONE)
    one.configure(nodes(a=100, b=100), {}, 0)
    for calling_ae, moved in (("LONG", GB), ("CR1", 25_000_000), ("CT1", 350_000_000)):
        one.learn(calling_ae, moved)
    pick(one, "LONG")
    for _ in range(3):
        one.pick(Client("192.0.2.1", "CR1"), ("a",), 0, Flow())
    work = {}
    for calling_ae in ("CR1", "CT1"):
        picked = pick(one, calling_ae)
        work[calling_ae] = [round(one.members[name].work / 1e6) for name in "ab"] + [picked.node.name]
        one.release(picked)
    assert work == {"CR1": [75, 175, "a"], "CT1": [1050, 500, "b"]}


def test_what_has_moved_is_in_the_way_no_more() -> None:
    one, first, second = pool(a=100, b=100), Flow(), Flow()
    assert [pick(one, "CT1", flow=first).node.name, pick(one, "CT1", flow=second).node.name] == ["a", "b"]
    second.bytes_in = GB
    assert pick(one, "CT1", 1).node.name == "b"


def test_what_is_released_is_work_no_more() -> None:
    one = pool(a=100, b=100)
    large, small = pick(one, "CT1"), pick(one, "CR1")
    one.release(large)
    assert pick(one, "CT1").node.name == "a"
    one.release(small)
    assert len(one.members["b"].workload) == 0


def test_weights_count_on_an_idle_pool() -> None:
    one = pool(slow=50, fast=150)
    assert [pick(one, "CR1").node.name for _ in range(4)].count("fast") == 3


def test_where_nothing_is_known_it_is_least_connections() -> None:
    one, other = Pool(policies()["least_work"], NONE), Pool(policies()["least_connections"], NONE)
    picked = []
    for each in (one, other):
        each.configure(nodes(a=100, b=100, c=100), {}, 0)
        picked.append([pick(each, f"AE{number}").node.name for number in range(50)])
    assert picked[0] == picked[1]


def test_associations_of_other_gateways_count_as_average_ones() -> None:
    one = pool(a=100, b=100)
    one.set_elsewhere("77", {"a": 1})  # 1.015 GB
    assert pick(one, "CT1").node.name == "b"
    assert pick(one, "CT1").node.name == "a"


def test_a_policy_that_does_not_weigh_costs_nothing() -> None:
    one = pool("least_connections", a=100)
    picked = pick(one, "CT1")
    assert picked.load is None
    assert len(one.members["a"].workload) == 0
    assert one.predictions.means() == {}


def test_a_change_of_policy_keeps_what_is_open_and_known() -> None:
    old = pool(a=100, b=100)
    held = [pick(old, "CT1"), pick(old, "CR1")]
    between = Pool(policies()["round_robin"], NONE)
    between.inherit(old, 1)
    between.configure(nodes(a=100, b=100), {}, 1)
    held.append(pick(between, "CR1", 1))  # at a, and without a load
    new = Pool(policies()["least_work"], NONE)
    new.inherit(between, 2)
    new.configure(nodes(a=100, b=100), {}, 2)
    assert new.predictions.expected("CT1") == 2 * GB
    assert pick(new, "CT1", 2).node.name == "b"
    for picked in held:
        new.release(picked)
    assert {name: len(member.workload) for name, member in new.members.items()} == {"a": 0, "b": 1}


def test_an_association_of_a_node_that_leaves_is_given_back_once() -> None:
    one = pool(a=100, b=100)
    picked = pick(one, "CT1")
    one.configure(nodes(b=100), {}, 1)
    one.release(picked)
    one.release(picked)
    one.configure(nodes(a=100, b=100), {}, 2)
    assert one.open == 0
    assert len(one.members["a"].workload) == 0


def taken_at_once(weight_a: int, weight_b: int) -> list[str]:
    """Return who gets ten studies at once of two nodes; a is four times as fast, as the connections to it have told."""
    made, now_s = pool("least_work", a=weight_a, b=weight_b), 0.0
    speeds = {"a": 200_000_000, "b": 50_000_000}
    for _ in range(30):  # one after the other, as on a quiet morning
        flow = Flow()
        picked = made.pick(Client("192.0.2.1", "CT1"), (), now_s, flow)
        assert isinstance(picked, Picked)
        flow.bytes_in, flow.busy_s = 20_000_000, 20_000_000 / speeds[picked.node.name]
        now_s += 1.5
        made.release(picked)
    chosen = []
    for _ in range(10):
        picked = made.pick(Client("192.0.2.1", "CT1"), (), now_s, Flow())
        assert isinstance(picked, Picked)
        chosen.append(picked.node.name)
    return sorted(chosen)


def test_of_nodes_of_one_weight_the_one_that_takes_bytes_faster_gets_more() -> None:
    assert taken_at_once(100, 100) == ["a"] * 8 + ["b"] * 2


def test_weights_that_differ_are_an_operators_word() -> None:
    assert taken_at_once(50, 150) == ["a"] * 2 + ["b"] * 8
