"""What changes of a pair has a line, in the keys of the document."""

from dataclasses import replace
from typing import Any

import pytest

from equipoise.plan.diff import diff
from equipoise.plan.model import Cluster, ManagedAddress, Plan, Secured, VipGroup

GROUP = VipGroup("primary", 51, True, (ManagedAddress("10.0.0.100", "eth0"),))
PAIR = Cluster("primary", "10.0.0.2", "10.0.0.3", "eth0", 0.2, False, 11251, (GROUP,))
ALONE = Plan(site="here", services=(), gateway_workers=1, drain_timeout_s=30, digest="")


def lines(old: Cluster | None, new: Cluster | None) -> list[str]:
    return [change.to_text() for change in diff(replace(ALONE, cluster=old), replace(ALONE, cluster=new))]


def test_a_pair_that_begins_and_ends_is_shown_whole() -> None:
    begun = lines(None, PAIR)
    assert "+ cluster.peer: 10.0.0.3" in begun
    assert "+ cluster.advert: 200ms" in begun
    assert "+ cluster.addresses of the primary: 10.0.0.100 on eth0 (51)" in begun
    assert "+ cluster.joined: no" in begun
    assert [line.replace("+", "-", 1) for line in begun] == lines(PAIR, None)
    assert lines(PAIR, PAIR) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"peer": "10.0.0.4"}, "~ cluster.peer: 10.0.0.3 -> 10.0.0.4"),
        ({"address": "10.0.0.5"}, "~ cluster.address: 10.0.0.2 -> 10.0.0.5"),
        ({"interface": "eth1"}, "~ cluster.interface: eth0 -> eth1"),
        ({"role": "secondary"}, "~ cluster.role: primary -> secondary"),
        ({"advert_s": 1.0}, "~ cluster.advert: 200ms -> 1s"),
        ({"preempt": True}, "~ cluster.preempt: false -> true"),
        ({"port": 12000}, "~ cluster.port: 11251 -> 12000"),
        ({"groups": ()}, "- cluster.addresses of the primary: 10.0.0.100 on eth0 (51)"),
        (
            {"groups": (replace(GROUP, router_id=7),)},
            "~ cluster.addresses of the primary: 10.0.0.100 on eth0 (51) -> 10.0.0.100 on eth0 (7)",
        ),
        (
            {"groups": (GROUP, VipGroup("secondary", 52, False, (ManagedAddress("10.0.0.101", "eth0"),)))},
            "+ cluster.addresses of the secondary: 10.0.0.101 on eth0 (52)",
        ),
    ],
)
def test_each_setting_has_its_line(change: dict[str, Any], line: str) -> None:
    assert lines(PAIR, replace(PAIR, **change)) == [line]


def test_another_peer_by_the_same_address_is_seen() -> None:
    one, other = (Secured("/s/own.pem", "/s/peer.crt", letter * 64) for letter in "ab")
    assert lines(PAIR, replace(PAIR, secured=one)) == ["~ cluster.joined: no -> with the certificates aaaaaaaa"]
    assert lines(replace(PAIR, secured=one), replace(PAIR, secured=other)) == [
        "~ cluster.joined: with the certificates aaaaaaaa -> with the certificates bbbbbbbb"
    ]
