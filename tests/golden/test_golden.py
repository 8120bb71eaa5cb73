"""Golden cases: a folder with `config.yaml`, and what comes out: `plan.json`, or `error.txt` where it must fail.

Where HAProxy has work: its configuration too, `haproxy.cfg`, and what it answers by itself, `pages.http`.
Where the kernel has: what nft is told while every node takes work, `rules.nft`, with few of the many slots.
In a pair that translates addresses: what conntrackd is to be given, `conntrackd.conf`.
Where keepalived has: `keepalived.conf`, and the packet rules beside it, `pair.nft`.
`facts.json` beside them says what names resolve to, `ways.json` by which interface (and router) addresses are reached,
`here.json` what the machine's own file says of its place in a pair.
EQUIPOISE_GOLDEN=rewrite writes what comes out: read that diff.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from equipoise.base.errors import ConfigError
from equipoise.config.cluster import Here
from equipoise.config.loading import load
from equipoise.config.models import Catalogue
from equipoise.engines.haproxy.render import render
from equipoise.engines.haproxy.states import shown
from equipoise.engines.keepalived import rules
from equipoise.engines.keepalived.artifact import Place
from equipoise.engines.keepalived.render import render as render_keepalived
from equipoise.engines.layer4.balance import Balance
from equipoise.engines.layer4.render import render as render_layer4
from equipoise.engines.layer4.transaction import structure
from equipoise.plan.compile import compile_plan, names_to_resolve, to_json
from equipoise.plan.inputs import HostFacts, Way
from equipoise.plan.model import Plan

HERE = Path(__file__).parent
CASES = sorted(path.parent for path in HERE.glob("*/config.yaml"))
EXAMPLES = sorted((HERE.parents[1] / "examples").glob("*.yaml"))
MANY_SLOTS = re.compile(r"((?:\d+ : 0x[0-9a-f]{8}, ){11}\d+ : 0x[0-9a-f]{8}),.*, (\d+ : 0x[0-9a-f]{8}) }")
REWRITE = os.environ.get("EQUIPOISE_GOLDEN") == "rewrite"


OUTCOMES = (
    "plan.json",
    "error.txt",
    "haproxy.cfg",
    "pages.http",
    "rules.nft",
    "conntrackd.conf",
    "keepalived.conf",
    "pair.nft",
)
RUNTIME = Path("/run/equipoise")
PLACE = Place(
    directory=RUNTIME / "keepalived",
    gateway_sockets=RUNTIME / "gateway-",
    haproxy_socket=RUNTIME / "haproxy/master.sock",
    user="root",
    table="equipoise-vrrp",
    runs_scripts=True,
)


def plan_of(case: Path, catalogue: Catalogue) -> Plan:
    """Return what this case means.  Raises: ConfigError."""
    ways = {address: Way(*way) for address, way in facts(case / "ways.json").items()}
    site = load((case / "config.yaml").read_text(), "config.yaml", catalogue).site
    here = facts(case / "here.json")
    return compile_plan(site, HostFacts(facts(case / "facts.json"), ways=ways, here=Here(**here) if here else None))


def facts(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def outcome(case: Path, catalogue: Catalogue) -> dict[str, str]:
    """Return the files that this case gives, by name."""
    try:
        plan = plan_of(case, catalogue)
    except ConfigError as error:
        return {"error.txt": f"{error}\n"}
    stored = json.dumps(to_json(plan), indent=2, ensure_ascii=False) + "\n"
    return {"plan.json": stored, **for_haproxy(plan), **for_kernel(plan), **for_keepalived(plan)}


def for_haproxy(plan: Plan) -> dict[str, str]:
    """Return what HAProxy is given, before anything is known of nodes."""
    if not (artifact := render(plan)):
        return {}
    pages = [f"---- {page.name}\n{page.content.decode()}" for page in artifact.pages]
    given = {"haproxy.cfg": artifact.text(lambda line: shown(line, {}, ()))}
    return given | ({"pages.http": "\n".join(pages).replace("\r\n", "\n")} if pages else {})


def for_kernel(plan: Plan) -> dict[str, str]:
    """Return what nft is told where the kernel has nothing of ours, while every node takes work."""
    if not (artifact := render_layer4(plan, "equipoise")):
        return {}
    fillings = {pool.service: Balance(pool).filling({}, 0, 0.0) for pool in artifact.pools}
    given = {"rules.nft": MANY_SLOTS.sub(r"\1, ... \2 }", structure(artifact, fillings, {}))}
    return given | ({"conntrackd.conf": artifact.tracking} if artifact.tracking else {})


def for_keepalived(plan: Plan) -> dict[str, str]:
    """Return what keepalived is given, and what nft is told beside it."""
    artifact = render_keepalived(plan, PLACE)
    if artifact.rules is None:
        return {}
    return {"keepalived.conf": artifact.configuration, "pair.nft": rules.structure(artifact.rules)}


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
