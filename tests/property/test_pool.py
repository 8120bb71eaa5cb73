"""The pool against a model that counts places, remembers homes and knows since when a node works.

That a node is rested the pool itself says, and `test_passive.py` judges; here is what follows from it.
"""

from collections import Counter

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from equipoise.engines.gateway.passive import FailureKind
from equipoise.engines.gateway.pool import Full, Picked, Pool
from equipoise.plan.model import Node, PassiveHealth, Persistence
from equipoise.plan.states import NodeState
from equipoise.policy.base import Client
from equipoise.policy.catalogue import policies
from equipoise.policy.persistence import persistence_key

NAMES = ("a", "b", "c", "z")
SERVICE_LIMIT = 6
SLOW_START_S = 30.0
LONG_AGO_S = -1000.0
UP = NodeState("up", 100)
STATES = st.builds(
    NodeState, st.sampled_from(["up"] * 5 + ["down", "drain", "disabled"]), st.sampled_from([0, 1, 50, 50])
)
CLIENTS = st.builds(Client, st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"]), st.just("CT1"))
TRIED = st.sampled_from([(), (), ("a",), ("b", "c"), ("a", "b", "c"), ("z",)])
PASSIVE = st.builds(PassiveHealth, st.sampled_from([0, 1, 2, 2]), st.just(30.0), st.just(10.0))


class Flow:
    """What an association moves: nothing the model looks at."""

    bytes_in = bytes_out = 1000

    def taken(self) -> tuple[int, float]:
        return 1000, 0.1


def node(name: str, limit: int | None) -> Node:
    return Node(name, "address", "192.0.2.9", 104, 100, limit, backup=name == "z")


def make_pool(balance: str, passive: PassiveHealth) -> Pool:
    return Pool(policies()[balance], Persistence("source_ip", 60, 32, 64), SERVICE_LIMIT, SLOW_START_S, passive)


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = make_pool("least_connections", PassiveHealth(failures=2))
        self.ramps = True
        self.now_s = 0.0
        self.nodes: dict[str, Node] = {}
        self.states: dict[str, NodeState] = {}
        self.since: dict[str, float | None] = {}  # when a node began to work again; None: after a rest, not known here
        self.places: list[Picked] = []
        self.elsewhere: dict[str, Counter[str]] = {}
        self.home: dict[str, tuple[str, float]] = {}

    def held(self, name: str) -> int:
        return sum(picked.node.name == name for picked in self.places)

    def open_at(self, name: str) -> int:
        return self.held(name) + sum(counts[name] for counts in self.elsewhere.values())

    def works(self, name: str) -> bool:
        return name in self.nodes and self.states[name].takes_work

    def is_rested(self, name: str) -> bool:
        return self.pool.rested(name, self.now_s) is not None

    # What happens to the pool

    @initialize()
    def begin(self) -> None:
        self.configure(dict.fromkeys(NAMES))

    @rule(limits=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([None, None, 0, 1, 3]), min_size=2))
    def configure(self, limits: dict[str, int | None]) -> None:
        before = {name for name in self.nodes if self.works(name)}
        had_nodes = bool(self.nodes)
        self.nodes = {name: node(name, limit) for name, limit in limits.items()}
        self.states = {name: self.states.get(name, UP) for name in limits}
        self.since = {name: self.since.get(name, LONG_AGO_S) if name in before else LONG_AGO_S for name in limits}
        for name in limits:
            if had_nodes and self.works(name) and name not in before:
                self.since[name] = self.now_s if self.ramps else LONG_AGO_S
        self.pool.configure(tuple(self.nodes.values()), self.states, self.now_s)

    @rule(name=st.sampled_from(NAMES), state=STATES)
    def set_state(self, name: str, state: NodeState) -> None:
        changed = name in self.nodes and self.states[name] != state
        returns = changed and state.takes_work and not self.works(name)
        assert self.pool.set_state(name, state, self.now_s) is changed
        if changed:
            self.states[name] = state
        if returns:
            self.since[name] = self.now_s if self.ramps else LONG_AGO_S
            assert not self.is_rested(name)

    @rule(balance=st.sampled_from(sorted(policies())), passive=PASSIVE)
    def change_policy(self, balance: str, passive: PassiveHealth) -> None:
        rested = [name for name in self.nodes if self.is_rested(name)]
        old, self.pool = self.pool, make_pool(balance, passive)
        self.pool.inherit(old, self.now_s)
        self.pool.configure(tuple(self.nodes.values()), self.states, self.now_s)
        assert [name for name in self.nodes if self.is_rested(name)] == (rested if passive.failures else [])
        if not policies()[balance].ramps:
            self.since = {name: None if since_s is None else LONG_AGO_S for name, since_s in self.since.items()}
        self.ramps = policies()[balance].ramps

    @rule(gateway=st.sampled_from(["77", "88"]), counts=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2)))
    def hear_elsewhere(self, gateway: str, counts: dict[str, int]) -> None:
        self.elsewhere[gateway] = Counter(counts)
        self.pool.set_elsewhere(gateway, counts)

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds

    # Associations

    @rule(client=CLIENTS, tried=TRIED)
    def pick(self, client: Client, tried: tuple[str, ...]) -> None:
        able = [name for name in self.nodes if self.works(name) and name not in tried]
        fit = [name for name in able if not self.is_rested(name)] or able
        group = [name for name in fit if name != "z"] or fit
        free = [n for n in group if (limit := self.nodes[n].max_connections) is None or self.open_at(n) < limit]
        outcome = self.pool.pick(client, tried, self.now_s, Flow())
        if not able:
            assert not isinstance(outcome, Picked | Full)
        elif not free or sum(self.open_at(name) for name in NAMES) >= SERVICE_LIMIT:
            assert isinstance(outcome, Full)
        else:
            assert isinstance(outcome, Picked)
            assert outcome.alternatives == len(able) - 1
            self.check_picked(client, outcome, free)
            event("picked a rested node" if self.is_rested(outcome.node.name) else "picked")

    def check_picked(self, client: Client, picked: Picked, free: list[str]) -> None:
        name = picked.node.name
        assert name in free
        key = persistence_key("source_ip", client, 32, 64) or ""
        own, expires_s = self.home.get(key, ("", 0.0))
        if expires_s > self.now_s and own in free:
            assert name == own
        self.places.append(picked)
        kept = self.pool.table.node_of(key, self.now_s)
        assert kept == name or (kept == own and own not in free)
        self.home[key] = (kept, self.now_s + 60)

    @rule(client=CLIENTS)
    def a_rested_home_is_kept(self, client: Client) -> None:
        key = persistence_key("source_ip", client, 32, 64) or ""
        own = self.pool.table.node_of(key, self.now_s)
        if own is None or not self.works(own) or not self.is_rested(own):
            return
        outcome = self.pool.pick(client, (), self.now_s)
        if isinstance(outcome, Picked):
            self.places.append(outcome)
            assert self.pool.table.node_of(key, self.now_s) == own
            self.home[key] = (own, self.now_s + 60)
            event("kept a rested home")

    @rule(place=st.integers(0, SERVICE_LIMIT - 1))
    def release(self, place: int) -> None:
        if self.places:
            self.pool.release(self.places.pop(place % len(self.places)))

    @rule(name=st.sampled_from(NAMES))
    def release_what_nobody_holds(self, name: str) -> None:
        """Nothing may go below zero."""
        if not self.held(name):
            self.pool.release(Picked(node(name, None), 0))

    @rule(name=st.sampled_from(NAMES), client=CLIENTS, kind=st.sampled_from(FailureKind), count=st.integers(1, 3))
    def fail(self, name: str, client: Client, kind: FailureKind, count: int) -> None:
        for _ in range(count):
            self.fail_once(name, client, kind)

    def fail_once(self, name: str, client: Client, kind: FailureKind) -> None:
        others = [other for other in NAMES if other != name and self.works(other) and not self.is_rested(other)]
        already = self.is_rested(name)
        rested = self.pool.failed(name, client, kind, "reason", self.now_s)
        if rested is not None:
            event("rested")
            assert others, "the last node was rested"
            assert self.works(name)
            assert not already
            assert self.is_rested(name)
            self.since[name] = None  # it ramps from the first pick after its rest

    @rule(name=st.sampled_from(NAMES))
    def succeed(self, name: str) -> None:
        self.pool.succeeded(name, self.now_s)

    # What always holds

    @invariant()
    def counts_agree(self) -> None:
        assert {name: self.pool.counters(name).connections for name in self.nodes} == {
            name: self.held(name) for name in self.nodes
        }
        assert self.pool.open == sum(self.open_at(name) for name in NAMES)

    @invariant()
    def loads_are_those_of_open_places(self) -> None:
        loads = Counter(picked.node.name for picked in self.places if picked.load is not None)
        for name in self.nodes:
            assert len(self.pool.members[name].workload) == loads[name]

    @invariant()
    def a_pool_with_a_working_node_answers(self) -> None:
        if any(self.works(name) for name in self.nodes):
            able = [self.pool.members[name] for name in self.nodes if self.works(name)]
            assert self.pool._group(able, self.now_s)

    @invariant()
    def weights_follow_their_ramps(self) -> None:
        """After `a_pool_with_...`, which asked; a node that was rested is only held to its bounds."""
        for name in self.nodes:
            own, weight = self.states[name].weight, self.pool.members[name].weight
            if not self.works(name):
                continue
            assert own * 0.0999 <= weight <= own
            if not self.ramps:
                assert weight == own
            elif (since_s := self.since[name]) is not None:
                share = min(1.0, 0.1 + 0.9 * (self.now_s - since_s) / SLOW_START_S)
                assert weight == pytest.approx(own * share)


PoolMachine.TestCase.settings = settings(stateful_step_count=40)
TestPool = PoolMachine.TestCase
