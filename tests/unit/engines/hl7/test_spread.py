"""How connections move when nodes come and go."""

from collections import Counter

from equipoise.engines.gateway.hl7.spread import Spread
from equipoise.engines.gateway.pool import Pool
from equipoise.plan.model import Node, Persistence
from equipoise.plan.states import NodeState, StateName
from equipoise.policy.catalogue import policies
from tests.unit.engines.hl7.scene import FakeSender, Site, node

NONE = Persistence("none", 60, 32, 64)


def pool(*nodes: Node, balance: str = "round_robin", persistence: Persistence = NONE, slow_start_s: float = 0) -> Pool:
    made = Pool(policies()[balance], persistence, None, slow_start_s)
    made.configure(nodes, {}, 0)
    return made


def settled(spread: Spread, homes: str) -> list[FakeSender]:
    site = Site(now_s=0)
    senders = [site.sender() for _ in homes]
    for sender, home in zip(senders, homes, strict=True):
        spread.settle(sender, home)
    return senders


def look(spread: Spread, senders: list[FakeSender], at: Pool, now_s: float) -> Counter[str | None]:
    for sender in senders:
        spread.look(sender, at, now_s)
    return Counter(sender.home for sender in senders)


def set_state(at: Pool, name: str, state: StateName, now_s: float = 0, weight: int = 100) -> None:
    at.set_state(name, NodeState(state, weight), now_s)


def test_connections_move_to_a_node_that_returns_until_each_has_its_share() -> None:
    spread, both = Spread(), pool(node("a"), node("b"))
    senders = settled(spread, "aaaaaaaa")
    assert look(spread, senders, both, 2) == {"a": 4, "b": 4}
    assert look(spread, senders, both, 4) == {"a": 4, "b": 4}, "nobody moves to and fro"


def test_shares_are_by_weight() -> None:
    spread, both = Spread(), pool(node("a"), node("b"))
    set_state(both, "b", "up", weight=300)
    assert look(spread, settled(spread, "aaaaaaaa"), both, 2) == {"a": 2, "b": 6}


def test_an_odd_one_stays_where_it_is() -> None:
    spread, both = Spread(), pool(node("a"), node("b"))
    senders = settled(spread, "aaabb")
    for second in range(2, 8):
        assert look(spread, senders, both, second) == {"a": 3, "b": 2}
    assert [sender.home for sender in senders] == list("aaabb")


def test_a_node_that_returns_slowly_gets_them_slowly() -> None:
    spread, both = Spread(), pool(node("a"), node("b"), slow_start_s=30)
    set_state(both, "b", "down")
    set_state(both, "b", "up")
    senders = settled(spread, "a" * 20)
    shares = [look(spread, senders, both, second)["b"] for second in (2, 10, 20, 31)]
    assert shares[0] < 5
    assert shares == sorted(shares)
    assert shares[-1] == 10


def test_who_is_at_a_node_that_takes_no_work_is_asked_anew() -> None:
    spread, both = Spread(), pool(node("a"), node("b"))
    set_state(both, "a", "drain")
    assert look(spread, settled(spread, "aab"), both, 2) == {None: 2, "b": 1}


def test_who_is_at_a_backup_goes_home_when_a_primary_returns() -> None:
    spread, both = Spread(), pool(node("a"), node("z", backup=True))
    assert look(spread, settled(spread, "zz"), both, 2) == {None: 2}


def test_where_the_policy_or_persistence_leads_to_one_node_it_is_asked_anew() -> None:
    for balance, persistence in (
        ("first_up", NONE),
        ("source_hash", NONE),
        ("round_robin", Persistence("source_ip", 60, 32, 64)),
    ):
        spread = Spread()
        assert look(
            spread, settled(spread, "bb"), pool(node("a"), node("b"), balance=balance, persistence=persistence), 2
        ) == {None: 2}


def test_who_leaves_is_no_longer_counted() -> None:
    spread, both = Spread(), pool(node("a"), node("b"))
    senders = settled(spread, "aaab")
    for sender in senders[:2]:
        spread.forget(sender)
    assert look(spread, senders[2:], both, 2) == {"a": 1, "b": 1}
