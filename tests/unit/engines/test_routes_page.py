"""The example of docs/explanation/routes.md does what the table there says."""

import re
from pathlib import Path

import pytest

from equipoise.config.loading import load
from equipoise.config.models import Catalogue
from equipoise.engines.gateway.admission import Admitted, Door
from equipoise.engines.gateway.render import render
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.proto.dicom.association import VERIFICATION, AssociateRequest
from tests.catalogue import catalogue
from tests.unit.engines.test_routing import CT, GET, WORKLIST, asking, request

__all__ = ["catalogue"]
PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "routes.md"
HERE, THERE = "192.0.2.1", "10.9.1.1"


@pytest.fixture(scope="module")
def front(catalogue: Catalogue) -> Door:
    """The door of the page's site, whose services are given the health check that the page leaves out."""
    services = re.findall(r"```yaml\n(services:\n.*?)```", PAGE.read_text(), re.DOTALL)[0]
    text = services.replace("    protocol: dicom\n", "    protocol: dicom\n    health: {check: tcp}\n")
    plan = compile_plan(load(f"site: x\n{text}", "routes.md", catalogue).site, HostFacts())
    tasks = {task.name: task for task in render(plan).workers[0]}
    return Door.of(tasks["front"], tasks)


@pytest.mark.parametrize(
    ("asked", "source", "pool"),
    [
        (asking("worklist"), HERE, "ris"),
        (asking("worklist mpps"), HERE, "ris"),
        (asking("store"), HERE, "front"),
        (asking("store commitment"), HERE, "front"),
        (asking("query retrieve"), HERE, "pacs-query"),
        (request(GET, CT, roles=[(CT, 0, 1)]), HERE, "pacs-query"),
        (request(CT, called="TELERAD"), THERE, "vna"),
        (request(CT, called="TELERAD"), HERE, "front"),
        (request(WORKLIST, CT, called="TELERAD"), THERE, "vna"),
        (request(VERIFICATION), HERE, "front"),
        (asking("store worklist"), HERE, None),
    ],
)
def test_a_row_of_the_table(front: Door, asked: AssociateRequest, source: str, pool: str | None) -> None:
    answer = front.admit(asked, source)
    assert (answer.pool if isinstance(answer, Admitted) else None) == pool


def test_the_reason_on_the_page_is_the_programs(front: Door) -> None:
    answer = front.admit(asking("store worklist"), HERE)
    assert not isinstance(answer, Admitted)
    assert answer.reason in " ".join(PAGE.read_text().split())
