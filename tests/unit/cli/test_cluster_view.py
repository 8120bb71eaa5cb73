"""What a person reads of a pair at 3 a.m.: each thing that can be wrong, what it means, and what to do."""

import io
from typing import Any

import pytest
from rich.console import Console

from equipoise.base.clock import rfc3339
from equipoise.cli.cluster_findings import Survival, findings
from equipoise.cli.cluster_view import how_long, view
from tests.unit.api.fake_pair import PEER, alone, group, healthy

NOW_S = 1_930_000_000.0
DAY_S = 86400.0
YES, PERHAPS, NO = Survival.YES, Survival.PERHAPS, Survival.NO


def pair(**changes: Any) -> dict[str, Any]:
    """Return the status of a pair that is well, but for these changes: a dict changes keys of what is there."""
    document = healthy()
    document["peer"]["since"] = rfc3339(NOW_S - 3 * DAY_S)
    document["groups"] = [group(here_since=rfc3339(NOW_S - 3 * DAY_S))]
    for key, value in changes.items():
        merges = isinstance(value, dict) and document[key] is not None
        document[key] = document[key] | value if merges else value
    return document


def with_group(**changes: Any) -> dict[str, Any]:
    return pair(groups=[group(**changes)])


def shown(document: dict[str, Any], width: int = 400) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(view(document, NOW_S))
    return out.getvalue()


def test_a_pair_that_is_well() -> None:
    assert findings(pair()) == ()
    lines = [" ".join(line.split()) for line in shown(pair()).splitlines()]
    assert lines == [
        "general-hospital: would survive the loss of either machine",
        "",
        "addresses 10.0.0.100, 10.0.0.101 (at home on the primary): here for 3 days: the peer was silent",
        "here 10.0.0.2, the primary; the two hear each other on eth0, and one takes over after some 0.6 s of silence",
        "peer 10.0.0.3, the secondary, version 0.1.0, connected for 3 days",
        "document revision 17 on both",
        "state persistence and flows have reached the peer; overrides are the same",
        "failover none that this machine remembers",
    ]


SPLIT = {"addresses": ["10.0.0.100"], "found": "both machines say that they have them"}
SILENT = {"connected": False, "problem": "connection refused", "heard_s": 300.0}


@pytest.mark.parametrize(
    ("document", "survival", "seen", "do"),
    [
        (alone(), NO, "this machine is in no pair", "`equipoise cluster join PEER`"),
        (
            alone() | {"invitation": {"peer": PEER, "expires_s": 500}},
            NO,
            f"there is no pair yet: {PEER} was invited",
            "run there what",
        ),
        (pair(joined=False, peer={"connected": False}), PERHAPS, "have not joined", f"`equipoise cluster join {PEER}`"),
        (pair(peer={"role": "primary"}), YES, "both machines say that they are the primary", "correct `role`"),
        (pair(peer=SILENT), PERHAPS, f"the peer, {PEER}, does not answer: connection refused", "switched on"),
        (
            pair(peer={"fault": "haproxy does not run"}),
            NO,
            f"the peer, {PEER}, cannot carry traffic: haproxy does not",
            "run there",
        ),
        (pair(peer={"problem": "it speaks another version"}), YES, "speaks another version", "may not reach it"),
        (pair(fault="a gateway hangs"), NO, "this machine cannot carry traffic, so it takes no", "`equipoise doctor`"),
        (pair(split=SPLIT), NO, "two machines hold 10.0.0.100: both machines say", "IP protocol 112"),
        (with_group(holder="both", there="master"), NO, "two machines hold 10.0.0.100, 10.0.0.101", "stop Equipoise"),
        (
            with_group(holder="nobody", here="backup"),
            NO,
            "neither machine has 10.0.0.100, 10.0.0.101",
            "handover --here",
        ),
        (
            with_group(holder="peer", here="unknown", there="master"),
            NO,
            "keepalived does not run here",
            "`equipoise doctor`, here",
        ),
        (
            with_group(holder="peer", here="fault", there="master", reason="eth0 is down"),
            NO,
            "this machine cannot take 10.0.0.100, 10.0.0.101: eth0 is down",
            "`equipoise doctor`",
        ),
        (with_group(there="fault"), NO, f"the peer, {PEER}, cannot take 10.0.0.100", "run there"),
        (with_group(there=None), NO, f"the peer, {PEER}, has no keepalived", "run there"),
        (pair(groups=[]), NO, "no service listens on an address that could move", "0.0.0.0"),
        (
            pair(staying=[{"service": "web", "addresses": [PEER]}]),
            NO,
            f"the service web listens on {PEER}: that does not move",
            "an address of its own",
        ),
        (
            pair(revision={"ours": 18, "theirs": 19, "relation": "conflict"}),
            YES,
            "revision 18 here, 19 on the peer",
            "`equipoise cluster sync`",
        ),
        (pair(lag={"overrides": "differ"}), YES, "overrides of nodes differ", "`equipoise events`"),
    ],
)
def test_one_thing_wrong(document: dict[str, Any], survival: Survival, seen: str, do: str) -> None:
    (found,) = findings(document)
    assert (found.survival, seen in found.seen, do in found.do) == (survival, True, True), found
    first, second, *_ = shown(document, width=1000).splitlines()
    word = {NO: "WOULD NOT SURVIVE", PERHAPS: "MAY NOT SURVIVE", YES: "would survive the loss of either machine, but "}
    assert word[survival] in first
    assert seen in first
    assert second.strip().startswith("->")
    assert do in second


