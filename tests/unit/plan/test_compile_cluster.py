"""What a site means for a pair: which of the two this is, which addresses move together, and where they are put."""

from dataclasses import replace

import pytest

from equipoise.app import wiring
from equipoise.config.cluster import Here
from equipoise.config.loading import load
from equipoise.config.models import Catalogue, Site
from equipoise.plan.compile import addresses_to_reach, compile_plan, from_json, to_json
from equipoise.plan.compile_cluster import floating, merged
from equipoise.plan.inputs import HostFacts, Way
from equipoise.plan.model import Cluster, ManagedAddress, Secured

PEER, OWN, VIP = "10.0.0.3", "10.0.0.2", "10.0.0.100"
HERE = Here(peer=PEER, address=OWN, interface="eth7", role="secondary")
WAYS = {PEER: Way("eth0", source=OWN), VIP: Way("eth0"), "10.1.0.100": Way("eth1"), "10.9.0.100": Way("eth1", PEER)}
SECURED = Secured("/s/own.pem", "/s/peer.crt", "f" * 64)


@pytest.fixture(scope="module")
def installed() -> Catalogue:
    known = wiring.catalogue()
    return replace(known, checks={name: check for name, check in known.checks.items() if name == "tcp"}, templates={})


@pytest.fixture
def site(installed: Catalogue) -> "Sites":
    return Sites(installed)


class Sites:
    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def __call__(self, cluster: str, listen: str = VIP, top: str = "") -> Site:
        service = f"{{protocol: tcp, listen: [{listen}], ports: [80], nodes: {{a: {{address: 10.0.0.11:80}}}}}}"
        lines = ["site: here", *([f"cluster: {cluster}"] if cluster else []), top, f"services: {{web: {service}}}"]
        return load("\n".join(lines), "site.yaml", self._catalogue).site


def hosts(cluster: Cluster | None) -> dict[str, tuple[str, ...]]:
    assert cluster is not None
    return {group.name: tuple(each.host for each in group.addresses) for group in cluster.groups}


def pair_of(site: Site, facts: HostFacts) -> Cluster:
    cluster = compile_plan(site, facts).cluster
    assert cluster is not None
    return cluster


def test_a_machine_alone_has_no_pair(site: Sites) -> None:
    plan = compile_plan(site(""), HostFacts(ways=WAYS))
    assert (plan.cluster, floating(site(""), HostFacts())) == (None, frozenset())


def test_the_document_may_say_it_all(site: Sites) -> None:
    document = site(f"{{peer: {PEER}, role: secondary, router_id: 7, advert: 100ms, preempt: true, port: 12000}}")
    cluster = pair_of(document, HostFacts(ways=WAYS))
    assert cluster == Cluster(
        role="secondary",
        address=OWN,
        peer=PEER,
        interface="eth0",
        advert_s=0.1,
        preempt=True,
        port=12000,
        groups=cluster.groups,
    )
    (group,) = cluster.groups
    assert (group.name, group.router_id, group.at_home) == ("primary", 7, False)
    assert group.addresses == (ManagedAddress(VIP, "eth0"),)
    assert cluster.peer_role == "primary"


def test_the_file_of_the_machine_goes_before_the_document(site: Sites) -> None:
    document = site("{peer: 10.0.0.9, address: 10.0.0.8, interface: eth5, role: primary, router_id: 9}")
    cluster = pair_of(document, HostFacts(ways=WAYS, here=HERE, secured=SECURED))
    assert (cluster.peer, cluster.address, cluster.interface, cluster.role) == (PEER, OWN, "eth7", "secondary")
    assert (cluster.groups[0].router_id, cluster.secured) == (9, SECURED)
    partly = merged(document, HostFacts(here=Here(role="secondary")))
    assert partly is not None
    assert (partly.peer, partly.interface, partly.role) == ("10.0.0.9", "eth5", "secondary")


def test_the_file_alone_is_enough(site: Sites) -> None:
    cluster = pair_of(site(""), HostFacts(ways=WAYS, here=HERE))
    assert (cluster.role, cluster.port, cluster.advert_s, cluster.preempt) == ("secondary", 11251, 0.2, False)


