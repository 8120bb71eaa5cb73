"""What checks say of a node is an event where its verdict changes, and reaches engines where that means something."""

from pathlib import Path

import pytest

from equipoise.app.nodes import NodeBook
from equipoise.app.targets import targets
from equipoise.app.verdicts import Verdicts
from equipoise.health.asking import Outcome
from equipoise.health.runner import Target
from equipoise.state.events import Event
from tests.unit.app.test_nodes import FAILED, PASSED, node, plan, service

UNREACHABLE = Outcome(False, "no route", 0, 1, connected=False)


@pytest.fixture
def target() -> Target:
    return next(iter(targets(plan(service("ct", node("a"))))))


@pytest.fixture
def heard(tmp_path: Path) -> tuple[Verdicts, list[Event]]:
    book, events = NodeBook(tmp_path / "overrides.json"), list[Event]()
    book.configure(plan(service("ct", node("a"))), {}, forget=True)
    return Verdicts(book, events.append), events


def test_a_verdict_that_changes_is_told_with_its_reason(target: Target, heard: tuple[Verdicts, list[Event]]) -> None:
    verdicts, events = heard
    outcomes = [PASSED, *[FAILED] * 4, *[PASSED] * 3]
    changed = [verdicts.heard(target, outcome) for outcome in outcomes]
    fields = [event.fields() for event in events]
    assert [each["kind"] for each in fields] == ["node.up", "node.down", "node.up"]
    assert (fields[1]["reason"], fields[1]["failures"], fields[1]["node"]) == ("refused", 3, "a")
    assert [at for at, change in enumerate(changed) if change] == [0, 3, 6]


def test_a_node_that_can_no_longer_be_reached_changes_something_without_an_event(
    target: Target, heard: tuple[Verdicts, list[Event]]
) -> None:
    verdicts, events = heard
    for _ in range(3):
        verdicts.heard(target, FAILED)
    count = len(events)
    assert [verdicts.heard(target, each) for each in (UNREACHABLE, UNREACHABLE, FAILED)] == [True, False, True]
    assert len(events) == count


def test_a_node_that_left_says_nothing(tmp_path: Path, target: Target) -> None:
    events: list[Event] = []
    assert not Verdicts(NodeBook(tmp_path / "overrides.json"), events.append).heard(target, FAILED)
    assert events == []
