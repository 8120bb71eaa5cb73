"""Every check, policy, event, setting and command has its test and its place in the reference."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main

from equipoise.__main__ import Servers
from equipoise.cli.main import build
from equipoise.health.catalogue import checks
from equipoise.policy.catalogue import policies
from equipoise.state import cluster_events, network_events
from equipoise.state.events import Event
from tests.arch.repository import PACKAGE, REFERENCE, ROOT, shown, tracked_files
from tools import reference

UNIT = ROOT / "tests" / "unit"


def page(name: str) -> str:
    return (REFERENCE / name).read_text()


def heading(name: str) -> re.Pattern[str]:
    return re.compile(rf"^#+ `?{re.escape(name)}`?$", re.MULTILINE)


def has_unit_test(folder: str, name: str) -> bool:
    """Say whether a file there is called like it, or imports it: one suite may run over all of them."""
    imported = re.compile(rf"\bimport .*\b{name}\b|\.{name} import |[\"']{name}[\"']")
    return any(name in path.stem or imported.search(path.read_text()) for path in (UNIT / folder).rglob("*.py"))


@pytest.mark.parametrize("name", sorted(checks()))
def test_a_check_has_its_reference(name: str) -> None:
    assert heading(name).search(page("checks.md")), f"docs/reference/checks.md has no section for `{name}`"


@pytest.mark.parametrize("name", sorted(checks()))
def test_a_check_has_its_tests(name: str) -> None:
    assert has_unit_test("health", name), f"write tests/unit/health/test_{name}.py"


@pytest.mark.parametrize("name", sorted(policies()))
def test_a_policy_has_its_reference(name: str) -> None:
    assert heading(name).search(page("policies.md")), "run `make docs`"


@pytest.mark.parametrize("name", sorted(policies()))
def test_a_policy_has_its_tests(name: str) -> None:
    assert has_unit_test("policy", name), f"write tests/unit/policy/test_{name}.py"


def kinds(base: type[Event] = Event) -> Iterator[type[Event]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_module_of_events_is_known() -> None:
    """Else `kinds` would know of its events only where something else imports it."""
    modules = {path.stem for path in (PACKAGE / "state").glob("*events.py")}
    assert modules == {"events", *(each.__name__.rpartition(".")[2] for each in (network_events, cluster_events))}
    assert {event.__module__.rpartition(".")[2] for event in kinds()} == modules


@pytest.mark.parametrize("event", list(kinds()), ids=lambda event: event.__name__)
def test_an_event_has_its_reference(event: type[Event]) -> None:
    if not hasattr(event, "kind"):  # what several of them share
        return
    section = page("events.md").partition(f"\n## `{event.kind}`\n")[2].partition("\n## ")[0]
    assert section, "run `make docs`"
    assert event.__doc__
    assert inspect.cleandoc(event.__doc__) in section
    assert [name for name in (field.name for field in fields(event)) if f"`{name}`" not in section] == []


# What says the word.
ENDS = (
    "End",
    "_reject",
    "_abort",
    "abort_both",
    "not_taken",
    "Refused",
    "GivenUp",
    "NotLetIn",
    "_refuse",
    "_turn_away",
)
WHERE = ("admission", "conversation", "entrance", "relay_dicom", "relay_setup", "reception", "service")


def ways_to_end() -> set[str]:
    """Return every word that `ended` of `association.ended` may be: those that the relay's calls are given."""
    words = set()
    for module in WHERE:
        tree = ast.parse((PACKAGE / "engines" / "gateway" / f"{module}.py").read_text())
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if getattr(call.func, "id", getattr(call.func, "attr", "")) in ENDS:
                texts = [
                    each.value
                    for argument in call.args[:3]
                    for each in ast.walk(argument)
                    if isinstance(each, ast.Constant) and isinstance(each.value, str)
                ]
                words |= {text for text in texts if re.fullmatch(r"[a-z]{2,}(_[a-z]+)?", text)}
    return words


def test_every_way_to_end_is_explained() -> None:
    table = (ROOT / "docs" / "howto" / "at-three-in-the-morning.md").read_text().partition("| `ended` |")[2]
    explained = set(re.findall(r"^\| `(\w+)` \|", table.partition("\n\n")[0], re.MULTILINE))
    assert ways_to_end() == explained
    count = "seventeen words"  # said in docs/explanation/events-and-patients.md
    assert len(explained) == 17, f"correct {count!r}"


HL7_ENDS = {"close": 0, "close_sender": 1, "_end": 0, "failed": 1, "broken": 1, "_drop": 1}  # to where the word stands


def hl7_words() -> set[str]:
    """Return every word that `ended` of `sender.ended` and `why` of `receiver.failed` may be."""
    words = set()
    for path in sorted((PACKAGE / "engines" / "gateway" / "hl7").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
                names = [each.id for each in node.targets[0].elts if isinstance(each, ast.Name)]
                if names == ["ended", "reason"] and isinstance(node.value, ast.Tuple):
                    words.add(ast.literal_eval(node.value.elts[0]))
            if isinstance(node, ast.Call) and (at := HL7_ENDS.get(getattr(node.func, "attr", ""))) is not None:
                word = node.args[at] if len(node.args) > at else None
                if isinstance(word, ast.Constant) and isinstance(word.value, str):
                    words.add(word.value)
    return words


def test_every_way_an_hl7_connection_ends_is_explained() -> None:
    page = (ROOT / "docs" / "howto" / "at-three-in-the-morning.md").read_text()
    hl7 = page.partition("| `why` |")[2]
    first_cells = re.findall(r"^\| (`[^|]+`) \|", hl7, re.MULTILINE)
    explained = {word for cell in first_cells for word in re.findall(r"`(\w+)`", cell)}
    elsewhere = {"ended", "tls_failed", "proxy_failed", "no_room", "no_request", "timed_out"}  # of the entrance
    assert hl7_words() == explained - elsewhere
    assert len(hl7_words()) == 15


def commands(command: Any, path: str) -> Iterator[str]:
    """Yield every command that does something, by its whole name; groups are click's."""
    below = getattr(command, "commands", None)
    if below is None:
        yield path
        return
    for name, each in below.items():
        yield from commands(each, f"{path} {name}")


def test_a_command_has_its_reference() -> None:
    known = list(commands(typer.main.get_command(build(Servers())), "equipoise"))
    assert len(known) > 8
    assert [name for name in known if f"\n## `{name}`\n" not in page("commands.md")] == []


def test_the_generated_pages_are_current() -> None:
    assert reference.outdated() == [], "run `make docs`"


def links(page_path: Path) -> Iterator[str]:
    prose = re.sub(r"```.*?```", "", page_path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:", target):
            yield target


@pytest.mark.parametrize("path", [p for p in tracked_files() if p.suffix == ".md"], ids=shown)
def test_links_lead_somewhere(path: Path) -> None:
    """Within the repository; a place in a page is a heading of it."""
    for target in links(path):
        file, _, place = target.partition("#")
        goal = path.parent / file if file else path
        assert goal.exists(), f"{shown(path)} links to {target}"
        if place and goal.suffix == ".md":
            assert place in {_anchor(title) for title in re.findall(r"^#+ (.+)$", goal.read_text(), re.MULTILINE)}


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
