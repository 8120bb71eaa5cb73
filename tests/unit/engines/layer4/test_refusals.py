from dataclasses import replace

from equipoise.engines.layer4.refusals import refusals
from equipoise.plan.inputs import Way
from tests.unit.engines.layer4.fake_kernel import FakeKernel
from tests.unit.engines.layer4.plans import WayTo, artifact_of, by_eth0, fillings_of

DIRECT = "d: {protocol: tcp, ports: [80], mode: l4_dr, listen: 10.0.0.100, nodes: {a: {address: 10.0.0.11}}}"
TRANSLATED = "n: {protocol: tcp, ports: [81], mode: l4_nat, listen: 10.0.0.100, nodes: {a: {address: 10.0.0.11}}}"
SIX = "m: {protocol: tcp, ports: [81], mode: l4_nat, listen: '2001:db8::1', nodes: {a: {address: '2001:db8::2'}}}"


def said(services: str, kernel: FakeKernel, way_to: WayTo = by_eth0) -> list[str]:
    artifact = artifact_of(services, way_to)
    return [str(refusal) for refusal in refusals(artifact, kernel, fillings_of(artifact))]


def test_what_can_be_carried_is_shown_to_the_kernel_and_not_refused() -> None:
    kernel = FakeKernel()
    assert said(f"{DIRECT}\n{TRANSLATED}\n{SIX}", kernel) == []
    assert len(kernel.checked) == 1
    assert kernel.told == []


def test_a_node_behind_a_router_with_the_ways_out() -> None:
    found = said(DIRECT, FakeKernel(), lambda address: Way("eth0", "10.0.0.1" if address.endswith(".11") else None))
    assert len(found) == 1
    assert found[0].startswith("services.d.nodes.a: direct routing reaches nodes of the same segment alone")
    assert "10.0.0.1;" in found[0]
    assert "`mode: l4_nat`" in found[0]


def test_an_address_of_which_no_interface_is_known() -> None:
    (found,) = said(DIRECT, FakeKernel(), lambda address: Way("eth0") if address.endswith(".11") else None)
    assert found.startswith("services.d.listen: no interface")
    assert "network.interface" in found


def test_an_interface_that_is_not_there() -> None:
    kernel = FakeKernel()
    kernel.links = {"eth1": 3}
    (found,) = said(DIRECT, kernel)
    assert found == "network.interface: there is no interface 'eth0' here; see `ip link`"
    assert kernel.checked == [], "nft would say the same with less sense"


def test_an_interface_that_went_while_its_rules_are_in_force_stops_no_plan() -> None:
    kernel, artifact = FakeKernel(), artifact_of(DIRECT)
    kernel.links = {}
    assert refusals(artifact, kernel, fillings_of(artifact), ["eth0"]) == []
    assert "eth0" not in kernel.checked[0]
    assert refusals(artifact, kernel, fillings_of(artifact), ["eth1"]) != []


def test_a_node_that_is_this_machine() -> None:
    artifact = replace(artifact_of(DIRECT), direct=(("d", "a", "127.0.0.1"),))  # which a name may lead to
    (refusal,) = refusals(artifact, FakeKernel(), fillings_of(artifact))
    found = str(refusal)
    assert found.startswith("services.d.nodes.a: 127.0.0.1 is an address of this machine")
    assert "`mode: l7_snat`" in found


def test_a_source_that_is_not_this_machine() -> None:
    (found,) = said(TRANSLATED.replace("nodes", "masquerade: true, source_address: 192.0.2.5, nodes"), FakeKernel())
    assert found.startswith("services.n.source_address: 192.0.2.5 is not an address of this machine")
    assert said(TRANSLATED.replace("nodes", "masquerade: true, source_address: 127.0.0.1, nodes"), FakeKernel()) == []


def test_a_machine_that_hands_no_packets_on() -> None:
    kernel = FakeKernel()
    kernel.forwarding = {"ip6"}
    (found,) = said(f"{TRANSLATED}\n{SIX}", kernel)
    assert "sysctl -w net.ipv4.ip_forward=1" in found
    kernel.forwarding = {"ip"}
    (found,) = said(f"{TRANSLATED}\n{SIX}", kernel)
    assert "sysctl -w net.ipv6.conf.all.forwarding=1" in found
    assert said(DIRECT, kernel) == [], "direct routing needs none"


def test_what_the_kernel_refuses() -> None:
    kernel = FakeKernel()
    kernel.refusals = 1
    assert said(TRANSLATED, kernel) == ["the kernel refuses"]
