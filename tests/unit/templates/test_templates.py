"""Every site template: it becomes services that hold together, and each of its values says where it is from."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from equipoise.app import wiring
from equipoise.base.errors import ConfigError
from equipoise.config.loading import load
from equipoise.config.models import Catalogue, Site
from equipoise.plan.compile import compile_plan, to_json
from equipoise.plan.inputs import HostFacts
from equipoise.templates.model import OURS, Template
from equipoise.templates.reader import names, read

ROOT = Path(__file__).parents[3]
PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
GIVEN = {"vip": "10.0.0.100", "nodes": "{a: 10.0.0.11, b: 10.0.0.12}", "cert": "/etc/ssl/pacs.pem", "path": "/xds"}
ASKED_OF_ALL = ("vip", "nodes")


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return wiring.catalogue()


@pytest.fixture(params=names())
def template(request: pytest.FixtureRequest) -> Template:
    return read(request.param)


def entry(template: Template, *more: str, name: str = "pacs") -> str:
    """Return an entry of `use` with all that the template asks for and has no default."""
    asked = [f"{name}: {GIVEN.get(name, '1.2.3')}" for name, ask in template.asks.items() if ask.default is None]
    return f"{{{', '.join([f'template: {template.name}', f'name: {name}', *asked, *more])}}}"


def used(template: Template, catalogue: Catalogue, *more: str) -> Site:
    """Return a site with this template alone."""
    return load(f"site: s\nuse: [{entry(template, *more)}]\n", "site.yaml", catalogue).site


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from leaves(each, f"{path}.{name}")
    else:
        yield path, value


def test_it_becomes_a_plan(template: Template, catalogue: Catalogue) -> None:
    plan = compile_plan(used(template, catalogue), HostFacts({}))
    assert [service.name for service in plan.services] == sorted(f"pacs-{part}" for part in template.services)
    assert all([node.host for node in service.nodes] == ["10.0.0.11", "10.0.0.12"] for service in plan.services)
    assert to_json(plan)


def test_every_value_says_where_it_is_from(template: Template) -> None:
    values = [path for path, value in leaves(template.services, "services") if not _is_asked(value)]
    values += [f"asks.{name}.default" for name, ask in template.asks.items() if ask.default is not None]
    assert [path for path in values if path not in template.sources] == []


def _is_asked(value: Any) -> bool:
    """Say whether a value is made of nothing but what was asked for."""
    return isinstance(value, str) and not re.search(r"\w", PLACEHOLDER.sub("", value))


def test_a_source_is_a_document_of_the_template_or_ours(template: Template) -> None:
    words = {source.partition(": ")[0] for source in template.sources.values()}
    in_comments = set(re.findall(r"\((\w+)\)", " ".join(re.findall(r"^ *#.*$", template.text, re.MULTILINE))))
    assert words <= {*template.documents, OURS}
    assert set(template.documents) <= words | in_comments, "a document that nothing is from"
    assert all(source.partition(": ")[2] for source in template.sources.values()), "says which part of it"


def test_it_asks_for_what_it_uses(template: Template) -> None:
    used_names = {name for _, value in leaves(template.services, "") for name in PLACEHOLDER.findall(str(value))}
    assert used_names == set(template.asks)
    assert set(ASKED_OF_ALL) <= set(template.asks)


def test_every_part_says_its_ports(template: Template) -> None:
    for service in template.services.values():
        assert {"protocol", "listen", "ports", "nodes", "health"} <= set(service)
        assert service["listen"] == "${vip}", "it may be a list, so ports stand beside it"


def test_a_golden_case_shows_it(template: Template) -> None:
    case = ROOT / "tests" / "golden" / f"template-{template.name}"
    assert f"template: {template.name}" in (case / "config.yaml").read_text()
    assert (case / "plan.json").exists()


def test_two_uses_of_it_live_side_by_side(template: Template, catalogue: Catalogue) -> None:
    one, other = entry(template, name="one"), entry(template, name="other").replace("10.0.0.", "10.0.1.")
    site = load(f"site: s\nuse:\n  - {one}\n  - {other}\n", "f", catalogue).site
    assert len(site.services) == 2 * len(template.services)


# INFINITT, as its guide says


def test_the_four_services_of_infinitt(catalogue: Catalogue) -> None:
    made = used(read("infinitt_pacs"), catalogue).services
    assert {name: (service.protocol, service.default_ports) for name, service in made.items()} == {
        "pacs-web": ("http", (80,)),
        "pacs-dicom": ("dicom", (104,)),
        "pacs-query": ("dicom", (105,)),
        "pacs-mwl": ("dicom", (204,)),
    }
    web = made.pop("pacs-web")
    assert (web.known_by, web.persistence.fallback) == ("cookie", "source_ip")
    assert (web.check[0], dict(web.check[1])["method"]) == ("http", "HEAD")
    assert {(service.known_by, service.check[0]) for service in made.values()} == {("source_ip", "tcp")}


def test_a_dicom_echo_is_one_line_away(catalogue: Catalogue) -> None:
    line = "services: {dicom: {health: {check: dicom_echo}}}"
    assert used(read("infinitt_pacs"), catalogue, line).services["pacs-dicom"].check[0] == "dicom_echo"


def test_all_checks_and_balances_that_templates_name_are_there(catalogue: Catalogue) -> None:
    """A template that names what an installation does not have is refused where it is used."""
    smaller = replace(catalogue, checks={"tcp": catalogue.checks["tcp"]})
    with pytest.raises(ConfigError, match=r"not known.*from template infinitt_pacs"):
        used(read("infinitt_pacs"), smaller)
