"""What a site with layer 4 means: ways of the machine become interfaces, and an own address changes nothing."""

import json
from dataclasses import replace

import pytest

from equipoise.app import wiring
from equipoise.config.loading import load
from equipoise.config.models import Catalogue, Site
from equipoise.plan.compile import (
    addresses_to_reach,
    compile_plan,
    from_json,
    names_to_resolve,
    to_json,
    versions_of_names,
)
from equipoise.plan.inputs import HostFacts, Way
from equipoise.plan.model import Layer4, ManagedAddress, Node, Plan, Service, Timeouts

SITE = """\
site: here
services:
  direct:
    protocol: dicom
    mode: l4_dr
    listen: [10.0.0.100, 10.0.1.100]
    ports: [104, 11112]
    nodes: {a: {address: 10.0.0.11}, b: {address: pacs-b.example}}
  nat:
    protocol: https
    mode: l4_nat
    masquerade: true
    listen: 10.0.2.100
    nodes: {a: {address: pacs-b.example:8443}}
  relay:
    protocol: http
    listen: [0.0.0.0:8080, 127.0.0.1:81, 10.0.3.100]
    nodes: {a: {address: 10.0.9.9}}
"""
NAMES = {"pacs-b.example": "10.0.1.12"}
WAYS = {
    "10.0.0.11": Way("eth0"),
    "10.0.1.12": Way("eth1", "10.0.1.1"),
    "10.0.0.100": Way("eth0"),
    "10.0.1.100": Way("eth1"),
    "10.0.2.100": Way("eth0", "10.0.0.1"),
}
FACTS = HostFacts(NAMES, ways=WAYS)


@pytest.fixture(scope="module")
def installed() -> Catalogue:
    return wiring.catalogue()


def site(text: str, catalogue: Catalogue, network: str = "") -> Site:
    return load(
        text.replace("services:", f"network: {network}\nservices:", 1) if network else text, "f", catalogue
    ).site


def service(plan: Plan, name: str) -> Service:
    found = plan.service(name)
    assert found is not None
    return found


def node(plan: Plan, owner: str, name: str) -> Node:
    found = service(plan, owner).node(name)
    assert found is not None
    return found


def test_ways_become_interfaces_with_direct_routing_alone(installed: Catalogue) -> None:
    plan = compile_plan(site(SITE, installed), FACTS)
    assert service(plan, "direct").layer4 == Layer4(interfaces=("eth0", "eth1"))
    assert service(plan, "nat").layer4 == Layer4(masquerade=True)
    assert service(plan, "relay").layer4 == Layer4()
    assert [(each.name, each.engine) for each in plan.services] == [
        ("direct", "layer4"), ("nat", "layer4"), ("relay", "haproxy"),
    ]  # fmt: skip
    assert [(each.interface, each.router) for each in service(plan, "direct").nodes] == [
        ("eth0", None), ("eth1", "10.0.1.1"),
    ]  # fmt: skip
    assert node(plan, "nat", "a") == Node("a", "pacs-b.example:8443", "10.0.1.12", 8443, 100, None, backup=False)
    assert plan.addresses == ()


def test_what_is_not_known_is_left_open(installed: Catalogue) -> None:
    plan = compile_plan(site(SITE, installed, "{manage_addresses: true}"), HostFacts(ways={"10.0.0.11": None}))
    assert service(plan, "direct").layer4.interfaces == ()
    assert [(each.host, each.interface) for each in service(plan, "direct").nodes] == [
        ("10.0.0.11", None),
        (None, None),
    ]
    assert plan.addresses == ()


def test_an_interface_that_is_named_comes_first(installed: Catalogue) -> None:
    plan = compile_plan(site(SITE, installed, "{interface: [bond0, eth7], manage_addresses: true}"), FACTS)
    assert service(plan, "direct").layer4.interfaces == ("bond0", "eth7")
    assert {each.interface for each in plan.addresses} == {"bond0"}
    assert node(plan, "direct", "a").interface == "eth0"


def test_addresses_of_every_mode_are_managed(installed: Catalogue) -> None:
    plan = compile_plan(site(SITE, installed, "{manage_addresses: true}"), FACTS)
    assert plan.addresses == (  # not 10.0.3.100, to which there is no way
        ManagedAddress("10.0.0.100", "eth0"),
        ManagedAddress("10.0.1.100", "eth1"),
        ManagedAddress("10.0.2.100", "eth0"),
    )


