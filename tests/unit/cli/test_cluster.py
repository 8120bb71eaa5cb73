"""`cluster` against the real API with half of a pair that keeps state; how the status looks: test_cluster_view.py."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise.cli import cluster, cluster_join
from tests.unit.api.fake_pair import CHANGE, OWN, PEER, TOKEN, FakePair, alone, healthy
from tests.unit.api.fake_supervisor import FIRST
from tests.unit.api.running import RunningApi

Equipoise = Callable[..., Any]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_join, "_LOOK_S", 0.01)
    monkeypatch.setattr(cluster_join, "_SETTLES_S", 0.05)
    monkeypatch.setattr(cluster, "_LOOK_S", 0.01)
    monkeypatch.setattr(cluster, "_SETTLES_S", 0.05)


@pytest.fixture
def pair(api: RunningApi) -> FakePair:
    return api.supervisor.pair


@pytest.fixture
def joined(pair: FakePair) -> FakePair:
    pair.document = healthy()
    return pair


def test_a_pair_that_is_well_is_0(joined: FakePair, equipoise: Equipoise) -> None:
    result = equipoise("cluster", "status")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("general-hospital: would survive the loss of either machine\n")
    assert json.loads(equipoise("cluster", "status", "--json").stdout) == joined.document


def test_a_finding_is_2_for_people_and_programs(pair: FakePair, equipoise: Equipoise) -> None:
    for words in (("cluster", "status"), ("cluster", "status", "--json")):
        assert equipoise(*words).exit_code == 2
    first = equipoise("cluster", "status").stdout.splitlines()[0]
    assert first == "general-hospital: WOULD NOT SURVIVE the loss of a machine: this machine is in no pair"


def test_what_is_over_in_a_moment_is_no_finding(
    joined: FakePair, equipoise: Equipoise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_SETTLES_S", 30)
    joined.document["groups"][0]["holder"] = "nobody"

    def settle(_: float) -> None:
        joined.document["groups"][0]["holder"] = "peer"

    monkeypatch.setattr(time, "sleep", settle)
    assert equipoise("cluster", "status").exit_code == 0


def test_of_a_peer_that_died_just_now_nobody_says_that_the_pair_would_survive(
    joined: FakePair, equipoise: Equipoise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_SETTLES_S", 30)
    joined.document["peer"]["problem"] = "nobody listens there"  # heard a second ago all the same

    def fall_silent(_: float) -> None:
        joined.document["peer"]["connected"] = False

    monkeypatch.setattr(time, "sleep", fall_silent)
    result = equipoise("cluster", "status")
    assert result.exit_code == 2
    assert "MAY NOT SURVIVE" in result.stdout


def test_without_a_supervisor_it_is_1(equipoise: Equipoise) -> None:
    for words in (("status",), ("join", PEER), ("leave", "--yes"), ("sync",), ("handover",)):
        result = equipoise("cluster", *words)
        assert (result.exit_code, "no supervisor answers" in result.stderr) == (1, True), words


def test_inviting_prints_the_command_for_the_other_machine_and_waits(pair: FakePair, equipoise: Equipoise) -> None:
    pair.joins_after_looks = 3
    result = equipoise("cluster", "join", PEER, "--role", "primary", "--address", OWN, "--interface", "eth0")
    assert result.exit_code == 0, result.output
    assert pair.asked == [("join", PEER, None, "primary", OWN, "eth0")]
    lines = result.stdout.splitlines()
    assert lines[0] == f"run this on {PEER}, where `equipoise run` serves already, within 10:00 minutes:"
    assert f"  equipoise cluster join {OWN} --token {TOKEN}" in lines
    assert f"{PEER} has joined; this machine's document is for both from now on, as revision 17" in lines
    assert "`equipoise cluster status`" in lines[-1]


def test_nobody_who_came_is_a_finding(pair: FakePair, equipoise: Equipoise) -> None:
    pair.expires_after_looks = 2
    result = equipoise("cluster", "join", PEER)
    assert (result.exit_code, "did not come" in result.stdout) == (2, True)


def test_the_invitation_is_gone_a_moment_before_the_pair_is_there(
    pair: FakePair, equipoise: Equipoise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_join, "_SETTLES_S", 30)
    pair.expires_after_looks = 1
    looks = 0

    def later(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            pair.document = healthy()

    monkeypatch.setattr(time, "sleep", later)
    assert equipoise("cluster", "join", PEER).exit_code == 0


def test_who_does_not_wait_gets_the_command_and_nothing_else(pair: FakePair, equipoise: Equipoise) -> None:
    result = equipoise("cluster", "join", PEER, "--no-wait")
    assert (result.exit_code, TOKEN in result.stdout, pair.looks) == (0, True, 0)


def test_ctrl_c_leaves_the_invitation_open(
    pair: FakePair, equipoise: Equipoise, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    result = equipoise("cluster", "join", PEER)
    assert (result.exit_code, "the invitation stays open" in result.stdout) == (2, True)
    assert pair.document["invitation"] is not None


def test_programs_get_a_line_for_the_invitation_and_one_for_the_end(pair: FakePair, equipoise: Equipoise) -> None:
    pair.joins_after_looks = 1
    invited, done = map(json.loads, equipoise("cluster", "join", PEER, "--json").stdout.splitlines())
    assert (invited["state"], invited["token"]) == ("invited", TOKEN)
    assert done == {"state": "joined", "peer": PEER, "role": "primary", "revision": 17}
    pair.document, pair.expires_after_looks = alone(), pair.looks + 1
    lines = equipoise("cluster", "join", PEER, "--json").stdout.splitlines()
    assert json.loads(lines[1]) == {"state": "expired", "peer": PEER}


def test_joining_says_whose_document_is_in_force(pair: FakePair, equipoise: Equipoise, places: Path) -> None:
    result = equipoise("cluster", "join", OWN, "--token", TOKEN)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"joined {OWN}; this machine is the secondary",
        f"revision 17, the document of {OWN}, is in force here; the one before is in {places}/state/revisions",
        "`equipoise cluster status` says whether the pair would survive the loss of a machine",
    ]
    pair.document = alone()
    assert json.loads(equipoise("cluster", "join", OWN, "--token", TOKEN, "--json").stdout)["revision"] == 17


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((PEER, "--token", "wrong"), "the token is not that of an invitation"),
        (("pacs.example",), "PEER: 'pacs.example' is no IP address; write that of the other machine"),
        ((f"{PEER}:70000",), "PEER: "),
        ((PEER, "--address", "me"), "--address: 'me' is no IP address; write that of this machine"),
        ((PEER, "--role", "boss"), "boss"),
    ],
)
def test_wrong_use_of_join_is_1(pair: FakePair, equipoise: Equipoise, words: tuple[str, ...], said: str) -> None:
    result = equipoise("cluster", "join", *words)
    assert (result.exit_code, said in result.stderr) == (1, True), result.stderr
    assert not pair.document["joined"]


def test_a_peer_with_a_port(pair: FakePair, equipoise: Equipoise) -> None:
    assert equipoise("cluster", "join", f"{PEER}:4711", "--no-wait").exit_code == 0
    assert pair.asked[0][1] == f"{PEER}:4711"


def test_leaving_is_asked_of_a_person(joined: FakePair, equipoise: Equipoise) -> None:
    result = equipoise("cluster", "leave")
    assert (result.exit_code, "add --yes if that is meant" in result.stderr) == (1, True)
    assert joined.asked == []
    assert equipoise("cluster", "leave", "--yes").stdout == f"left; {PEER} knows, and serves on alone\n"
    again = equipoise("cluster", "leave")
    assert (again.exit_code, "in no pair" in again.stderr) == (1, True)


def test_a_person_hears_what_leaving_means(
    joined: FakePair, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda _: True)
    cluster._ask_whether_to_leave(joined.document)
    said = capsys.readouterr().out
    assert f"This ends the pair with {PEER}." in said
    assert "10.0.0.100, 10.0.0.101: given up here, and the peer takes them." in said
    joined.document["peer"]["connected"] = False
    cluster._ask_whether_to_leave(joined.document)
    assert "perhaps NOBODY serves them" in capsys.readouterr().out


def test_while_an_invitation_is_open_it_is_what_is_left(joined: FakePair, equipoise: Equipoise) -> None:
    joined.document["invitation"] = {"peer": "10.0.0.9", "expires_s": 800}
    joined.peer_knows = False
    result = equipoise("cluster", "leave")
    assert result.exit_code == 0
    assert result.stdout == "the invitation of 10.0.0.9 was taken back, and nothing else was changed\n"


def test_a_peer_that_could_not_be_told_has_to_leave_by_itself(joined: FakePair, equipoise: Equipoise) -> None:
    joined.peer_knows = False
    result = equipoise("cluster", "leave", "--yes")
    assert (result.exit_code, "run `equipoise cluster leave` there too" in result.stdout) == (2, True)
    joined.document = healthy()
    assert json.loads(equipoise("cluster", "leave", "-y", "--json").stdout) == {"peer": PEER, "peer_knows": False}


@pytest.mark.parametrize(
    ("relation", "take", "said"),
    [
        ("same", (), "revision 17 is in force on both; there was nothing to do"),
        ("ahead", (), "revision 17, this machine's, is in force on both; the peer keeps the one before"),
        ("behind", (), "revision 18, the peer's, is in force on both; the one before is in "),
        ("conflict", ("--take", "theirs"), "revision 18, the peer's, is in force on both"),
        ("conflict", ("--take", "ours"), "revision 17, this machine's, is in force on both"),
    ],
)
def test_documents_are_made_the_same(
    joined: FakePair, equipoise: Equipoise, relation: str, take: tuple[str, ...], said: str
) -> None:
    joined.document["revision"] = {"ours": 17, "theirs": 18, "relation": relation}
    result = equipoise("cluster", "sync", *take)
    assert (result.exit_code, said in result.stdout) == (0, True), result.stdout


def test_a_conflict_is_shown_with_the_two_ways_out_and_nothing_is_changed(
    joined: FakePair, equipoise: Equipoise
) -> None:
    joined.document["revision"] = {"ours": 18, "theirs": 18, "relation": "conflict"}
    joined.difference = [CHANGE]
    result = equipoise("cluster", "sync")
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    assert lines[1:3] == ["what the peer's would change here:", "  ~ services.ct.nodes.a.weight: 100 -> 50"]
    assert [line.split()[4] for line in lines if "--take" in line] == ["ours", "theirs"]
    assert joined.document["revision"]["relation"] == "conflict"
    programs = equipoise("cluster", "sync", "--json")
    assert (programs.exit_code, json.loads(programs.stdout)["difference"]) == (2, [CHANGE])


def test_addresses_are_handed_over_and_taken(joined: FakePair, equipoise: Equipoise) -> None:
    result = equipoise("cluster", "handover")
    assert (result.exit_code, result.stdout) == (
        0,
        f"{PEER}, the peer, has 10.0.0.100, 10.0.0.101 now, after 43 ms\n",
    )
    result = equipoise("cluster", "handover", "--here", "--group", "primary")
    assert result.stdout == f"{OWN}, this machine, has 10.0.0.100, 10.0.0.101 now, after 43 ms\n"
    assert joined.asked == [("handover", [], False), ("handover", ["primary"], True)]
    assert json.loads(equipoise("cluster", "handover", "--json").stdout)["within_ms"] == 42.7
    assert equipoise("cluster", "handover", "--group", "secondary").stdout.startswith("nothing to move")


def test_apply_says_where_the_document_is_in_force(api: RunningApi, equipoise: Equipoise, tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(FIRST + "us/a 10.0.0.13:104\n")
    api.supervisor.applied = (18, "")
    both = equipoise("apply", str(site))
    assert (both.exit_code, both.stdout.splitlines()[-1]) == (0, "revision 18, on both machines")
    api.supervisor.applied = (19, "it does not answer")
    here = equipoise("apply", str(site))
    assert here.exit_code == 2
    assert here.stdout.splitlines()[-1] == ("revision 19, here alone: it does not answer")
    programs = equipoise("apply", str(site), "--json")
    document = json.loads(programs.stdout)
    assert (programs.exit_code, document["revision"], document["peer"]) == (2, 19, "it does not answer")


@pytest.mark.parametrize("word", ["status", "join", "leave", "sync", "handover"])
def test_every_command_has_a_help_page(equipoise: Equipoise, word: str) -> None:
    result = equipoise("cluster", word, "--help")
    assert (result.exit_code, f"Usage: equipoise cluster {word}" in result.stdout) == (0, True)
