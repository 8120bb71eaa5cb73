"""The pool against a model that counts places and nothing more."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from equipoise.engines.gateway.pool import Full, Picked, Pool
from equipoise.plan.model import Node, Persistence
from equipoise.plan.states import NodeState
from equipoise.policy.base import Client
from equipoise.policy.catalogue import policies
from equipoise.policy.persistence import persistence_key

NAMES = ("a", "b", "c", "z")
SERVICE_LIMIT = 6
STATES = st.builds(NodeState, st.sampled_from(["up", "up", "down", "drain", "disabled"]), st.sampled_from([0, 1, 50]))
CLIENTS = st.builds(Client, st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"]), st.just("CT1"))
TRIED = st.lists(st.sampled_from(NAMES), max_size=3, unique=True).map(tuple)


def node(name: str, limit: int | None) -> Node:
    return Node(name, "address", "192.0.2.9", 104, 100, limit, backup=name == "z")


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(policies()["least_connections"].make(), Persistence("source_ip", 60, 32, 64), SERVICE_LIMIT)
        self.now_s = 0.0
        self.nodes: dict[str, Node] = {}
        self.states: dict[str, NodeState] = {}
        self.held = Counter[str]()
        self.elsewhere: dict[str, Counter[str]] = {}
        self.home: dict[str, tuple[str, float]] = {}

    def open_at(self, name: str) -> int:
        return self.held[name] + sum(counts[name] for counts in self.elsewhere.values())

    def able(self, tried: tuple[str, ...]) -> list[str]:
        able = [n for n in self.nodes if n not in tried and self.states[n].state == "up" and self.states[n].weight]
        return [name for name in able if name != "z"] or able

    @rule(limits=st.dictionaries(st.sampled_from(NAMES), st.none() | st.integers(0, 3)))
    def configure(self, limits: dict[str, int | None]) -> None:
        self.nodes = {name: node(name, limit) for name, limit in limits.items()}
        self.states = {name: self.states.get(name, NodeState("up", 100)) for name in limits}
        self.pool.configure(tuple(self.nodes.values()), self.states)

    @rule(name=st.sampled_from(NAMES), state=STATES)
    def set_state(self, name: str, state: NodeState) -> None:
        changed = name in self.nodes and self.states[name] != state
        assert self.pool.set_state(name, state) is changed
        if changed:
            self.states[name] = state

    @rule(gateway=st.sampled_from(["77", "88"]), counts=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2)))
    def hear_elsewhere(self, gateway: str, counts: dict[str, int]) -> None:
        self.elsewhere[gateway] = Counter(counts)
        self.pool.set_elsewhere(gateway, counts)

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds

    @rule(client=CLIENTS, tried=TRIED)
    def pick(self, client: Client, tried: tuple[str, ...]) -> None:
        able = self.able(tried)
        free = [n for n in able if (limit := self.nodes[n].max_connections) is None or self.open_at(n) < limit]
        outcome = self.pool.pick(client, tried, self.now_s)
        if not able:
            assert not isinstance(outcome, Picked | Full)
        elif not free or sum(self.open_at(name) for name in NAMES) >= SERVICE_LIMIT:
            assert isinstance(outcome, Full)
        else:
            assert isinstance(outcome, Picked)
            self.check_picked(client, outcome.node.name, free)

    def check_picked(self, client: Client, name: str, free: list[str]) -> None:
        assert name in free
        key = persistence_key("source_ip", client, 32, 64) or ""
        own, expires_s = self.home.get(key, ("", 0.0))
        if expires_s > self.now_s and own in free:
            assert name == own
        self.held[name] += 1
        kept = self.pool.table.node_of(key, self.now_s)
        assert kept == name or (kept == own and own not in free)
        self.home[key] = (kept, self.now_s + 60)

    @rule(name=st.sampled_from(NAMES))
    def release(self, name: str) -> None:
        """A place that nobody holds can be given back in vain: nothing may go below zero."""
        self.pool.release(name)
        if self.held[name]:
            self.held[name] -= 1

    @invariant()
    def counts_agree(self) -> None:
        assert {name: self.pool.counters(name).connections for name in self.nodes} == {
            name: self.held[name] for name in self.nodes
        }
        assert self.pool.open == sum(self.open_at(name) for name in NAMES)


PoolMachine.TestCase.settings = settings(stateful_step_count=40)
TestPool = PoolMachine.TestCase