def test_the_worst_comes_first() -> None:
    conflict = {"ours": 18, "theirs": 19, "relation": "conflict"}
    found = findings(pair(revision=conflict, fault="a gateway hangs", lag={"overrides": "differ"}))
    assert [each.survival for each in found] == [NO, YES, YES]


def test_what_may_be_over_in_a_moment_says_so() -> None:
    assert [each.passing for each in findings(with_group(holder="both", there="master"))] == [True]
    assert [each.passing for each in findings(pair(lag={"overrides": "differ"}))] == [True]
    assert [each.passing for each in findings(pair(split=SPLIT))] == [False]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"holder": "peer", "here": "backup", "there": "master", "there_since": rfc3339(NOW_S - 90)},
            "on the peer, 10.0.0.3, for 90 seconds: the",
        ),
        ({"holder": "both"}, "ON BOTH, here for 3 days"),
        ({"holder": "nobody", "here": "fault"}, "NOWHERE; here fault for 3 days"),
        ({"holder": "unknown", "here": "backup", "there": None}, "on another machine, not here for 3 days"),
        ({"holder": "unknown", "here": "unknown", "here_since": None, "there": None}, "not known where; here unknown:"),
        ({"reason": ""}, "here for 3 days\n"),
    ],
)
def test_who_has_an_address(changes: dict[str, Any], said: str) -> None:
    text = shown(with_group(**{"here_since": rfc3339(NOW_S - 3 * DAY_S), **changes}))
    assert said in "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peer": SILENT}, "NOT CONNECTED, last heard 5 minutes ago"),
        ({"peer": {"connected": False, "heard_s": None}}, "NOT CONNECTED, never heard"),
        ({"peer": {"clock_off_s": 3600.4}}, "its clock is 60 minutes ahead of ours"),
        ({"peer": {"clock_off_s": -7300.0}}, "its clock is 2 hours behind ours"),
        ({"revision": {"ours": 18, "relation": "ahead"}}, "revision 18 here, 17 on the peer, which is to get ours"),
        ({"revision": {"theirs": 18, "relation": "behind"}}, "revision 17 here, 18 on the peer, which we are to get"),
        ({"revision": {"theirs": None, "relation": "unknown"}}, "revision 17 here, not known on the peer"),
        (
            {"lag": {"pending": 12, "behind_s": 0.4}},
            "12 entries of persistence and flows on their way to the peer, 0.4 s behind; overrides are the same",
        ),
        ({"lag": {"overrides": "unknown"}}, "whether overrides are the same is not known"),
        (
            {"last_failover": {"at": rfc3339(NOW_S - 90), "group": "primary", "to": "here", "reason": "it was silent"}},
            "90 seconds ago (",
        ),
        (
            {"last_failover": {"at": rfc3339(NOW_S - 90), "group": "primary", "to": "peer", "reason": "handed over"}},
            "): addresses of the primary went to the peer: handed over",
        ),
    ],
)
def test_the_rest_in_words(changes: dict[str, Any], said: str) -> None:
    assert said in shown(pair(**changes))


def test_a_narrow_terminal_folds_and_loses_nothing() -> None:
    document = pair(fault="a gateway hangs", groups=[group(addresses=["10.0.0.100", "2001:db8:0:1:2:3:4:100"])])
    text = shown(document, width=40)
    assert max(len(line) for line in text.splitlines()) <= 40
    flat = "".join(text.split())
    assert "WOULDNOTSURVIVE" in flat
    assert "2001:db8:0:1:2:3:4:100" in flat
    assert "`equipoisestatus`and`equipoisedoctor`,here,saymore" in flat


def test_what_a_peer_says_does_not_steer_the_terminal() -> None:
    text = shown(pair(peer={"fault": "\x1b[2J", "version": "\x1b[31m"}, site="\x1b]0;x"))
    assert "\x1b" not in text
    assert "[2J" in text


def test_how_long_is_said_in_words() -> None:
    assert [how_long(each) for each in (0, -5, 1, 119, 120, 7200, 2 * DAY_S)] == [
        "0 seconds",
        "0 seconds",
        "1 second",
        "119 seconds",
        "2 minutes",
        "2 hours",
        "2 days",
    ]