def test_an_address_that_has_appeared_changes_no_plan(installed: Catalogue) -> None:
    """Before, the way there may lead by a router; then it is this machine's own, on the same interface."""
    managed = site(SITE, installed, "{manage_addresses: true}")
    own = {host: Way(way.interface) if host.endswith(".100") else way for host, way in WAYS.items()}
    assert own != WAYS
    assert compile_plan(managed, replace(FACTS, ways=own)) == compile_plan(managed, FACTS)


def test_a_way_that_has_changed_is_another_plan(installed: Catalogue) -> None:
    moved = {**WAYS, "10.0.0.11": Way("eth2")}
    plans = [compile_plan(site(SITE, installed), replace(FACTS, ways=ways)) for ways in (WAYS, moved)]
    assert plans[0].digest != plans[1].digest


def test_what_is_asked_of_the_machine(installed: Catalogue) -> None:
    plain, managed = site(SITE, installed), site(SITE, installed, "{manage_addresses: true}")
    assert names_to_resolve(plain) == {"pacs-b.example"}
    nodes, listens = {"10.0.0.11", "10.0.1.12"}, {"10.0.0.100", "10.0.1.100"}
    assert addresses_to_reach(plain, HostFacts(NAMES)) == nodes | listens
    assert addresses_to_reach(plain, HostFacts()) == {"10.0.0.11"} | listens
    assert addresses_to_reach(managed, HostFacts(NAMES)) == nodes | listens | {"10.0.2.100", "10.0.3.100"}
    without = site(SITE.replace("mode: l4_dr", "mode: l4_nat"), installed)
    assert addresses_to_reach(without, HostFacts(NAMES)) == frozenset()


@pytest.mark.parametrize("mode", ["l4_dr", "l4_nat", "l7_snat"])
def test_a_name_of_the_other_family_is_no_node_for_the_kernel(mode: str, installed: Catalogue) -> None:
    text = SITE.replace("mode: l4_dr", f"mode: {mode}")
    facts = HostFacts({"pacs-b.example": "fd00::12"}, ways={"fd00::12": Way("eth0")})
    plan, kernel = compile_plan(site(text, installed), facts), mode != "l7_snat"
    assert node(plan, "direct", "b").host == (None if kernel else "fd00::12")
    assert node(plan, "direct", "b").interface is None
    assert "fd00::12" not in addresses_to_reach(site(text, installed), facts)


def test_names_are_wanted_in_the_family_of_their_service(installed: Catalogue) -> None:
    assert versions_of_names(site(SITE, installed)) == {"pacs-b.example": 4}
    six = SITE.replace("10.0.2.100", "fd00::1").replace("pacs-b.example}", "10.0.0.12}")
    assert versions_of_names(site(six, installed)) == {"pacs-b.example": 6}
    assert versions_of_names(site(SITE.replace("mode: l4_dr", "").replace("mode: l4_nat\n    masquerade: true", ""),
                                  installed)) == {}  # fmt: skip


def test_silence_has_its_time(installed: Catalogue) -> None:
    text = SITE.replace("ports: [104, 11112]", "ports: [104, 11112]\n    timeouts: {idle: 12h}")
    plan = compile_plan(site(text, installed), FACTS)
    assert service(plan, "direct").layer4.idle_s == 43200
    assert service(plan, "direct").timeouts == Timeouts(), "they are HAProxy's"
    assert service(compile_plan(site(SITE, installed), FACTS), "direct").layer4.idle_s == 10800


def test_what_is_open_on_a_node_that_goes_down_is_cut_here_and_kept_there(installed: Catalogue) -> None:
    plan = compile_plan(site(SITE, installed), FACTS)
    assert [each.on_down for each in plan.services] == ["cut", "cut", "keep"]
    assert service(plan, "nat").persistence.by == "source_ip", "cookies cannot be read"


def test_it_is_stored_and_comes_back(installed: Catalogue) -> None:
    plan = compile_plan(site(SITE, installed, "{manage_addresses: true}"), FACTS)
    assert from_json(json.loads(json.dumps(to_json(plan))), installed.checks) == plan


def test_a_plan_of_a_version_without_layer_4_is_read(installed: Catalogue) -> None:
    stored = to_json(compile_plan(site(SITE, installed), HostFacts()))
    del stored["addresses"]
    for each in stored["services"]:
        del each["layer4"]
        for pooled in each["nodes"]:
            del pooled["interface"], pooled["router"]
    assert from_json(stored, installed.checks).addresses == ()
