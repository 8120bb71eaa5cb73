"""An address that services listen on comes and goes: an event says so once, but not of those that move in a pair."""

from dataclasses import replace

import pytest

from equipoise.app import listeners as module
from equipoise.app.listeners import Listeners
from equipoise.plan.model import Cluster, Endpoint, ManagedAddress, Plan, VipGroup
from equipoise.state.events import Event
from tests.unit.app.test_nodes import node, plan, service

VIP, OWN, OTHER = "10.0.0.100", "10.0.0.2", "10.0.0.9"
GROUP = VipGroup("primary", 51, True, (ManagedAddress(VIP, "eth0"),))
PAIR = Cluster("primary", OWN, "10.0.0.3", "eth0", 0.2, False, 11251, (GROUP,))


def listening(*hosts: str, pair: Cluster | None = None) -> Plan:
    ends = tuple(Endpoint(host, 104) for host in hosts)
    return replace(plan(replace(service("ct", node("a")), listen=ends)), cluster=pair)


def look(monkeypatch: pytest.MonkeyPatch, *looks: tuple[Plan, set[str]]) -> tuple[list[tuple[str, str]], Listeners]:
    events: list[Event] = []
    listeners = Listeners(events.append)
    for seen, here in looks:
        monkeypatch.setattr(module, "is_local", here.__contains__)
        listeners.look(seen)
    return [(event.kind, str(event.fields()["address"])) for event in events], listeners


def test_each_change_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    both = listening(VIP, OTHER)
    told, listeners = look(monkeypatch, (both, {OTHER}), (both, {OTHER}), (both, {VIP, OTHER}), (both, {VIP}))
    assert [kind.rpartition(".")[2] for kind, _ in told] == ["waiting", "ready", "waiting"]
    assert [address for _, address in told] == [VIP, VIP, OTHER]
    assert listeners.absent == {OTHER}


def test_what_moves_within_a_pair_is_shown_and_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    paired = listening(VIP, OTHER, pair=PAIR)
    told, listeners = look(monkeypatch, (paired, set()), (paired, {VIP}), (paired, set()))
    assert [address for _, address in told] == [OTHER]
    assert listeners.absent == {VIP, OTHER}


def test_an_address_that_left_the_plan_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    told, listeners = look(monkeypatch, (listening(VIP), set()), (listening(OTHER), {OTHER}))
    assert ([address for _, address in told], listeners.absent) == ([VIP], frozenset())
