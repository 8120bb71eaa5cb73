"""Golden cases: a folder with `config.yaml`, and what comes out: `plan.json`, or `error.txt` where it must fail.

`facts.json` beside them says what names resolve to.  EQUIPOISE_GOLDEN=rewrite writes what comes out: read that diff.
"""

import json
import os
from pathlib import Path

import pytest

from equipoise.base.errors import ConfigError
from equipoise.config.loading import load
from equipoise.config.models import Catalogue
from equipoise.plan.compile import compile_plan, names_to_resolve, to_json
from equipoise.plan.inputs import HostFacts

HERE = Path(__file__).parent
CASES = sorted(path.parent for path in HERE.glob("*/config.yaml"))
EXAMPLES = sorted((HERE.parents[1] / "examples").glob("*.yaml"))
REWRITE = os.environ.get("EQUIPOISE_GOLDEN") == "rewrite"


def outcome(case: Path, catalogue: Catalogue) -> tuple[str, str]:
    """Return the name of the file that this case gives, and its content."""
    facts = case / "facts.json"
    resolved = json.loads(facts.read_text()) if facts.exists() else {}
    try:
        site = load((case / "config.yaml").read_text(), "config.yaml", catalogue).site
    except ConfigError as error:
        return "error.txt", f"{error}\n"
    return "plan.json", json.dumps(
        to_json(compile_plan(site, HostFacts(resolved))), indent=2, ensure_ascii=False
    ) + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden(case: Path, catalogue: Catalogue) -> None:
    name, content = outcome(case, catalogue)
    if REWRITE:
        for other in ("plan.json", "error.txt"):
            (case / other).unlink(missing_ok=True)
        (case / name).write_text(content)
    assert (case / name).exists(), f"{case.name} gives {name} now:\n{content}"
    assert content == (case / name).read_text()


def test_there_are_cases_of_both_kinds() -> None:
    assert {path.name for case in CASES for path in case.iterdir()} >= {"plan.json", "error.txt"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples_are_valid(example: Path, catalogue: Catalogue) -> None:
    site = load(example.read_text(), example.name, catalogue).site
    plan = compile_plan(site, HostFacts(dict.fromkeys(names_to_resolve(site), "192.168.10.9")))
    assert all(node.host for service in plan.services for node in service.nodes)
