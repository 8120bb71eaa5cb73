"""Commands against the real API with a supervisor that keeps state but has no engines."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api.fake_supervisor import AT, FIRST
from tests.unit.api.running import RunningApi

Equipoise = Callable[..., Any]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(FIRST)
    return path


def test_status_is_0_when_all_is_up(api: RunningApi, equipoise: Equipoise) -> None:
    result = equipoise("status")
    assert result.exit_code == 0
    assert "all 2 services up" in result.stdout
    assert "\x1b" not in result.stdout


def test_status_says_what_is_wrong_first_and_what_to_do(api: RunningApi, equipoise: Equipoise) -> None:
    api.supervisor.down["mr/a"] = "connection refused " * 20
    api.supervisor.holds["ct/a"] = "drain"
    result = equipoise("status")
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    assert lines[0].startswith("general-hospital, plan ")
    assert "2 of 2 services in trouble" in lines[0]
    assert lines[1].startswith("mr is DOWN: 0 of 1 nodes take work")
    assert "mr/a is down: connection refused" in lines[2]
    assert "ct is DEGRADED" in result.stdout
    assert "`equipoise node enable ct/a`" in result.stdout
    assert "ask it by hand, with the settings under health: `equipoise probe tcp 10.0.0.11:104`" in result.stdout
    table = result.stdout[result.stdout.index("node") :]
    assert table.count("refused") == 40  # twice, whole: with what is wrong, and in the table


def test_a_node_without_a_port_is_probed_on_the_port_of_its_service(api: RunningApi, equipoise: Equipoise) -> None:
    api.supervisor.document = "ct/a 10.0.0.11\nct/b 2001:db8::1\n"
    api.supervisor.down |= {"ct/a": "refused", "ct/b": "refused"}
    said = equipoise("status").stdout
    assert "`equipoise probe tcp 10.0.0.11:104`" in said
    assert "`equipoise probe tcp [2001:db8::1]:104`" in said


def test_status_json_is_the_documents_shape(api: RunningApi, equipoise: Equipoise) -> None:
    api.supervisor.down["ct/b"] = "connection refused"
    result = equipoise("status", "--json")
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert document.keys() == {"site", "plan", "services"}
    ct = document["services"]["ct"]
    assert ct.keys() == {"protocol", "mode", "listen", "state", "reason", "connections", "nodes"}
    assert ct["nodes"]["b"] == {
        "address": "10.0.0.12:104",
        "state": "down",
        "weight": 100,
        "connections": 1,
        "bytes_in": 1536,
        "bytes_out": 0,
        "check": {"name": "tcp", "ok": False, "reason": "connection refused", "at": AT, "took_ms": 1.5},
    }


def test_what_a_stranger_wrote_does_not_steer_the_terminal(api: RunningApi, equipoise: Equipoise) -> None:
    api.supervisor.down["ct/b"] = "answered [red]\x1b[2J"
    api.call(partial(api.supervisor.emit, "node.down", reason="title \x1b[2J\nnode.up"))
    for words in (("status",), ("events",)):
        said = equipoise(*words).stdout
        assert "\x1b" not in said
        assert "[2J" in said
    assert "answered [red]" in equipoise("status").stdout
    assert len(equipoise("events").stdout.splitlines()) == 1


def test_plan_with_changes_is_a_finding(api: RunningApi, equipoise: Equipoise, site: Path) -> None:
    assert equipoise("plan", str(site)).exit_code == 0
    site.write_text(FIRST.replace("10.0.0.12", "10.0.0.99").replace("mr/a", "us/a"))
    result = equipoise("plan", str(site))
    assert result.exit_code == 2
    assert result.stdout.splitlines() == [
        "~ services.ct/b: 10.0.0.12:104 -> 10.0.0.99:104",
        "- services.mr/a: 10.0.0.11:104",
        "+ services.us/a: 10.0.0.11:104",
    ]
    document = json.loads(equipoise("plan", str(site), "--json").stdout)
    assert document.keys() == {"plan", "changes", "warnings"}
    assert document["changes"][1] == {
        "path": "services.mr/a",
        "what": "remove",
        "old": "10.0.0.11:104",
        "new": None,
    }
    assert api.supervisor.document == FIRST


def test_problems_are_told_with_the_name_of_the_operators_file(
    api: RunningApi, equipoise: Equipoise, site: Path
) -> None:
    site.write_text("broken")
    for command in ("plan", "apply"):
        result = equipoise(command, str(site))
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr == f"equipoise: {site}:2:5: services.ct: 'broken' is no service; remove it\n"


def test_apply_changes_and_needs_force_to_take_away(api: RunningApi, equipoise: Equipoise, site: Path) -> None:
    site.write_text(FIRST + "us/a 10.0.0.13:104\n")
    result = equipoise("apply", str(site))
    assert result.exit_code == 0
    assert "is in force" in result.stdout
    assert api.supervisor.document == site.read_text()
    assert "nothing to change" in equipoise("apply", str(site)).stdout
    site.write_text("ct/a 10.0.0.11:104\n")
    refused = equipoise("apply", str(site))
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert equipoise("apply", "--force", str(site)).exit_code == 0


def test_an_engine_that_refuses_is_an_error(api: RunningApi, equipoise: Equipoise, site: Path) -> None:
    site.write_text(FIRST + "unhappy")
    result = equipoise("apply", str(site))
    assert result.exit_code == 1
    assert "no memory" in result.stderr


def test_a_file_that_cannot_be_read(equipoise: Equipoise, tmp_path: Path) -> None:
    missing = equipoise("plan", str(tmp_path / "none.yaml"))
    assert missing.exit_code == 1
    assert missing.stderr == f"equipoise: cannot read {tmp_path}/none.yaml: No such file or directory\n"
    (tmp_path / "latin.yaml").write_bytes(b"site: x\nname: Universit\xe4t\n")
    latin = equipoise("plan", str(tmp_path / "latin.yaml"))
    assert latin.exit_code == 1
    assert "latin.yaml:2: byte 0xE4 is not UTF-8" in latin.stderr
    (tmp_path / "large.yaml").write_bytes(b"#" * (1 << 21))
    assert "1048576" in equipoise("apply", str(tmp_path / "large.yaml")).stderr


def test_node_commands_edit_overrides(api: RunningApi, equipoise: Equipoise) -> None:
    assert equipoise("node", "drain", "*/a").stdout == "ct/a drains\nmr/a drains\n"
    assert api.supervisor.holds == {"ct/a": "drain", "mr/a": "drain"}
    assert equipoise("node", "disable", "ct/a").exit_code == 0
    assert api.supervisor.holds["ct/a"] == "disabled"
    assert equipoise("node", "enable", "*/*").exit_code == 0
    assert api.supervisor.holds == {}
    assert equipoise("node", "weight", "ct/a", "30").stdout == "ct/a has weight 30\n"
    assert api.supervisor.weights == {"ct/a": 30}
    assert equipoise("node", "weight", "ct/a").exit_code == 0
    assert api.supervisor.weights == {}
    assert json.loads(equipoise("node", "drain", "mr/*", "--json").stdout) == {"changed": ["mr/a"]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("node", "drain", "ct/zzz"), "no node matches 'ct/zzz'"),
        (("node", "drain", "ct"), "not SERVICE/NODE"),
        (("node", "drain", "/a"), "not SERVICE/NODE"),
    ],
)
def test_node_errors_are_1(api: RunningApi, equipoise: Equipoise, words: tuple[str, ...], said: str) -> None:
    result = equipoise(*words)
    assert result.exit_code == 1
    assert said in result.stderr


def test_gateway_replace(api: RunningApi, equipoise: Equipoise) -> None:
    assert equipoise("gateway", "replace").stdout == "gateway 1001 serves\n"
    assert json.loads(equipoise("gateway", "replace", "--json").stdout) == {"pids": [1002]}


def test_events_for_people_and_programs(api: RunningApi, equipoise: Equipoise) -> None:
    counts = [{"command": "C-STORE", "status": "0000", "count": 3, "response_ms_max": None}]
    api.call(partial(api.supervisor.emit, "node.up", number=0))
    api.call(partial(api.supervisor.emit, "association.ended", node=None, reason="peer left", messages=counts))
    assert equipoise("events", "--limit", "1").stdout == (
        "2031-03-04 05:06:07 association.ended   node=none"
        ' reason="peer left" messages=[(command=C-STORE status=0000 count=3)]\n'
    )
    lines = equipoise("events", "--json").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["node.up", "association.ended"]
    assert lines[0] == '{"at":"2031-03-04T05:06:07.123Z","kind":"node.up","number":0}'


def test_every_asking_command_without_a_supervisor(equipoise: Equipoise, places: Path, site: Path) -> None:
    for words in (
        ("status",),
        ("status", "--json"),
        ("apply", str(site)),
        ("node", "drain", "a/b"),
        ("events",),
        ("events", "--follow"),
        ("gateway", "replace"),
    ):
        result = equipoise(*words)
        assert result.exit_code == 1, words
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert str(places / "run" / "api.sock") in result.stderr
        assert "equipoise run SITE.yaml" in result.stderr


def test_a_supervisor_with_a_bug_is_no_traceback(api: RunningApi, equipoise: Equipoise) -> None:
    api.supervisor.bug = ZeroDivisionError("of what")
    result = equipoise("status")
    assert result.exit_code == 1
    assert result.stderr.startswith("equipoise: a bug in Equipoise: ZeroDivisionError")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("status", "--nonsense"),
        ("node", "explode", "a/b"),
        ("node", "weight", "a/b", "many"),
        ("node", "weight", "a/b", "999"),
        ("events", "--limit", "0"),
        ("plan",),
        ("node",),
        (),
    ],
)
def test_wrong_use_is_1_never_2(equipoise: Equipoise, words: tuple[str, ...]) -> None:
    assert equipoise(*words).exit_code == 1


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("run",),
        ("check",),
        ("plan",),
        ("apply",),
        ("status",),
        ("node",),
        ("node", "drain"),
        ("node", "enable"),
        ("node", "disable"),
        ("node", "weight"),
        ("events",),
        ("gateway",),
        ("gateway", "replace"),
    ],
)
def test_every_command_has_a_help_page(equipoise: Equipoise, words: tuple[str, ...]) -> None:
    result = equipoise(*words, "--help")
    assert result.exit_code == 0
    assert f"Usage: {' '.join(('equipoise', *words))}" in result.stdout


def test_the_help_page_has_examples_and_exit_codes(equipoise: Equipoise) -> None:
    said = equipoise("--help").stdout
    assert "equipoise node drain '*/pacs-a'" in said
    assert "Exit codes: 0 good; 1 error" in said
