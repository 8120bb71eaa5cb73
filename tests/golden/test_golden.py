"""Golden cases: a folder with `config.yaml`, and what comes out: `plan.json`, or `error.txt` where it must fail.

Where HAProxy has work: its configuration too, `haproxy.cfg`, and what it answers by itself, `pages.http`.
`facts.json` beside them says what names resolve to.  EQUIPOISE_GOLDEN=rewrite writes what comes out: read that diff.
"""

import json
import os
from pathlib import Path

import pytest

from equipoise.base.errors import ConfigError
from equipoise.config.loading import load
from equipoise.config.models import Catalogue
from equipoise.engines.haproxy.render import render
from equipoise.engines.haproxy.states import shown
from equipoise.plan.compile import compile_plan, names_to_resolve, to_json
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Plan

HERE = Path(__file__).parent
CASES = sorted(path.parent for path in HERE.glob("*/config.yaml"))
EXAMPLES = sorted((HERE.parents[1] / "examples").glob("*.yaml"))
REWRITE = os.environ.get("EQUIPOISE_GOLDEN") == "rewrite"


OUTCOMES = ("plan.json", "error.txt", "haproxy.cfg", "pages.http")


def plan_of(case: Path, catalogue: Catalogue) -> Plan:
    """Return what this case means.  Raises: ConfigError."""
    facts = case / "facts.json"
    resolved = json.loads(facts.read_text()) if facts.exists() else {}
    return compile_plan(load((case / "config.yaml").read_text(), "config.yaml", catalogue).site, HostFacts(resolved))


def outcome(case: Path, catalogue: Catalogue) -> dict[str, str]:
    """Return the files that this case gives, by name."""
    try:
        plan = plan_of(case, catalogue)
    except ConfigError as error:
        return {"error.txt": f"{error}\n"}
    return {"plan.json": json.dumps(to_json(plan), indent=2, ensure_ascii=False) + "\n", **for_haproxy(plan)}


def for_haproxy(plan: Plan) -> dict[str, str]:
    """Return what HAProxy is given, before anything is known of nodes."""
    if not (artifact := render(plan)):
        return {}
    pages = [f"---- {page.name}\n{page.content.decode()}" for page in artifact.pages]
    given = {"haproxy.cfg": artifact.text(lambda line: shown(line, {}, ()))}
    return given | ({"pages.http": "\n".join(pages).replace("\r\n", "\n")} if pages else {})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden(case: Path, catalogue: Catalogue) -> None:
    given = outcome(case, catalogue)
    if REWRITE:
        for other in OUTCOMES:
            (case / other).unlink(missing_ok=True)
        for name, content in given.items():
            (case / name).write_text(content)
    stored = {name: (case / name).read_text() for name in OUTCOMES if (case / name).exists()}
    assert sorted(stored) == sorted(given), "\n".join(given.values())
    for name, content in given.items():
        assert content == stored[name]


def test_there_are_cases_of_both_kinds() -> None:
    assert {path.name for case in CASES for path in case.iterdir()} >= set(OUTCOMES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples_are_valid(example: Path, catalogue: Catalogue) -> None:
    site = load(example.read_text(), example.name, catalogue).site
    plan = compile_plan(site, HostFacts(dict.fromkeys(names_to_resolve(site), "192.168.10.9")))
    assert all(node.host for service in plan.services for node in service.nodes)
