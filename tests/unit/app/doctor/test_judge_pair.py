"""What half of a pair is told of its machine and of its peer."""

from dataclasses import replace

import pytest

from equipoise.app.doctor.facts_pair import PairFacts, Tracking
from equipoise.app.doctor.findings import Level
from equipoise.app.doctor.judge_pair import judge_pair, judge_unfinished
from equipoise.app.doctor.judge_site import judge_site
from equipoise.app.wiring import catalogue
from equipoise.config.cluster import Here
from equipoise.config.loading import load
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Plan, Secured
from tests.unit.app.doctor.healthy import listener, machine, plan, surroundings

SITE = """\
site: here
cluster: {peer: 10.0.0.3, address: 10.0.0.2, interface: eth0, role: primary}
services:
  ct: {protocol: dicom, listen: 10.0.0.100, nodes: {a: {address: '10.0.0.12:104'}}}
"""
WELL = PairFacts(
    keepalived="/usr/sbin/keepalived",
    nft="/usr/sbin/nft",
    strangers=(),
    starts_itself=False,
    whose="equipoise",
    lacking=(),
    link="up",
    has_address=True,
    unreachable="",
    tracking=None,
    tracking_file="/run/equipoise/conntrackd.conf",
)


def pair(text: str = SITE, *, joined: bool = True, here: Here | None = None) -> Plan:
    secured = Secured("own.pem", "peer.pem", "f") if joined else None
    return compile_plan(load(text, "site.yaml", catalogue()).site, HostFacts(here=here, secured=secured))


def told(facts: PairFacts, site: Plan | None = None) -> list[tuple[Level, str]]:
    findings = judge_pair(site or pair(), facts)
    return [(each.level, f"{each.seen}; {each.do}") for each in findings if each.level is not Level.OK]


def test_all_is_well() -> None:
    assert told(WELL) == []
    seen = [each.seen for each in judge_pair(pair(), WELL)]
    assert "10.0.0.100: at home on the primary, VRRP router identifier 51" in seen
    assert "10.0.0.3:11251 answers; `equipoise cluster status` tells the rest" in seen


def test_a_machine_alone_is_not_spoken_to_of_pairs() -> None:
    assert list(judge_pair(plan(), WELL)) == []


@pytest.mark.parametrize(
    ("facts", "level", "said"),
    [
        (replace(WELL, keepalived=""), Level.PROBLEM, "keepalived is not installed, which moves the addresses; apt"),
        (
            replace(WELL, nft=""),
            Level.PROBLEM,
            "nftables is not installed, which lets in VRRP from the peer alone; apt",
        ),
        (replace(WELL, strangers=(7, 9)), Level.PROBLEM, "another keepalived runs, process 7, 9: not started by Equ"),
        (replace(WELL, starts_itself=True), Level.WARNING, "a second one starts when the machine does; `systemctl dis"),
        (
            replace(WELL, lacking=("CAP_NET_ADMIN", "CAP_NET_RAW")),
            Level.PROBLEM,
            "equipoise lacks CAP_NET_ADMIN and CAP_NET_RAW, without which",
        ),
        (replace(WELL, link="missing"), Level.PROBLEM, "there is no interface eth0 on this machine; correct `cluster"),
        (replace(WELL, link="down"), Level.PROBLEM, "eth0, where the two hear each other, is down; plug in its cable"),
        (replace(WELL, has_address=False), Level.PROBLEM, "10.0.0.2 is not an address of this machine"),
        (
            replace(WELL, unreachable="Connection refused"),
            Level.PROBLEM,
            "10.0.0.3:11251, from 10.0.0.2: Connection refused; see that Equipoise runs there, and that no firewall",
        ),
    ],
)
def test_one_thing_wrong(facts: PairFacts, level: Level, said: str) -> None:
    ((found, text),) = told(facts)
    assert (found, said in text) == (level, True), text


def test_two_that_have_not_joined() -> None:
    ((level, text),) = told(replace(WELL, unreachable=None), pair(joined=False))
    assert (level, "`equipoise cluster join 10.0.0.3`" in text) == (Level.WARNING, True)


@pytest.mark.parametrize("key", ["source_address: 10.0.0.100", "health: {check: tcp, source_address: 10.0.0.100}"])
def test_nodes_called_from_an_address_that_only_one_of_the_two_has(key: str) -> None:
    ((level, text),) = told(WELL, pair(SITE.replace("nodes:", f"{key}, nodes:")))
    assert (level, "finds them all down when it takes over" in text) == (Level.WARNING, True)


@pytest.mark.parametrize(
    ("tracking", "said"),
    [
        ("ours", "runs with Equipoise's file"),
        ("other", "with a file of its own; Equipoise writes one for it: `conntrackd -d -C /run/equipoise/conntrackd.c"),
        ("stopped", "conntrackd does not run; with it connections of l4_nat outlive a machine: `conntrackd -d -C"),
        ("absent", "conntrackd is not installed; with it connections of l4_nat outlive a machine: apt install"),
    ],
)
def test_conntrackd_is_a_wish(tracking: Tracking, said: str) -> None:
    facts = replace(WELL, tracking=tracking)
    assert told(facts) == []
    assert said in list(judge_pair(pair(), facts))[-1].seen


def test_a_cluster_without_a_peer_is_unfinished() -> None:
    finding = judge_unfinished()
    assert (finding.level, "`equipoise cluster join PEER`" in finding.do) == (Level.WARNING, True)


def test_an_address_that_the_peer_may_have_need_not_be_here() -> None:
    away = replace(surroundings(), listeners=(replace(listener(104), local=False),), sources=())
    found = [each for each in judge_site(pair(), machine(), away) if each.item == "addresses"]
    assert [(each.level, each.seen) for each in found] == [(Level.OK, "all on this machine, or brought up by it")]
    away = replace(away, sources=(replace(surroundings().sources[0], local=False),))
    assert not [each for each in judge_site(pair(), machine(), away) if each.item == "source address"]
