"""What operators and checks say of a node lasts as long as it should, and no longer."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from equipoise.app.nodes import NodeBook
from equipoise.base.errors import EquipoiseError
from equipoise.config.base import CheckParams
from equipoise.health.asking import Outcome
from equipoise.plan.model import Dicom, Endpoint, Node, Persistence, Plan, Service
from equipoise.plan.states import NodeState

PASSED, FAILED = Outcome(True, "ok", 0, 1), Outcome(False, "refused", 0, 1)


def node(name: str, address: str = "10.0.0.1:104", host: str | None = "10.0.0.1") -> Node:
    return Node(name, address, host, 104, 100, None, backup=False)


def service(name: str, *nodes: Node) -> Service:
    return Service(
        name=name,
        protocol="dicom",
        mode="l7_snat",
        engine="gateway",
        listen=(Endpoint("10.0.0.100", 104),),
        balance="round_robin",
        persistence=Persistence("none", 1800, 32, 64),
        health=CheckParams(rise=2, fall=3),
        check="tcp",
        nodes=nodes,
        allow_from=(),
        max_connections=None,
        queue_wait_s=5,
        source_address=None,
        dicom=Dicom((), (), None, 2, 20, 30, 43200, 120, 131072),
    )


def plan(*services: Service) -> Plan:
    return Plan("here", services, 1, 30, "0" * 12)


CT = service("ct", node("a"), node("b"))
MR = service("mr", node("a"), node("b"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "overrides.json"


def book(file: Path, *services: Service) -> NodeBook:
    made = NodeBook(file)
    assert made.configure(plan(*(services or (CT, MR))), {}, forget=True) is None
    return made


def shown(nodes: NodeBook) -> dict[str, str]:
    return {key: state.state for key, state in nodes.states().items()}


def make_full(file: Path) -> None:
    """Have writes of `file` fail: root may write anything but over a directory."""
    file.unlink(missing_ok=True)
    (file / "in the way").mkdir(parents=True)


# Overrides


def test_overrides_outlive_a_restart(file: Path) -> None:
    nodes = book(file)
    nodes.override("ct/a", "drain", None)
    nodes.override("mr/b", "weight", 7)
    assert book(file).states() == nodes.states()
    assert nodes.states()["ct/a"] == NodeState("drain", 100)
    assert nodes.states()["mr/b"] == NodeState("up", 7)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("ct/a", ["ct/a"]),
        ("*/a", ["ct/a", "mr/a"]),
        ("ct/*", ["ct/a", "ct/b"]),
        ("?t/[ab]", ["ct/a", "ct/b"]),
    ],
)
def test_a_pattern_names_nodes(file: Path, pattern: str, names: list[str]) -> None:
    nodes = book(file)
    assert nodes.override(pattern, "disable", None) == names
    assert [key for key, state in shown(nodes).items() if state == "disabled"] == names


@pytest.mark.parametrize("pattern", ["a", "*", "CT/a", "ct/c", "ct/a/x", ""])
def test_a_pattern_that_matches_nothing_is_said_with_the_names_there_are(file: Path, pattern: str) -> None:
    with pytest.raises(EquipoiseError, match=r"matches no node; nodes are named SERVICE/NODE.*ct/a, ct/b, mr/a, mr/b"):
        book(file).override(pattern, "drain", None)
    assert not file.exists()


@pytest.mark.parametrize("weight", [0, 256])
def test_a_weight_within_its_bounds_is_taken_and_none_clears_it(file: Path, weight: int) -> None:
    nodes = book(file)
    nodes.override("ct/a", "weight", weight)
    assert nodes.states()["ct/a"].weight == weight
    nodes.override("ct/a", "weight", None)
    assert nodes.states()["ct/a"].weight == 100
    assert json.loads(file.read_text()) == {}


@pytest.mark.parametrize(
    ("action", "weight", "reason"),
    [
        ("weight", -1, "weight -1 is not from 0 to 256"),
        ("weight", 257, "weight 257 is not from 0 to 256"),
        ("remove", None, "'remove' is not one of drain, disable, enable, weight"),
    ],
)
def test_what_is_no_override_is_refused(file: Path, action: str, weight: int | None, reason: str) -> None:
    with pytest.raises(EquipoiseError, match=reason):
        book(file).override("ct/a", action, weight)
    assert not file.exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "\udcff",
        '{"ct/a": 1}',
        '{"ct/a": {"drained": true}}',
        '{"ct/a": {"weight": "7"}}',
        '{"ct/a": {"drain": 1}}',
    ],
)
def test_a_corrupt_file_is_refused_with_a_way_out(file: Path, content: str) -> None:
    file.write_text(content, errors="surrogateescape")
    with pytest.raises(EquipoiseError, match=r"overrides\.json cannot be read \(.*; mend the file, or remove it"):
        NodeBook(file)


def test_disabled_comes_before_drain_before_down_before_up(file: Path) -> None:
    nodes = book(file)
    seen = [shown(nodes)["ct/a"]]
    nodes.heard("ct/a", FAILED)
    seen.append(shown(nodes)["ct/a"])
    for action in ("drain", "disable", "drain", "enable"):
        nodes.override("ct/a", action, None)
        seen.append(shown(nodes)["ct/a"])
    assert seen == ["up", "down", "drain", "disabled", "disabled", "down"]


def test_an_override_that_cannot_be_kept_changes_nothing(file: Path) -> None:
    nodes = book(file)
    make_full(file)
    with pytest.raises(
        EquipoiseError, match=r"overrides\.json cannot be written, so nothing was changed: .*; make room"
    ):
        nodes.override("ct/a", "drain", None)
    assert shown(nodes)["ct/a"] == "up"


def test_an_override_goes_when_its_node_leaves(file: Path) -> None:
    nodes = book(file)
    nodes.override("*/a", "drain", None)
    assert nodes.configure(plan(CT), {}, forget=True) is None
    assert list(json.loads(file.read_text())) == ["ct/a"]
    nodes.configure(plan(CT, MR), {}, forget=True)
    assert shown(nodes) == {"ct/a": "drain", "ct/b": "up", "mr/a": "up", "mr/b": "up"}


def test_overrides_go_on_a_full_disk_too_and_the_failed_write_is_reported(file: Path) -> None:
    nodes = book(file)
    nodes.override("*/a", "drain", None)
    make_full(file)
    problem = nodes.configure(plan(CT), {}, forget=True)
    assert problem is not None
    assert problem.startswith(f"{file} cannot be written: Is a directory; ")
    nodes.configure(plan(CT, MR), {}, forget=True)
    assert shown(nodes)["mr/a"] == "up"


def test_before_a_plan_is_in_force_nothing_is_forgotten(file: Path) -> None:
    nodes = book(file)
    nodes.override("mr/a", "drain", None)
    nodes.heard("mr/b", FAILED)
    kept = file.read_text()
    make_full(file)
    assert nodes.configure(plan(CT), {}, forget=False) is None
    assert shown(nodes) == {"ct/a": "up", "ct/b": "up", "mr/a": "drain", "mr/b": "down"}  # engines serve them still
    (file / "in the way").rmdir()
    file.rmdir()
    file.write_text(kept)
    assert nodes.configure(plan(CT, MR), {}, forget=True) is None  # the other plan was refused
    assert shown(nodes) == {"ct/a": "up", "ct/b": "up", "mr/a": "drain", "mr/b": "down"}
    assert file.read_text() == kept


# Verdicts


@pytest.mark.parametrize(
    "changed",
    [
        CT,
        replace(CT, health=CheckParams(interval=1, rise=2, fall=3)),
        replace(CT, balance="first_up"),
        replace(CT, listen=(Endpoint("10.0.0.101", 104),)),
        replace(CT, nodes=(replace(node("a"), weight=5, backup=True), node("b"))),
        service("ct", node("b"), node("a", host="10.0.0.9")),  # the name moved
    ],
    ids=["nothing", "interval", "balance", "listen", "weight", "dns"],
)
def test_a_configuration_keeps_verdicts(file: Path, changed: Service) -> None:
    nodes = book(file)
    nodes.heard("ct/a", FAILED)
    nodes.heard("ct/b", PASSED)
    nodes.heard("ct/b", FAILED)
    nodes.configure(plan(changed), {}, forget=True)
    assert shown(nodes) == {"ct/a": "down", "ct/b": "up"}
    a, b = nodes.known("ct/a"), nodes.known("ct/b")
    assert a is not None
    assert b is not None
    assert (a.outcome, b.outcome) == (FAILED, FAILED)
    assert (a.service, b.service) == (changed, changed)
    assert [nodes.heard("ct/a", PASSED) for _ in range(2)] == [None, "up"]
    assert [nodes.heard("ct/b", FAILED) for _ in range(2)] == [None, "down"]  # with the one before: three


def test_other_limits_count_from_the_next_result(file: Path) -> None:
    nodes = book(file)
    nodes.heard("ct/a", PASSED)
    nodes.heard("ct/a", FAILED)
    nodes.configure(plan(replace(CT, health=CheckParams(rise=1, fall=2))), {}, forget=True)
    assert nodes.heard("ct/a", FAILED) == "down"
    assert nodes.heard("ct/a", PASSED) == "up"


@pytest.mark.parametrize(
    "changed",
    [replace(CT, check="dicom_echo"), service("ct", node("a", "10.0.0.9:104"), node("b", "10.0.0.9:105"))],
    ids=["check", "address"],
)
def test_another_check_or_address_starts_anew_but_brings_no_node_back(file: Path, changed: Service) -> None:
    nodes = book(file)
    nodes.heard("ct/a", FAILED)
    nodes.heard("ct/b", PASSED)
    nodes.configure(plan(changed), {}, forget=True)
    assert shown(nodes) == {"ct/a": "down", "ct/b": "up"}
    a, b = nodes.known("ct/a"), nodes.known("ct/b")
    assert a is not None
    assert b is not None
    assert (a.verdict.up, b.verdict.up, a.outcome, b.outcome) == (False, None, None, None)
    assert [nodes.heard("ct/a", PASSED) for _ in range(2)] == [None, "up"]
    assert nodes.heard("ct/b", FAILED) == "down"


def test_a_node_that_running_engines_held_down_stays_down_until_it_is_checked(file: Path) -> None:
    nodes = NodeBook(file)
    adopted = {"ct/a": NodeState("down", 100), "ct/b": NodeState("drain", 100)}
    nodes.configure(plan(CT), adopted, forget=False)
    nodes.configure(plan(CT), {}, forget=True)
    assert shown(nodes) == {"ct/a": "down", "ct/b": "up"}


def test_one_check_lost_after_a_restart_takes_no_node_down_that_running_engines_had_up(file: Path) -> None:
    nodes = NodeBook(file)
    nodes.configure(plan(CT), {"ct/a": NodeState("up", 100)}, forget=True)
    assert [nodes.heard("ct/a", FAILED) for _ in range(2)] == [None, None]
    assert nodes.heard("ct/a", FAILED) == "down"
    assert nodes.heard("ct/b", FAILED) == "down", "nobody knew anything of it"


def test_a_result_for_a_node_that_left_is_nothing(file: Path) -> None:
    assert book(file, CT).heard("mr/a", FAILED) is None


# Whether a node that is down could be connected to


DEAD = Outcome(False, "connection refused", 0, 1, connected=False)


def reachable(nodes: NodeBook) -> dict[str, bool]:
    return {key: state.reachable for key, state in nodes.states().items()}


def test_a_node_is_unreachable_once_it_is_down_and_no_check_connects(file: Path) -> None:
    nodes = book(file, CT)
    nodes.heard("ct/a", PASSED)
    assert [nodes.heard("ct/a", DEAD) for _ in range(2)] == [None, None]
    assert reachable(nodes) == {"ct/a": True, "ct/b": True}, "not down yet"
    assert nodes.heard("ct/a", DEAD) == "down"
    assert reachable(nodes) == {"ct/a": False, "ct/b": True}
    assert [nodes.heard("ct/a", PASSED) for _ in range(2)] == ["reachable", "up"]
    assert reachable(nodes) == {"ct/a": True, "ct/b": True}


def test_a_node_that_was_sick_and_then_dies_is_a_change_without_another_verdict(file: Path) -> None:
    nodes = book(file, CT)
    assert [nodes.heard("ct/a", outcome) for outcome in (FAILED, FAILED, DEAD, DEAD, FAILED)] == [
        "down",
        None,
        "unreachable",
        None,
        "reachable",
    ]
    assert reachable(nodes)["ct/a"]


@pytest.mark.parametrize("action", ["drain", "disable"])
def test_an_operators_word_hides_no_dead_node(file: Path, action: str) -> None:
    nodes = book(file, CT)
    nodes.heard("ct/a", DEAD)
    nodes.override("ct/a", action, None)
    assert not nodes.states()["ct/a"].reachable


def test_what_running_engines_knew_holds_until_the_first_check(file: Path) -> None:
    nodes = NodeBook(file)
    adopted = {"ct/a": NodeState("down", 100, reachable=False), "ct/b": NodeState("down", 100)}
    nodes.configure(plan(CT), adopted, forget=False)
    assert reachable(nodes) == {"ct/a": False, "ct/b": True}
    nodes.configure(plan(CT), {}, forget=True)
    assert reachable(nodes) == {"ct/a": False, "ct/b": True}
    assert nodes.heard("ct/a", DEAD) is None
    assert nodes.heard("ct/b", DEAD) == "unreachable"


def test_a_node_that_moved_is_not_held_for_dead(file: Path) -> None:
    nodes = book(file, CT)
    nodes.heard("ct/a", DEAD)
    moved = service("ct", node("a", "10.0.0.9:104", "10.0.0.9"), node("b"))
    nodes.configure(plan(moved), {}, forget=True)
    assert nodes.states()["ct/a"] == NodeState("down", 100)
