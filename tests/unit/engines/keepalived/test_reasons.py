"""What keepalived's log says of causes, in lines that version 2.2.7 wrote."""

import pytest

from equipoise.engines.keepalived.reasons import Causes, in_words

PEER = "10.0.0.3"
AT = "Sun Nov 22 10:09:19 2026"
WHEN = 1795342159.0


def said(*texts: str) -> list[str]:
    return [f"{AT}: {text}" for text in texts]


def reason(state: str, *texts: str, before: str = "backup", fault: str | None = None) -> str:
    causes = Causes()
    causes.take(said(*texts))
    return in_words(causes.change("primary", state), before, PEER, 600, fault)


@pytest.mark.parametrize(
    ("state", "texts", "expected"),
    [
        (
            "master",
            ["(primary) Receive advertisement timeout", "(primary) Entering MASTER STATE"],
            "no word from the peer (10.0.0.3) for 600 ms",
        ),
        (
            "master",
            [
                "(primary) Backup received priority 0 advertisement",
                "(primary) Receive advertisement timeout",
                "(primary) Entering MASTER STATE",
            ],
            "the peer (10.0.0.3) gave them up: it hands over, is stopped or cannot carry traffic",
        ),
        (
            "master",
            [
                "(primary) received lower priority (240) advert from 10.0.0.3 - discarding",
                "(primary) Receive advertisement timeout",
                "(primary) Entering MASTER STATE",
            ],
            "they are at home here (`cluster.preempt`)",
        ),
        (
            "backup",
            [
                "(primary) Master received advert from 10.0.0.3 with higher priority 250, ours 240",
                "(primary) Entering BACKUP STATE",
            ],
            "the peer (10.0.0.3) has them too, and is where they belong",
        ),
        (
            "fault",
            ["(primary): tracked file give-primary now FAULT state", "(primary) Entering FAULT STATE"],
            "handed over to the peer",
        ),
        (
            "fault",
            ["(primary): tracked file fault now FAULT state", "(primary) Entering FAULT STATE"],
            "this machine could not carry traffic",
        ),
        ("fault", ["Netlink reports eth0 down", "(primary) Entering FAULT STATE"], "the interface eth0 is down"),
        (
            "fault",
            ["(primary): entering FAULT state (interface eth1 down)", "(primary) entering FAULT state"],
            "the interface eth1 is down",
        ),
        (
            "fault",
            [
                "Script `gateway` now returning 1",
                "VRRP_Script(gateway) failed (exited with status 1)",
                "(primary) Entering FAULT STATE",
            ],
            "no gateway process runs",
        ),
        ("fault", ["VRRP_Script(haproxy) timed out", "(primary) Entering FAULT STATE"], "no HAProxy runs"),
        (
            "backup",
            [
                "VRRP child process(5306) died: Respawning",
                "VRRP_Script(gateway) succeeded",
                "(primary) Entering BACKUP STATE (init)",
            ],
            "keepalived was ended by something else, and started again",
        ),
        (
            "backup",
            [
                "Netlink reflector reports IP 10.0.0.100 removed from eth0",
                "(primary) Entering BACKUP STATE",
            ],
            "something else took the address 10.0.0.100 away, so all of them are set up anew",
        ),
        ("unknown", ["Stopping", "(primary) sent 0 priority"], "keepalived was stopped"),
        ("master", ["something that no version wrote so far"], "no word from the peer (10.0.0.3) for 600 ms"),
        ("unknown", [], "keepalived was stopped"),
    ],
)
def test_a_change_has_its_cause(state: str, texts: list[str], expected: str) -> None:
    assert reason(state, *texts) == expected


def test_a_fault_that_we_told_of_is_named() -> None:
    lines = ["(primary): tracked file fault now FAULT state", "(primary) Entering FAULT STATE"]
    assert reason("fault", *lines, fault="no gateway answers") == "no gateway answers"


@pytest.mark.parametrize(
    ("before", "expected"), [("fault", "this machine can carry traffic again"), ("unknown", "it stands by")]
)
def test_standing_by_after_a_fault_is_not_what_it_is_after_a_start(before: str, expected: str) -> None:
    lines = ["VRRP_Script(gateway) succeeded", "(primary) Entering BACKUP STATE"]
    assert reason("backup", *lines, before=before) == expected


def test_one_cause_is_that_of_every_group_and_of_one_change_each() -> None:
    causes = Causes()
    causes.take(said("Netlink reports eth0 down", "(primary) Entering FAULT STATE", "(secondary) Entering FAULT STATE"))
    causes.take(said("(primary) Entering BACKUP STATE"))
    assert [causes.change(group, "fault").cause.word for group in ("primary", "secondary")] == ["interface"] * 2
    assert causes.change("primary", "backup").cause.word == ""


def test_causes_of_one_group_are_not_those_of_the_other() -> None:
    causes = Causes()
    causes.take(said("(secondary) Backup received priority 0 advertisement", "(primary) Receive advertisement timeout"))
    causes.take(said("(primary) Entering MASTER STATE"))
    assert causes.change("primary", "master").cause.word == "silence"


def test_changes_that_waited_have_their_own_times_and_causes_each() -> None:
    causes = Causes()
    causes.take(
        [
            *said("(primary) Receive advertisement timeout", "(primary) Entering MASTER STATE"),
            "Sun Nov 22 10:10:00 2026: Netlink reports eth0 down",
            "Sun Nov 22 10:10:00 2026: (primary) Entering FAULT STATE",
            "not a line of keepalived",
            "Xxx Nov 99 10:10:00 2026: (primary) Entering BACKUP STATE",
        ]
    )
    changes = [causes.change("primary", state) for state in ("master", "fault", "backup")]
    assert [change.cause.word for change in changes] == ["silence", "interface", ""]
    assert [change.at for change in changes][:2] == [WHEN, WHEN + 41]
    assert causes.change("primary", "master").at is None