@pytest.mark.parametrize(
    ("here", "ways"),
    [
        (None, WAYS),  # no peer is named
        (Here(role="primary"), WAYS),
        (Here(peer=PEER), {}),
        (Here(peer=PEER), {PEER: None}),
        (Here(peer=PEER, interface="eth0"), {PEER: None}),
        (Here(peer=PEER, address=OWN), {}),
        (Here(peer=PEER), {PEER: Way("eth0")}),  # the kernel names no source
    ],
)
def test_without_a_way_to_the_peer_the_machine_stands_alone(
    site: Sites, here: Here | None, ways: dict[str, Way | None]
) -> None:
    managed = "network: {manage_addresses: true, interface: eth0}"
    plan = compile_plan(site("{router_id: 7}", top=managed), HostFacts(ways={**ways, VIP: Way("eth0")}, here=here))
    assert plan.cluster is None
    assert plan.vips == ()  # the peer may have them


def test_in_a_pair_addresses_are_keepalived_s(site: Sites) -> None:
    managed = "network: {manage_addresses: true, interface: eth3}"
    plan = compile_plan(site("", top=managed), HostFacts(ways=WAYS, here=HERE))
    assert plan.addresses == ()
    assert plan.vips == (ManagedAddress(VIP, "eth3"),)


def test_each_group_has_its_home_and_its_number(site: Sites) -> None:
    document = site(
        "{router_id: 254, on_secondary: 10.0.0.101, more_addresses: [10.0.0.1]}", listen="10.0.0.100, 10.0.0.101"
    )
    for role in ("primary", "secondary"):
        cluster = pair_of(document, HostFacts(ways=WAYS, here=HERE.model_copy(update={"role": role})))
        assert hosts(cluster) == {"primary": ("10.0.0.1", "10.0.0.100"), "secondary": ("10.0.0.101",)}
        assert [group.router_id for group in cluster.groups] == [254, 255]
        assert [group.at_home for group in cluster.groups] == [role == "primary", role == "secondary"]


def test_what_is_a_machine_s_own_does_not_move(site: Sites) -> None:
    document = site("{}", listen=f"{VIP}, {OWN}, {PEER}, 0.0.0.0:81, 127.0.0.1:82")
    for here in (HERE, Here(peer=OWN, address=PEER, interface="eth0", role="primary")):
        assert hosts(pair_of(document, HostFacts(ways=WAYS, here=here))) == {"primary": (VIP,)}


def test_both_families_move_together(site: Sites) -> None:
    document = site("{more_addresses: ['2001:DB8:0::1']}", listen=f"{VIP}, '2001:db8::100'")
    cluster = pair_of(document, HostFacts(ways=WAYS, here=HERE))
    assert hosts(cluster) == {"primary": (VIP, "2001:db8::1", "2001:db8::100")}
    pair6 = Here(peer="2001:db8::3", role="primary")
    ways = {"2001:db8::3": Way("eth0", source="2001:db8::2")}
    assert pair_of(document, HostFacts(ways=ways, here=pair6)).address == "2001:db8::2"


def test_an_address_is_put_where_its_segment_is(site: Sites) -> None:
    document = site("{}", listen=f"{VIP}, 10.1.0.100, 10.9.0.100, 10.8.0.100")
    (group,) = pair_of(document, HostFacts(ways=WAYS, here=HERE)).groups
    assert {each.host: each.interface for each in group.addresses} == {
        VIP: "eth0",
        "10.1.0.100": "eth1",
        "10.9.0.100": "eth7",  # behind a router
        "10.8.0.100": "eth7",  # nobody knows where
    }


def test_ways_are_asked_for_of_all_that_moves_and_of_the_peer(site: Sites) -> None:
    document = site("{on_secondary: 10.0.0.101, more_addresses: 10.0.0.1}", listen=f"{VIP}, 10.0.0.101, 0.0.0.0:81")
    facts = HostFacts(here=HERE)
    assert addresses_to_reach(document, facts) == {PEER, VIP, "10.0.0.101", "10.0.0.1"}


def test_a_plan_with_a_pair_outlives_its_json(site: Sites, installed: Catalogue) -> None:
    plan = compile_plan(site("{more_addresses: 10.0.0.1}"), HostFacts(ways=WAYS, here=HERE, secured=SECURED))
    assert from_json(to_json(plan), installed.checks) == plan


def test_the_source_that_the_kernel_names_makes_no_other_facts() -> None:
    assert Way("eth0", source=OWN) == Way("eth0", source=VIP)
