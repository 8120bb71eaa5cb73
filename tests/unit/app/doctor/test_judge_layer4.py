"""What a site is told of services that the kernel carries."""

from dataclasses import replace

import pytest

from equipoise.app.doctor.facts import Conntrack
from equipoise.app.doctor.facts_layer4 import Claim, DirectNode, Knock, Layer4Facts
from equipoise.app.doctor.findings import Level
from equipoise.app.doctor.judge_layer4 import judge_layer4
from equipoise.plan.inputs import Way
from equipoise.plan.model import Endpoint
from tests.unit.app.doctor.healthy import plan

SITE = """\
site: here
services:
  ct: {protocol: dicom, mode: l4_dr, listen: 10.0.0.100, nodes: {a: {address: 10.0.0.11}, b: {address: 10.0.0.12}}}
  web: {protocol: tcp, mode: l4_nat, listen: '10.0.0.101:80', nodes: {a: {address: '10.0.0.11:8080'}}}
"""
PLAN = plan(SITE)
VIP = Endpoint("10.0.0.100", 104)
MAC_A, MAC_B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
HERE = Way("eth0")
TABLE = Conntrack(maximum=262144, used=1, established_timeout_s=432000)


def node(name: str, mac: str = MAC_A, how: Knock = "listens") -> DirectNode:
    return DirectNode("ct", name, f"10.0.0.1{name}", HERE, "10.0.0.1", (mac,), ((VIP, how),))


WELL = Layer4Facts(
    whose="equipoise",
    may_change=True,
    may_ask=True,
    refused="",
    absent=(),
    forwarding={4: True, 6: False},
    redirecting=frozenset(),
    strict=(),
    ways={"10.0.0.100": HERE, "10.0.0.101": HERE, "10.0.0.11": HERE, "10.0.0.12": HERE},
    nodes=(node("a"), node("b", MAC_B)),
    claims=(Claim("10.0.0.100", ()),),
)


def told(facts: Layer4Facts, table: Conntrack | None = TABLE) -> list[tuple[Level, str]]:
    findings = judge_layer4(PLAN, facts, table)
    return [(each.level, f"{each.seen}; {each.do}") for each in findings if each.level is not Level.OK]


def test_all_is_well() -> None:
    assert told(WELL) == []
    assert "ct/a, ct/b: take packets" in [each.seen for each in judge_layer4(PLAN, WELL, None)][-1]


def with_a(a: DirectNode) -> Layer4Facts:
    return replace(WELL, nodes=(a, node("b", MAC_B)))


@pytest.mark.parametrize(
    ("facts", "level", "said"),
    [
        (replace(WELL, may_change=False), Level.PROBLEM, "equipoise lacks CAP_NET_ADMIN"),
        (
            replace(
                WELL,
                refused="packet rules need the program nft, and there is none here; install it: apt install nftables",
            ),
            Level.PROBLEM,
            "none here; install it: apt install nftables",
        ),
        (replace(WELL, refused="the kernel does not take it"), Level.PROBLEM, "it needs nf_tables with the netdev ing"),
        (replace(WELL, absent=("10.0.0.100",)), Level.WARNING, "not on this machine: 10.0.0.100; bring it up"),
        (
            replace(WELL, forwarding={4: False}),
            Level.PROBLEM,
            "net.ipv4.ip_forward is off, so that nothing reaches the",
        ),
        (replace(WELL, redirecting=frozenset({"eth0"})), Level.WARNING, "web: clients and nodes are both on eth0"),
        (with_a(replace(node("a"), way=Way("eth0", "10.0.0.1"))), Level.PROBLEM, "is behind the router 10.0.0.1"),
        (with_a(replace(node("a"), way=None)), Level.PROBLEM, "ct/a: there is no way to 10.0.0.1a"),
        (with_a(replace(node("a"), called_from="10.0.0.100")), Level.PROBLEM, "set health.source_address; of IPv6"),
        (with_a(replace(node("a"), macs=(), knocks=())), Level.WARNING, "ct/a: nobody on the segment answers"),
        (with_a(replace(node("a"), macs=(MAC_A, "02::"))), Level.PROBLEM, "both answer for 10.0.0.1a; two machines"),
        (with_a(node("a", how="silent")), Level.PROBLEM, "ct/a does not answer packets for 10.0.0.100:104"),
        (with_a(node("a", how="refuses")), Level.WARNING, "and nothing listens there; have its program listen"),
        (
            replace(WELL, claims=(Claim("10.0.0.100", (MAC_B,)),)),
            Level.PROBLEM,
            f"ct/b ({MAC_B}) answers the segment for 10.0.0.100, past this balancer; `equipoise layer4 prepare-node`",
        ),
        (
            replace(WELL, claims=(Claim("10.0.0.100", ("02:00:00:00:00:0c",)),)),
            Level.PROBLEM,
            "another machine, 02:00:00:00:00:0c, answers the segment for 10.0.0.100",
        ),
    ],
)
def test_one_thing_wrong(facts: Layer4Facts, level: Level, said: str) -> None:
    ((found, text),) = told(facts)
    assert (found, said in text) == (level, True), text


def test_a_small_table_of_connections() -> None:
    ((level, text),) = told(WELL, Conntrack(4096, 1, 432000))
    assert (level, "set net.netfilter.nf_conntrack_max to 65536" in text) == (Level.WARNING, True)


def test_the_table_of_connections_holds_what_the_nodes_may_have() -> None:
    limited = plan(SITE.replace("'10.0.0.11:8080'}", "'10.0.0.11:8080', max_connections: 100000}"))
    seen = [each for each in judge_layer4(limited, WELL, TABLE) if each.level is not Level.OK]
    assert ["set net.netfilter.nf_conntrack_max to 400000" in each.do for each in seen] == [True]


def test_without_rights_it_says_what_was_not_looked_at() -> None:
    blind = replace(WELL, may_ask=False, refused=None, claims=(), nodes=(DirectNode("ct", "a", "10.0.0.11", HERE),))
    assert told(blind) == []
    seen = " ".join(each.seen for each in judge_layer4(PLAN, blind, None))
    assert "the nodes were not asked" in seen
    assert "was not tried" in seen


def test_settings_matter_only_to_modes_that_need_them() -> None:
    direct = plan(SITE.replace("l4_nat", "l4_dr").replace(":8080", ":80"))
    facts = replace(WELL, forwarding={4: False}, redirecting=frozenset({"eth0"}))
    assert [each for each in judge_layer4(direct, facts, Conntrack(1, 0, 1)) if each.level is not Level.OK] == []
